"""Train an experiment's folds in one process, without Snakemake; after an interruption, it continues."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from merba.errors import MerbaError

log = logging.getLogger(__name__)

EXAMPLE = "merba train --config config/3db.yaml --experiment merba --folds samm/006 samm/007"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="a configuration of the workflow")
    parser.add_argument("--experiment", required=True, help="the name of one of its experiments")
    parser.add_argument(
        "--folds", nargs="+", metavar="DATASET/SUBJECT", help="train only these folds (named as in results/folds)"
    )
    parser.add_argument("--done", type=Path, metavar="CSV", help="a file of `merba collect`; its folds are not trained again")
    parser.add_argument("--results", type=Path, default=Path("results"), help="the workflow's results (default: results)")


def run(options: argparse.Namespace) -> int:
    from merba.code import PACKAGE
    from merba.config import load_config
    from merba.config.last_run import configuration_name, others_results, sign
    from merba.evaluation.collect import finished_trainings
    from merba.training.experiments import train_experiment

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    only = [tuple(fold.split("/", 1)) for fold in options.folds or []]
    for fold in only:
        if len(fold) != 2:
            raise MerbaError(f"--folds: {fold[0]!r} is not DATASET/SUBJECT")
    bases = options.results.resolve().parent, Path.cwd(), PACKAGE.parent
    config, origin = load_config(options.config), configuration_name(options.config, *bases)
    if warning := others_results(options.results, origin):
        log.warning(warning)
    done = finished_trainings(options.done, options.experiment) if options.done else set()
    sign(options.results, origin)
    trained = train_experiment(config, options.experiment, options.results, origin=origin, only=only or None, done=done)
    print(f"{trained} folds trained; results in {options.results / 'folds' / options.experiment}")
    return 0
