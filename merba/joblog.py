"""The log of one job: its first line says what is done, its last line the outcome; failures also reach the terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from merba.errors import MerbaError

log = logging.getLogger(__name__)


@contextmanager
def job_log(path: str | Path, task: str) -> Iterator[None]:
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
    except BaseException:
        log.exception("failed: %s", task)
        raise
    log.info("done: %s, %.1f s", task, time.perf_counter() - started)
