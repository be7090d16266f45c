"""bench/gpu.py's times of training: single steps, whole folds of leave-one-subject-out, and a fold as a separate job."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from gpu_setup import DRY, GPU, Calls, Setup, milliseconds
from torch.utils.flop_counter import FlopCounterMode

from merba.models import create_model
from merba.models.heads import classification_loss

SUBJECTS = 68  # folds of the 442 clips
# Dense bf16 FLOP/s by data sheet, for the utilisation; another GPU's rate is that of a large matrix product.
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200 NVL": 835e12, "H200": 989e12, "A100": 312e12
}  # fmt: skip


def trainings(setup: Setup) -> Calls:
    """The GPU's rate, and a training step of every model, compiled and not."""

    def peak() -> dict:
        rate, source = peak_rate(setup.device)
        return {"tflops": rate / 1e12, "from": source}

    return {"peak": peak} | {
        f"{name}, {'compiled' if compiled else 'eager'}": partial(time_training, name, setup, compiled)
        for name in setup.models
        for compiled in (False, True)
    }


def loso(setup: Setup) -> Calls:
    """Folds one after the other in one process, as `merba train` trains them, and one as a job of the workflow."""
    return {f"fold {number + 1}": partial(time_fold, setup, number) for number in range(setup.folds)} | {
        "a job of its own": partial(time_job, setup)
    }


def whole_loso(figures: dict[str, dict]) -> dict:
    """The time of all SUBJECTS folds: that of the first, which compiles, plus the others' median for each remaining fold."""
    seconds = [row["seconds"] for label, row in figures.items() if label.startswith("fold ") and "seconds" in row]
    if len(seconds) < 2:
        return {}
    rest = median(seconds[1:])
    minutes = {"minutes_in_one_process": (seconds[0] + (SUBJECTS - 1) * rest) / 60}
    if (beside := figures.get("a job of its own", {}).get("beside_training_seconds")) is not None:
        minutes["minutes_as_jobs"] = SUBJECTS * (rest + beside) / 60
    return {"folds": SUBJECTS, **minutes}


@cache
def peak_rate(device: str) -> tuple[float, str]:
    """FLOP/s that the GPU can do in bf16, and the source of this number."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    for known, rate in PEAKS.items():
        if known in name:
            return rate, "data sheet"
    size = 8192 if device == "cuda" else 256
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / (1e-3 * milliseconds(lambda: a @ a, device)), "a matrix product"


def step_flops(model: torch.nn.Module, batch: int, device: str) -> int:
    """FLOPs of a training step by the usual rule: three times those of the forward pass's matrix products."""
    flow = torch.zeros(1, *model.input_shape, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(flow)
    return 3 * batch * counter.get_total_flops()


def kernel_launches(step: Callable[[], object]) -> int | str:
    """GPU kernels that a call starts; if the profiler fails, why they could not be counted."""
    try:
        return count_launches(step)
    except Exception as problem:  # CUPTI is often absent or forbidden, and the timings must not be lost
        return f"not counted: {problem}"


def count_launches(step: Callable[[], object]) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not event.is_user_annotation and not event.name.startswith(("Memcpy", "Memset")) for event in events)


def time_training(name: str, setup: Setup, compiled: bool) -> dict[str, float | int | str | None]:
    """A training step (bf16 autocast, channels-last, fused AdamW): samples/s, utilisation, peak memory, launches."""
    torch.manual_seed(0)
    device, batch = setup.device, setup.batch
    model = create_model(name, 7).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    flow = torch.randn(batch, *model.input_shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(7, (batch,), device=device)
    flops = step_flops(model.eval(), batch, device)
    forward = torch.compile(model.train(), backend=setup.compiler) if compiled else model.train()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            outputs = forward(flow)
        loss = classification_loss(outputs, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = 1e-3 * milliseconds(step, device, setup.repeats)
    return {
        "samples_per_s": batch / seconds,
        "flops_utilisation": flops / seconds / peak_rate(device)[0],
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None,
        "kernel_launches": kernel_launches(step) if on_gpu else None,
    }


# ------------------------------------------------------------------------------------------------ whole folds


@cache
def inputs(setup: Setup) -> tempfile.TemporaryDirectory:
    """A folder with a pack of random clips and its sheet, for this process."""
    from train import make_inputs  # needs pandas; single steps don't

    folder = tempfile.TemporaryDirectory(prefix="merba-bench-")
    make_inputs(Path(folder.name), clips=setup.clips, subjects=min(SUBJECTS, setup.clips // 2), size=setup.size)
    return folder


def train_one(folder: Path, setup: Setup, number: int, epochs: int) -> dict:
    """The record of a fold that the workflow's own code loads, trains and writes: every epoch, without a validation part."""
    import pandas as pd
    from train import experiment

    from merba.training.fold import run_fold
    from merba.training.loading import load_fold

    config = {"seed": 1, "threads": 4, "device": setup.device, "deterministic": False, "keep_weights": False}
    settings = experiment(setup.fold_model, epochs)
    fold = load_fold(
        config,
        settings,
        dataset="bench",
        subject_id=f"s{number}",
        sheet=pd.read_parquet(folder / "samples.parquet"),
        packs=[(folder / "bench.npy", folder / "bench.parquet")],
    )
    written = folder / f"fold-{number}-{epochs}"
    run_fold(config, settings, fold, written, progress=folder / "progress", kept=folder / "kept", origin={})
    return json.loads((written / "run.json").read_text())


def train_whole(setup: Setup, number: int, epochs: int) -> dict:
    """As `train_one`, with this process's inputs."""
    return train_one(Path(inputs(setup).name), setup, number, epochs)


def train_small(device: str) -> dict:
    """Seconds of a training of MERba-nano with a single batch that is not full, so that nothing is compiled."""
    small = replace(DRY, device=device)
    record = train_whole(small, 0, 1)
    return {"seconds": next(iter(record["seeds"].values()))["training_seconds"]}


def time_fold(setup: Setup, number: int) -> dict:
    """Seconds of a whole fold in this process."""
    inputs(setup)
    begin = perf_counter()
    record = train_whole(setup, number, setup.epochs)
    (seed,) = record["seeds"].values()
    return {
        "seconds": perf_counter() - begin,
        "training_seconds": seed["training_seconds"],
        "epochs": seed["epochs"],
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if setup.device == "cuda" else None,
    }


def time_job(setup: Setup) -> dict:
    """The time of a fold in its own process besides its epochs, from one run with few and one with more epochs.

    Kernels and the model come from the caches that earlier folds have filled.
    """

    def seconds(epochs: int) -> float:
        command = [sys.executable, __file__, inputs(setup).name, str(epochs), *(["--dry"] if setup is DRY else [])]
        begin = perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return perf_counter() - begin

    few, many = setup.job_epochs
    short, long = seconds(few), seconds(many)
    epoch = (long - short) / (many - few)
    return {"epoch_seconds": epoch, "beside_training_seconds": short - few * epoch}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a fold, as a job of the workflow does.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    train_one(options.folder, DRY if options.dry else GPU, 0, options.epochs)
