"""The command `merba`."""

from __future__ import annotations

import argparse
import json
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
<<<<<<< HEAD
    _add_score(commands)
    _add_train(commands)
    _add_unlock(commands)
=======
    _add_samples(commands)
>>>>>>> front
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


<<<<<<< HEAD
def _add_score(commands) -> None:
    parser = commands.add_parser(
        "score",
        help="UF1, UAR and accuracy of a file of predictions, anybody's, as MEGC2019 counts them",
        epilog="example: merba score predictions.csv (columns subject, true, predicted; optional dataset, clip, selection, seed)",
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


def _add_unlock(commands) -> None:
    parser = commands.add_parser(
        "unlock",
        help="take away the lock of a killed Snakemake, after checking that none works in the folder",
        epilog="example: merba unlock && snakemake --cores 8 --rerun-incomplete",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="the run's working folder (default: here)")
    parser.set_defaults(run=_unlock)


def _unlock(options: argparse.Namespace) -> int:
    from merba.unlock import unlock

    print("stale lock removed" if unlock(options.folder) else "no lock")
    return 0
=======
def _add_samples(commands) -> None:
    parser = commands.add_parser(
        "samples",
        help="print what the sample sheet holds, beside the paper's Tables II and III",
        epilog="example: merba samples --config config/3db.yaml --check-apex",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the workflow's configuration")
    parser.add_argument(
        "--check-apex", action="store_true", help="detect every annotated apex and say how far off it is (reads the clips)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    parser.set_defaults(run=_samples)


def _samples(options: argparse.Namespace) -> int:
    from merba.apex_check import apex_differences, difference_summary, histogram
    from merba.config import load_config
    from merba.counts import paper_tables, sheet_summary, side_by_side
    from merba.sheet import plan_sheet

    config = load_config(options.config)
    sheet = plan_sheet(config)
    summary, tables = sheet_summary(sheet), paper_tables(sheet, config)
    apexes = apex_differences(sheet, config) if options.check_apex else None
    if options.json:
        document = {"data": config["data"], "datasets": _records(summary)}
        document["tables"] = {title: _records(table) for title, table in tables.items()}
        if apexes is not None:
            document["apexes"] = {"summary": _records(difference_summary(apexes)), "clips": _records(apexes)}
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    print(f"{options.config}: {len(sheet)} clips, data: {config['data']}\n")
    print(summary.to_string(index=False))
    for title, table in tables.items():
        print(f"\n{title}; after ≠ stands the paper's number:\n\n{side_by_side(table)}")
    if apexes is not None:
        print("\nDetected less annotated apex, frames:\n")
        print(difference_summary(apexes).round(2).to_string(index=False))
        print(f"\n{histogram(apexes['difference'])}")
    return 0


def _records(table) -> list[dict]:
    """Rows of a table as JSON has them: null for what is missing."""
    return json.loads(table.to_json(orient="records"))
>>>>>>> front
