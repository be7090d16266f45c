"""Add an experiment's finished folds to two files that you can commit: digests for `merba train --done`, and predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "merba collect --experiment merba --folds folds.csv --predictions merba.csv.gz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment", required=True, help="the name of an experiment")
    parser.add_argument("--folds", type=Path, required=True, metavar="CSV", help="the file to add the folds and their digests to")
    parser.add_argument(
        "--predictions", type=Path, required=True, metavar="CSV", help="the file to add the predictions to (.csv or .csv.gz)"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="the workflow's results (default: results)")


def run(options: argparse.Namespace) -> int:
    from merba.evaluation.collect import collect

    number = collect(options.experiment, options.results, folds=options.folds, predictions=options.predictions)
    print(f"{number} folds of {options.experiment} in {options.folds} and {options.predictions}")
    return 0
