"""Say what this installation can do, and how to mend what it can't."""

from __future__ import annotations

import argparse

EXAMPLE = "merba doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_: argparse.Namespace) -> int:
    from merba.doctor import examine

    findings = examine()
    for finding in findings:
        state = "ok" if finding.works else "MISSING" if finding.needed else "no"
        print(f"{state:8}{finding.part:20}{finding.detail}")
    return int(any(finding.needed and not finding.works for finding in findings))
