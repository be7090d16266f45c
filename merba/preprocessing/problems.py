"""Problems of single clips: a stage records them and continues."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from merba.errors import ClipProblem
from merba.sheet import KEY

log = logging.getLogger(__name__)


def name_of(row: Any) -> str:
    """A clip's dataset, subject and name."""
    return " ".join(getattr(row, key) for key in KEY)


def say_problem(row: Any, problem: str) -> None:
    """Write a clip's problem to this module's log, which a command that names the problem itself silences."""
    log.warning("%s: %s", name_of(row), problem)


@contextmanager
def recorded(record: dict[str, Any], row: Any) -> Iterator[None]:
    """If the block raises a ClipProblem, write its message to the `record`'s `problem` and to the log, and continue."""
    try:
        yield
    except ClipProblem as problem:
        record["problem"] = str(problem)
        say_problem(row, str(problem))
