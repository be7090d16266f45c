"""The command `merba`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import merba
from merba.errors import MerbaError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 on success, 1 where something is wrong that the message names, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="merba", description="Micro-expression recognition with MERba.")
    parser.add_argument("--version", action="version", version=f"merba {merba.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_doctor(commands)
    _add_model(commands)
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
