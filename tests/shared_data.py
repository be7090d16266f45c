"""Where the real data for tests is; none of it is in the repository."""

import os
from pathlib import Path

import pytest

FALLBACK = Path(__file__).parents[2] / "shared" / "data"


def shared_data(part: str) -> Path:
    """The folder or file `part` of the shared real data, or a skip that says what is missing."""
    root = Path(os.environ.get("MERBA_TEST_DATA", FALLBACK))
    path = root / part
    if not path.exists():
        pytest.skip(f"real data {part} is not in {root.name}/ (set MERBA_TEST_DATA to the folder that has it)")
    return path
