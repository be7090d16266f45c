"""Finding clips of two subjects that have the same frames, copied or linked, by their flow."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from merba.errors import MerbaError
from merba.files import read_parquet


def check_flow_differs(packs: Sequence[tuple[Path, Path]]) -> None:
    """Raise MerbaError that names the clips of different subjects with exactly the same flow, in packs (array, index).

    They would be both trained on and tested. Planning only notices frames that are the same file
    (`merba.sheet.check_subjects_apart`). Flow of zeros doesn't count: it only means that nothing moves.
    """
    seen, same = {}, []
    for array, index in packs:
        clips = read_parquet(index)
        clips = clips[clips["row"] >= 0].sort_values("row")
        for clip, flow in zip(clips.itertuples(), np.load(array, mmap_mode="r"), strict=True):
            if flow.any():
                first = seen.setdefault(hashlib.sha256(flow.tobytes()).digest(), clip)
                if (first.dataset, first.subject) != (clip.dataset, clip.subject):
                    same.append(" and ".join(f"{one.dataset} {one.subject} {one.clip}" for one in (first, clip)))
    if same:
        more = f"\n  … and {len(same) - 30} more" if len(same) > 30 else ""
        raise MerbaError(
            "clips of different subjects have exactly the same flow, so the same frames would be trained on and tested:\n  "
            + "\n  ".join(same[:30])
            + f"{more}\nIn each pair, the frames of one clip are a copy: correct its source or its subject, or remove it"
        )
