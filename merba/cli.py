"""The command `merba`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import merba
from merba.errors import MerbaError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 on success, 1 where something is wrong that the message names, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="merba", description="Micro-expression recognition with MERba.")
    parser.add_argument("--version", action="version", version=f"merba {merba.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_doctor(commands)
    _add_model(commands)
    _add_score(commands)
    _add_train(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (MerbaError, ValueError) as error:
        print(f"merba: {error}", file=sys.stderr)
        return 1


def _add_doctor(commands) -> None:
    parser = commands.add_parser("doctor", help="say what this installation can do, and how to mend what it can't")
    parser.set_defaults(run=_doctor)


def _doctor(_: argparse.Namespace) -> int:
    from merba.doctor import examine

    findings = examine()
    for finding in findings:
        state = "ok" if finding.works else "MISSING" if finding.needed else "no"
        print(f"{state:8}{finding.part:20}{finding.detail}")
    return int(any(finding.needed and not finding.works for finding in findings))


def _add_model(commands) -> None:
    parser = commands.add_parser(
        "model",
        help="print a model's blocks, sizes, parameters and FLOPs (the paper's Table I)",
        epilog="example: merba model merba_base --classes 7",
    )
    parser.add_argument("name", help="a registered model, such as merba_base, merba_nano, mambavision_base, htnet, ststnet")
    parser.add_argument("--classes", type=int, default=7, help="number of classes (default 7)")
    parser.set_defaults(run=_model)


def _model(options: argparse.Namespace) -> int:
    import torch

    from merba.models import create_model
    from merba.models.summary import architecture

    with torch.device("meta"):  # shapes only: no memory, no time for random weights
        model = create_model(options.name, options.classes)
    table = architecture(model, model.input_shape)
    table["parameters"] = table["parameters"].map("{:,}".format)
    table["flops"] = (table["flops"] / 1e9).map("{:.3f} G".format)
    print(table.to_string(index=False, na_rep="–"))
    return 0


def _add_score(commands) -> None:
    parser = commands.add_parser(
        "score",
        help="UF1, UAR and accuracy of a file of predictions, anybody's, as MEGC2019 counts them",
        epilog="example: merba score predictions.csv    (columns subject, true, predicted; dataset, clip, selection, seed if you like)",
    )
    parser.add_argument("file", type=Path, help="CSV or Parquet, one row a clip")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_score)


def _score(options: argparse.Namespace) -> int:
    from merba.scoring import read_predictions, score_table

    table = score_table(read_predictions(options.file))
    if options.json:
        print(table.to_json(orient="records", indent=2))
    else:
        print(table.round(4).to_string(index=False))
    return 0


def _add_train(commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train an experiment's folds in one process, without Snakemake; go on where it was interrupted",
        epilog="example: merba train --config config/3db.yaml --experiment merba --folds samm/006 samm/007",
    )
    parser.add_argument("--config", type=Path, required=True, help="a configuration of the workflow")
    parser.add_argument("--experiment", required=True, help="a name under its `experiments`, or of config/experiments.yaml")
    parser.add_argument("--folds", nargs="+", metavar="DATASET/SUBJECT", help="only these (as the folders in results/folds)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="the workflow's results (default: results)")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    import logging

    from merba.config import load_config
    from merba.experiments import train_experiment

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    only = [tuple(fold.split("/", 1)) for fold in options.folds or []]
    for fold in only:
        if len(fold) != 2:
            raise MerbaError(f"--folds: {fold[0]!r} is not DATASET/SUBJECT")
    config = load_config(options.config)
    if options.experiment not in config["experiments"]:
        raise MerbaError(f"{options.config}: no experiment {options.experiment!r}; it has {', '.join(config['experiments'])}")
    trained = train_experiment(config, options.experiment, options.results, only=only or None)
    print(f"{trained} folds trained; results in {options.results / 'folds' / options.experiment}")
    return 0
