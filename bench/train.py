"""A fold's training as the workflow does it, start-up included, compared with a straightforward loop.

    python bench/train.py

Both train the same model on the same 442 clips of random flow, on one CPU thread: ours by `merba.training.fold.run_fold`, the
other by a PyTorch DataLoader over the same arrays with plain AdamW or Adam, flips clip by clip, the reference scan, and
STSTNet's streams one after the other. Each runs in its own process, once with few and once with more epochs: the
difference gives the time of an epoch. Start-up is the time from the process's start to the model's first call (imports,
reading, building), with compiled kernels in the cache. They take turns, so that other work on the machine slows both
alike. Writes bench/results/train.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import time

import numpy as np
import pandas as pd
from machine import machine, write

CLIPS, SUBJECTS = 442, 68
FIRST_CALL = "first_call"
GOALS = {"merba_nano": 5.0, "ststnet": 1.5, "start_up_seconds": 5.0}
# Model → epochs of the short and of the long run (ours, the other's), and epochs of a whole fold.
RUNS = {"merba_nano": ((1, 3), (1, 2), 70), "ststnet": ((5, 45), (5, 45), 800)}


def make_inputs(folder: Path, clips: int = CLIPS, subjects: int = SUBJECTS, size: int = 28) -> None:
    """A pack of random clips, and its sheet."""
    random = np.random.default_rng(0)
    np.save(folder / "bench.npy", random.normal(0, 1, (clips, 3, size, size)).astype(np.float16))
    index = pd.DataFrame(
        {
            "dataset": "bench",
            "subject": [f"s{number % subjects}" for number in range(clips)],
            "clip": [f"c{number}" for number in range(clips)],
            "points": [np.full(10, np.nan, np.float32)] * clips,
            "row": np.arange(clips),
            "problem": None,
        }
    )
    index.attrs = {"channels": ["u", "v", "strain"], "unit": "px"}
    index.to_parquet(folder / "bench.parquet")
    labels = np.array(["negative", "positive", "surprise"])[random.integers(0, 3, clips)]
    index[["dataset", "subject", "clip"]].assign(label=labels, split="all").to_parquet(folder / "samples.parquet")


def experiment(model: str, epochs: int) -> dict:
    """Settings of a fold of `model`; every epoch is trained."""
    from dataclasses import asdict

    from merba.training.settings import TrainingSettings

    kind = {} if model == "ststnet" else {"in_channels": 2}
    adam = {"optimizer": "adam", "rate": 5e-5, "schedule": "constant", "batch_size": 256, "flip": False, "shuffle": False}
    settings = {"epochs": epochs, **(adam if model == "ststnet" else {})}
    return {
        "datasets": ["bench"],
        "protocol": "loso",
        "stopping": "none",
        "folds": "all",
        "control": "none",
        "seeds": [0],
        "model": {"name": model, **kind},
        "training": asdict(TrainingSettings.of(settings)),
    }


def ours(folder: Path, model: str, epochs: int) -> None:
    """One fold as the workflow's job trains it."""
    from merba.training.fold import run_fold
    from merba.training.loading import load_fold

    config = {"seed": 1, "threads": 1, "device": "cpu", "deterministic": False, "keep_weights": False}
    settings = experiment(model, epochs)
    fold = load_fold(
        config,
        settings,
        dataset="bench",
        subject_id="s0",
        sheet=pd.read_parquet(folder / "samples.parquet"),
        packs=[(folder / "bench.npy", folder / "bench.parquet")],
    )
    run_fold(config, settings, fold, folder / f"{model}-{epochs}", progress=folder / "progress", kept=folder / "kept", origin={})


def straightforward(folder: Path, model: str, epochs: int) -> None:
    """The same fold as a plain script would train it."""
    import os

    import torch
    import torch.nn.functional as F
    from model import ThreeStreams

    from merba import create_model
    from merba.scan import BACKEND_VARIABLE

    torch.set_num_threads(1)
    os.environ[BACKEND_VARIABLE] = "reference"
    settings = experiment(model, epochs)["training"]
    sheet = pd.read_parquet(folder / "samples.parquet")
    flow, codes = np.load(folder / "bench.npy"), sheet["label"].astype("category").cat.codes.to_numpy(np.int64)

    class Clips(torch.utils.data.Dataset):
        def __init__(self, rows):
            self.rows = rows

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, index):
            row = self.rows[index]
            x = torch.from_numpy(flow[row].astype(np.float32))
            if model == "merba_nano":
                x = F.interpolate(x[None, :2], (56, 56), mode="bilinear")[0]
                if torch.rand(()) < 0.5:
                    x = x.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
            return x, codes[row]

    test = (sheet["subject"] == "s0").to_numpy()
    load = torch.utils.data.DataLoader
    train = load(Clips(np.flatnonzero(~test)), settings["batch_size"], shuffle=settings["shuffle"])
    held_out = load(Clips(np.flatnonzero(test)), 256)
    net = create_model("merba_nano", 3) if model == "merba_nano" else ThreeStreams()
    kind = torch.optim.Adam if settings["optimizer"] == "adam" else torch.optim.AdamW
    optimizer = kind(net.parameters(), settings["rate"])
    for _ in range(epochs):
        net.train()
        for inputs, labels in train:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        net.eval()
        with torch.no_grad():
            for inputs, labels in held_out:
                (net(inputs).argmax(1) == labels).float().mean().item()


def note_first_call(file: Path) -> None:
    """Write to `file` the time when a PyTorch module is first called in this process."""
    from torch.nn.modules.module import register_module_forward_pre_hook

    def note(module, inputs) -> None:
        file.write_text(str(time()))
        hook.remove()

    hook = register_module_forward_pre_hook(note)


def seconds(kind: str, folder: Path, model: str, epochs: int) -> tuple[float, float]:
    """Wall time of one training in its own process: in all, and until the model's first call."""
    start = time()
    subprocess.run([sys.executable, __file__, "--run", kind, str(folder), model, str(epochs)], check=True)
    return time() - start, float((folder / FIRST_CALL).read_text()) - start


def compare(folder: Path, model: str) -> dict:
    """Seconds of start-up, of an epoch and of a whole fold, for both."""
    (mine, theirs, fold), figures = RUNS[model], {}
    seconds("ours", folder, model, mine[0])  # compiles the kernels if the cache is empty
    for kind, (few, many) in (("ours", mine), ("straightforward", theirs)):
        (short, first_call), (long, _) = seconds(kind, folder, model, few), seconds(kind, folder, model, many)
        epoch = (long - short) / (many - few)
        figures[kind] = {
            "start_up_seconds": round(first_call, 2),
            "epoch_seconds": round(epoch, 3),
            "samples_per_second": round((CLIPS - CLIPS // SUBJECTS) / epoch, 1),
            "fold_seconds": round(short + (fold - few) * epoch, 1),
        }
    figures["epochs"] = fold
    figures["times_as_fast"] = round(figures["straightforward"]["fold_seconds"] / figures["ours"]["fold_seconds"], 2)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        kind, folder, model, epochs = options.run
        note_first_call(Path(folder, FIRST_CALL))
        {"ours": ours, "straightforward": straightforward}[kind](Path(folder), model, int(epochs))
        return
    figures = {"machine": machine("numba"), "goals": GOALS, "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder))
        for model in options.models:
            figures["models"][model] = found = compare(Path(folder), model)
            print(f"{model}, a fold of {found['epochs']} epochs: {found['times_as_fast']} times as fast (goal {GOALS[model]})")
            print(json.dumps({kind: found[kind] for kind in ("ours", "straightforward")}, indent=2))
    print("written:", write("train.json", figures).name)


if __name__ == "__main__":
    main()
