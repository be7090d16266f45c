"""Stop before training if clips can't be used."""

from __future__ import annotations

from pathlib import Path

from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.packs import check_packed
from merba.preprocessing.same_flow import check_flow_differs


def run(array: str, index: str, on_problem: str, output: str, *, log: str) -> None:
    """Check the clips in a pack's `index`; fail with all their problems, or list them in `output` if `on_problem` is drop.

    Also fails if two subjects have the same flow in the pack's `array`.
    """
    with job_log(log, f"gate before training on {Path(index).stem}"):
        dropped = check_packed([Path(index)], drop=on_problem == "drop")
        check_flow_differs([(Path(array), Path(index))])
        with atomic(Path(output)) as draft:
            draft.write_text("".join(f"{line}\n" for line in dropped))
