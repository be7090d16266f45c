"""Training on packed flow with few packages: only those that a rented GPU machine has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from merba.config.validation import defaults
from merba.models import create_model
from merba.training import fold
from merba.training.loading import load_fold

ABSENT = {"jsonschema", "fastjsonschema", "yaml", "psutil", "cv2", "dlib", "matplotlib", "skimage", "openpyxl", "snakemake"}


def one_epoch() -> dict:
    return defaults("training") | {"epochs": 1, "batch_size": 8, "warmup": 0, "cooldown": 0}


def train(folder: Path, training: dict) -> None:
    """One fold of four subjects, with a validation part and its weights kept, into `folder`."""
    clips = pd.DataFrame({"dataset": "d", "subject": [f"s{i % 4}" for i in range(16)], "clip": [f"c{i}" for i in range(16)]})
    labels = clips.assign(label=["happy" if i // 4 % 2 else "sad" for i in range(16)], split="all")
    index = clips.assign(points=[np.full(10, np.nan, np.float32)] * 16, row=range(16), problem=None)
    index.attrs = {"channels": ["u", "v"], "unit": "px"}
    index.to_parquet(folder / "d.parquet")
    np.save(folder / "d.npy", np.random.default_rng(0).normal(size=(16, 2, 28, 28)).astype(np.float16))
    stages = {"faces": {}, "apex": {}, "flow": {}}
    config = {"seed": 1, "threads": 1, "device": "cpu", "deterministic": False, "keep_weights": True, "data": "own", **stages}
    experiment = {
        "datasets": ["d"],
        "protocol": "loso",
        "stopping": "validation",
        "control": "none",
        "seeds": [0],
        "model": {"name": "merba_nano"},
        "training": training,
    }
    packs = [(folder / "d.npy", folder / "d.parquet")]
    loaded = load_fold(config, experiment, dataset="d", subject_id="s0", sheet=labels, packs=packs)
    fold.run_fold(config, experiment, loaded, folder / "fold", progress=folder / "progress", kept=folder / "kept", origin={})


def test_a_fold_is_trained_without_packages_that_only_configurations_and_clips_need(tmp_path):
    program = f"""
import sys
from pathlib import Path
sys.modules.update(dict.fromkeys({ABSENT}))
import test_bare_machine
test_bare_machine.train(Path({str(tmp_path)!r}), {one_epoch()})
"""
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (here.parent, here.parents[2])))}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    record = json.loads((tmp_path / "fold" / "run.json").read_text())
    assert record["clips"] == {"train": 8, "validation": 4, "test": 4}
    assert (tmp_path / "fold" / "model.safetensors").exists()


def test_a_fold_draws_weights_once(tmp_path, monkeypatch):
    models = []

    def kept(*arguments, **settings):
        models.append(create_model(*arguments, **settings))
        return models[-1]

    monkeypatch.setattr(fold, "create_model", kept)
    train(tmp_path, one_epoch())
    assert [next(model.parameters()).device.type for model in models].count("cpu") == 1
