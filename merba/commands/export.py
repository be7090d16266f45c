"""Make one checkpoint for new faces of an experiment: an ensemble of its folds, or one model trained on all clips."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from merba.errors import MerbaError

EXAMPLE = "merba export results/folds/merba --out model.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folds", type=Path, help="an experiment's folder in results/folds; for an ensemble trained with `keep_weights: true`"
    )
    parser.add_argument(
        "--retrain", type=Path, metavar="CONFIG", help="train one model on all clips, by the configuration of the run"
    )
    parser.add_argument(
        "--model-file", type=Path, metavar="PY", help="the Python file of a model that isn't the package's; it is run"
    )
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write")


def run(options: argparse.Namespace) -> int:
    from merba.config import load_config
    from merba.models import model_name
    from merba.training.checkpoint import save_checkpoint
    from merba.training.export import ensemble_of_folds, retrained

    if options.out.is_dir():
        raise MerbaError(f"--out: {options.out} is a folder; name the file to write, such as {options.out / 'model.safetensors'}")
    logging.basicConfig(level=logging.INFO, format="merba: %(message)s")
    if options.retrain:
        made = retrained(load_config(options.retrain), options.folds)
    else:
        made = ensemble_of_folds(options.folds, options.model_file)
    save_checkpoint(options.out, made)
    what = "1 model" if options.retrain else f"{len(made.members)} members"
    print(f"{options.out}: {what} of {model_name(made.model)}, classes {', '.join(made.classes)}")
    if made.holds_clips:
        print("It holds the flow of its training clips: where these are licensed, don't pass it on.")
    return 0
