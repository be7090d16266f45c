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
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except MerbaError as error:
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
