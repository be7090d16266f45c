"""A CPU training step of merba_nano with the Numba scan against the reference scan, and of STSTNet against its plain form.

    python bench/model.py [--rounds 3] [--threads 1 2]

It also measures each method of Table V: CPU seconds per clip, and the peak memory of a process.

A step is forward, loss, backward and AdamW, at batch 64 (MERba) or 256 (STSTNet), as in training. Both forms take turns,
and a ratio is the median over rounds of the ratio of both times in the same round, so that other work on the machine slows
both alike. A fitted method is timed by the features of 16 clips, a network by a step with its experiment's batch size (MERba-B,
MambaVision-B and MFDAN: 8 clips, MERSiamC3D: 4), and SLSTT's frozen encoder by the tokens of a clip; each on one thread of a
new process. Writes bench/results/model.json.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from multiprocessing import get_context
from statistics import median
from time import perf_counter, process_time

import torch
import torch.nn.functional as F
from machine import machine, write
from torch import Tensor, nn

from merba import create_model
from merba.models.fitted import FittedModel
from merba.models.slstt import SLSTT
from merba.scan import BACKEND_VARIABLE
from merba.training.devices import keep_freed_memory
from merba.training.records import peak_memory_mb

GOALS = {"merba_nano": 6.0, "ststnet": 1.5}  # times as fast
# Clips at a time.
METHODS = {
    **{"lbp_top": 16, "biwoof": 16, "kernel": 16, "ststnet": 256, "featref": 32, "htnet": 256},
    **{"mambavision_base": 8, "merba_base": 8, "merba_nano": 64, "slstt": 2, "slstt_small": 2, "slstt_demo": 2},
    **{"meplan": 45, "meplan_small": 45, "mfdan": 8, "mfdan_small": 128, "mersiamc3d": 4, "mersiamc3d_small": 32},
}
ENCODER = "slstt, encoder"


class ThreeStreams(nn.Module):
    """STSTNet as its paper draws it: one stream after the other, by PyTorch's layers."""

    def __init__(self):
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, filters, 3, padding=2),
                nn.ReLU(),
                nn.BatchNorm2d(filters),
                nn.MaxPool2d(3, stride=3, padding=1),
                nn.Dropout(0.5),
            )
            for filters in (3, 5, 8)
        )
        self.fc = nn.Linear(400, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.avg_pool2d(torch.cat([stream(x) for stream in self.streams], 1), 2).flatten(1))


def training_step(model: nn.Module, batch: int, shape: tuple[int, ...], scan: str) -> Callable[[], float]:
    """A function that does one training step with that scan backend and returns its seconds."""
    torch.manual_seed(0)
    flow, labels = torch.randn(batch, *shape), torch.randint(0, 3, (batch,))
    optimizer = torch.optim.AdamW(model.train().parameters(), 1e-4, fused=True)
    loss = getattr(model, "loss", F.cross_entropy)

    def step() -> float:
        os.environ[BACKEND_VARIABLE] = scan
        start = perf_counter()
        optimizer.zero_grad()
        loss(model(flow), labels).backward()
        optimizer.step()
        return perf_counter() - start

    return step


def compare(ours: Callable[[], float], other: Callable[[], float], batch: int, rounds: int, repeats: int) -> dict:
    """Medians of both; in a round, `repeats` of our steps are compared with one of the other's."""
    ours(), other()  # warm up
    pairs = [(median(ours() for _ in range(repeats)), other()) for _ in range(rounds)]
    seconds = median(mine for mine, _ in pairs)
    return {
        "milliseconds": round(1e3 * seconds, 1),
        "samples_per_second": round(batch / seconds, 1),
        "other_milliseconds": round(1e3 * median(its for _, its in pairs), 1),
        "times_as_fast": round(median(its / mine for mine, its in pairs), 2),
    }


def method_cost(name: str) -> dict[str, float]:
    """The cost of one clip for a method, in this process."""
    torch.set_num_threads(1)
    if name == ENCODER:
        clip = torch.randn(1, 11, 2, 224, 224)
        network, batch = SLSTT(3, encoder="frozen").eval(), 1

        def work() -> object:
            with torch.inference_mode():
                return [network.tokens(clip[:, [frame]]) for frame in range(11)]

    else:
        model, batch = create_model(name, 3), METHODS[name]
        clips = torch.randint(0, 256, (batch, *model.input_shape)).float()
        fitted = isinstance(model, FittedModel)
        work = (lambda: model.features(clips)) if fitted else training_step(model, batch, model.input_shape, "numba")
        work()  # warm up
    started = process_time()
    work()
    return {"cpu_seconds_a_clip": round((process_time() - started) / batch, 3), "memory_mb": peak_memory_mb()}


def methods() -> dict[str, dict]:
    """`method_cost` of each method, each in its own process."""
    costs = {}
    for name in (*METHODS, ENCODER):
        with get_context("spawn").Pool(1) as process:
            costs[name] = process.apply(method_cost, (name,))
    return costs


def measure(threads: int, rounds: int) -> dict[str, dict]:
    torch.set_num_threads(threads)
    nano, ststnet = create_model("merba_nano", 3), create_model("ststnet", 3)
    steps = [training_step(nano, 64, nano.input_shape, scan) for scan in ("numba", "reference")]
    streams = [training_step(model, 256, ststnet.input_shape, "numba") for model in (ststnet, ThreeStreams())]
    return {
        "merba_nano": compare(*steps, batch=64, rounds=rounds, repeats=3),
        "ststnet": compare(*streams, batch=256, rounds=10 * rounds, repeats=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()

    keep_freed_memory()
    figures = {"machine": machine("numba"), "rounds": options.rounds, "goals": GOALS, "threads": {}}
    print(figures["machine"]["processor"])
    # First, because the peak memory of a new process is never below what this one used before it.
    figures["methods"] = methods()
    for name, cost in figures["methods"].items():
        print(f"{name:16} {cost['cpu_seconds_a_clip']:8.3f} CPU s a clip {cost['memory_mb']:6} MB")
    print(f"{'threads':>7} {'model':11} {'step':>12} {'samples/s':>10} {'other form':>12} {'times as fast':>14}  goal")
    for threads in options.threads:
        figures["threads"][threads] = measured = measure(threads, options.rounds)
        for name, row in measured.items():
            print(
                f"{threads:7} {name:11} {row['milliseconds']:9.1f} ms {row['samples_per_second']:10.1f} "
                f"{row['other_milliseconds']:9.1f} ms {row['times_as_fast']:14.2f}  {GOALS[name]}"
            )
    print("written:", write("model.json", figures).name)


if __name__ == "__main__":
    main()
