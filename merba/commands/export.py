"""Make one checkpoint of all folds of a leave-one-subject-out run, an ensemble for new faces."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "merba export results/folds/merba --out model.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folds", type=Path, help="an experiment's folder in results/folds, trained with `keep_weights: true`")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write")


def run(options: argparse.Namespace) -> int:
    from merba.checkpoint import save_checkpoint
    from merba.export import ensemble_of_folds

    ensemble = ensemble_of_folds(options.folds)
    save_checkpoint(options.out, ensemble)
    print(f"{options.out}: {len(ensemble.members)} members of {ensemble.model['name']}, classes {', '.join(ensemble.classes)}")
    return 0
