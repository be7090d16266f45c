"""Problems of single clips, which a stage records and goes on."""

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


@contextmanager
def recorded(record: dict[str, Any], row: Any) -> Iterator[None]:
    """Write the message of a ClipProblem that the block raises to the `record`'s `problem`, and to the log."""
    try:
        yield
    except ClipProblem as problem:
        record["problem"] = str(problem)
        log.warning("%s: %s", name_of(row), problem)
