"""The log of one job: its first line names the task, its last line the outcome; warnings and failures also go to the terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from merba.errors import MerbaError

log = logging.getLogger(__name__)

PERIOD = 10.0
"""Seconds between two lines about the progress of a job."""
Item = TypeVar("Item")


@contextmanager
def job_log(path: str | Path, task: str) -> Generator[None]:
    """Log what happens in the block to the file `path`.

    A MerbaError ends the process with status 1 and its message, without a traceback; any other error keeps its own.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file, terminal = logging.FileHandler(path, "w"), logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[file, terminal], force=True)
    logging.captureWarnings(True)
    started = time.perf_counter()
    log.info("start: %s", task)
    try:
        yield
    except MerbaError as error:
        log.error("failed: %s: %s", task, error)
        sys.exit(1)
    except BaseException as error:
        log.exception("unexpected error")
        log.error("failed: %s: %s: %s", task, type(error).__name__, error)
        raise
    log.info("done: %s, %.1f s", task, time.perf_counter() - started)


def failures(logs: Path, since: float) -> list[str]:
    """The log's path and the error, for each job log in a folder that was written after a time (s) and ends in a failure."""
    failed = []
    for path in sorted(path for path in logs.rglob("*") if path.is_file() and path.stat().st_mtime >= since):
        _, failure, message = path.read_text(errors="replace").rpartition(" ERROR failed: ")
        if failure:
            failed.append(f"{path}: {message.strip()}")
    return failed


def counted(items: Iterable[Item], total: int, unit: str) -> Iterator[Item]:
    """Yield the items, and log every PERIOD seconds how many are done, the rate and the time left.

    A total of 0 means that it isn't known.
    """
    started = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - said >= PERIOD:
            rate, said = done / (now - started), now
            left = f", about {max(total - done, 0) / rate:.0f} s left" if total else ""
            log.info("%s %s, %.2g a second%s", f"{done} of {total}" if total else done, unit, rate, left)
        yield item
