"""CPU time of `merba predict` with the project's TV-L1 solver and with OpenCV's: a part of bench/preprocess.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from statistics import median

FRAMES = {"whole": 20, "spot": 472}
"""How many of the video's first frames are predicted as one clip, and how many are searched."""
SOLVERS = ("numba", "opencv")


def prediction_times(video: Path, repeats: int = 2) -> dict:
    """CPU seconds of the whole command, start-up included; the median of runs that alternate between the solvers.

    A first command fills the caches of compiled code.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {solver: _checkpoint(solver, folder / f"{solver}.safetensors") for solver in SOLVERS}
        times = {}
        for way, frames in FRAMES.items():
            clip = _cut(video, frames, folder / f"{way}.mp4")
            options = ["--spot"] if way == "spot" else []
            commands = {solver: ["predict", str(clip), "--checkpoint", str(model), *options] for solver, model in models.items()}
            if not times:
                _cpu_seconds(*commands["numba"])
            spent = {solver: [] for solver in SOLVERS}
            for _ in range(repeats):
                for solver, command in commands.items():
                    spent[solver].append(_cpu_seconds(*command))
            seconds = {f"{solver}_s": median(every) for solver, every in spent.items()}
            times[way] = {"frames": frames, "runs": repeats, **seconds, "times_opencv": seconds["opencv_s"] / seconds["numba_s"]}
        return times


def _checkpoint(solver: str, path: Path) -> Path:
    """An untrained MERba-nano for flow by that solver."""
    from merba.config import complete
    from merba.models import create_model
    from merba.preprocessing.packs import FlowFormat
    from merba.training.checkpoint import STAGES, Checkpoint, Member, save_checkpoint

    model = {"name": "merba_nano"}
    experiments = {"e": {"method": "MERba-nano", "model": model}}
    datasets = {"own": {"adapter": "clips", "root": str(path.parent)}}
    config = complete({"data": "own", "datasets": datasets, "experiments": experiments, "flow": {"solver": solver}})
    member = Member(create_model("merba_nano", 3).state_dict(), [0.0, 0.0], [1.0, 1.0])
    stages = {stage: config[stage] for stage in STAGES}
    classes = ["negative", "positive", "surprise"]
    save_checkpoint(path, Checkpoint([member], model, classes, FlowFormat(("u", "v"), "px"), "own", "loso", {"own": 1}, **stages))
    return path


def _cut(video: Path, frames: int, path: Path) -> Path:
    """The first frames of a video, as a video."""
    import cv2

    from merba.frames import open_clip

    clip = open_clip(video, "video")
    writer = None
    for _, image in islice(clip.frames(), frames):
        writer = writer or cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), clip.fps, image.shape[1::-1])
        writer.write(image)
    writer.release()
    return path


def _cpu_seconds(*arguments: str) -> float:
    before = os.times()
    run = subprocess.run(
        [sys.executable, "-c", "import sys; from merba.cli import main; sys.exit(main())", *arguments],
        capture_output=True,
        text=True,
    )
    after = os.times()
    if run.returncode:
        sys.exit(f"merba {' '.join(arguments)}: {run.stderr}")
    return after.children_user + after.children_system - before.children_user - before.children_system
