"""Write the split of every fold of an experiment, for a training loop of your own; nothing is trained."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

EXAMPLE = "merba folds --config config/3db.yaml --experiment merba"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="a configuration, after `snakemake packed` with it")
    parser.add_argument("--experiment", help="the name of one of its experiments (default: all that a plain run trains)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="the workflow's results (default: results)")


def run(options: argparse.Namespace) -> int:
    from merba.config import load_config
    from merba.training.packed import write_splits

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for path in write_splits(load_config(options.config), options.results, options.experiment):
        print(path)
    return 0
