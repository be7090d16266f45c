"""Make one checkpoint of an experiment for new faces (an ensemble of its folds, or one model of all clips), or an ONNX file."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from merba.errors import MerbaError

EXAMPLE = "merba export results/folds/merba --out model.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        help="an experiment's folder in results/folds (an ensemble needs `keep_weights: true`), or, for --onnx, a checkpoint",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--retrain", type=Path, metavar="CONFIG", help="train one model on all clips, with the run's configuration")
    kind.add_argument("--onnx", action="store_true", help="write a checkpoint's network for programs without PyTorch")
    parser.add_argument("--model-file", type=Path, metavar="PY", help="the Python file of a model of your own; this file is run")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")


def run(options: argparse.Namespace) -> int:
    from merba.config import load_config
    from merba.models import model_name
    from merba.training.checkpoint import load_checkpoint, save_checkpoint
    from merba.training.export import ensemble_of_folds, retrained
    from merba.training.onnx_file import write_onnx

    if options.out.is_dir():
        raise MerbaError(f"--out: {options.out} is a folder; name the file to write, such as {options.out / 'model.safetensors'}")
    logging.basicConfig(level=logging.INFO, format="merba: %(message)s")
    if options.onnx:
        checkpoint = load_checkpoint(options.source, options.model_file)
        write_onnx(options.out, checkpoint)
        print(f"{options.out}: {model_name(checkpoint.model)}, classes {', '.join(checkpoint.classes)}")
        return 0
    if options.retrain:
        made = retrained(load_config(options.retrain), options.source)
    else:
        made = ensemble_of_folds(options.source, options.model_file)
    save_checkpoint(options.out, made)
    what = "1 model" if options.retrain else f"{len(made.members)} members"
    print(f"{options.out}: {what} of {model_name(made.model)}, classes {', '.join(made.classes)}")
    if made.holds_clips:
        print("It contains the flow of its training clips: if these are licensed, don't pass it on.")
    return 0
