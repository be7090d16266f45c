"""Finding clips of two subjects that have the same frames, copied or linked, by their flow."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from merba.errors import MerbaError
from merba.files import read_parquet


def check_flow_differs(packs: Sequence[tuple[Path, Path]]) -> None:
    """Raise MerbaError that names the clips of different subjects with exactly the same flow, in packs (array, index).

    They would be both trained on and tested. Planning only notices links, and copies of whole clips
    (`merba.datasets.shared_frames`). Flow of zeros doesn't count: it only means that nothing moves.
    """
    seen, same = {}, []
    for array, index in packs:
        clips = read_parquet(index)
        clips = clips[clips["row"] >= 0].sort_values("row")
        for clip, digest in zip(clips.itertuples(), _digests(array, array.stat().st_mtime_ns), strict=True):
            first = seen.setdefault(digest, clip) if digest else clip
            if (first.dataset, first.subject) != (clip.dataset, clip.subject):
                same.append(" and ".join(f"{copy.dataset} {copy.subject} {copy.clip}" for copy in (first, clip)))
    if same:
        more = f"\n  … and {len(same) - 30} more" if len(same) > 30 else ""
        raise MerbaError(
            "clips of different subjects have exactly the same flow, so the same frames would be trained on and tested:\n  "
            + "\n  ".join(same[:30])
            + f"{more}\nIn each pair, the frames of one clip are a copy: correct its source or its subject, or remove it"
        )


@cache
def _digests(array: Path, time_ns: int) -> list[bytes | None]:
    """A hash of each clip's flow in an array file, None where nothing moves; computed again when its time changes."""
    return [hashlib.sha256(flow.tobytes()).digest() if flow.any() else None for flow in np.load(array, mmap_mode="r")]
