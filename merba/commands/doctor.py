"""Say what this installation can do, and how to mend what it can't."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

EXAMPLE = "merba doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    from merba.doctor import examine

    findings = examine()
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            state = "ok" if finding.works else "MISSING" if finding.needed else "no"
            print(f"{state:8}{finding.part:20}{finding.detail}")
    return int(any(finding.needed and not finding.works for finding in findings))
