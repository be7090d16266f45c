"""Train one model on all clips of ready-made flow, to predict your own clips, and write its model card."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from merba.errors import MerbaError

EXAMPLE = "merba fit --config config/public_flow.yaml --experiment kernel --out models/public_flow.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="a configuration of flow images")
    parser.add_argument("--experiment", required=True, help="the name of one of its experiments")
    parser.add_argument("--root", metavar="FOLDER", help="the folder of the images (default: the configuration's, or a clone)")
    parser.add_argument(
        "--error",
        metavar="NAME|FILE",
        help="predictions of the experiment's folds (a file, or the name of a shipped one); the card gives their scores",
    )
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write; the card is OUT with the suffix .md")


def run(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from merba.config import load_config
    from merba.evaluation.comparison import named_predictions
    from merba.evaluation.scoring import scores_by_dataset
    from merba.files import atomic
    from merba.models import model_name
    from merba.training.card import model_card
    from merba.training.checkpoint import save_checkpoint
    from merba.training.everybody import train_on_images

    if options.out.suffix != ".safetensors":
        raise MerbaError(
            f"--out: {options.out} does not end in .safetensors; name the file to write, such as models/mine.safetensors"
        )
    logging.basicConfig(level=logging.INFO, format="merba: %(message)s")
    config = load_config(options.config)
    if options.root:
        for settings in config["datasets"].values():
            settings["root"] = options.root
    error = scores_by_dataset(named_predictions(options.error)) if options.error else None
    made = replace(train_on_images(config, options.experiment), error=error)
    save_checkpoint(options.out, made)
    with atomic(options.out.with_suffix(".md")) as draft:
        draft.write_text(model_card(made, options.out.stem))
    print(f"{options.out}: {model_name(made.model)}, trained on {made.trained_on}; {made.measured}")
    if made.holds_clips:
        print("It contains the flow of its training clips: if these are licensed, don't pass it on.")
    return 0
