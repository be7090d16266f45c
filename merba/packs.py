"""Packs: the flow of a whole dataset in one memory-mapped array with an index.

Folds depend on a handful of packs instead of on every subject's file, which keeps planning fast.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from merba.errors import MerbaError
from merba.files import atomic

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FlowFormat:
    """What a flow array holds: its channels, and their unit, `px` (of the aligned face) or `image` (0..255)."""

    channels: tuple[str, ...]
    unit: str

    def mirror(self) -> tuple[np.ndarray, np.ndarray]:
        """Factors and offsets, float32 (channels, 1, 1), for values after a horizontal mirror.

        Mirroring an image turns u into −u; scaled to 0..255, into 255 − u. Other channels keep their values.
        """
        is_u = np.array([name == "u" for name in self.channels])[:, None, None]
        top = 255 if self.unit == "image" else 0
        return np.where(is_u, -1, 1).astype(np.float32), np.where(is_u, top, 0).astype(np.float32)


def save_subject(path: Path, flow: np.ndarray, clips: pd.DataFrame, form: FlowFormat) -> None:
    """Write a subject's flow, float16 (n, C, H, W), with its clips (columns dataset, subject, clip, problem)."""
    with atomic(path) as draft:
        np.savez(
            draft,
            flow=flow.astype(np.float16, copy=False),
            channels=list(form.channels),
            unit=form.unit,
            **{column: clips[column].fillna("").to_numpy(str) for column in ("dataset", "subject", "clip", "problem")},
        )


def pack(subjects: Sequence[Path], array: Path, index: Path) -> pd.DataFrame:
    """Join the files of `save_subject` into the float16 array file `array` (n, channels, H, W) and its `index`.

    The index has columns dataset, subject, clip, row, problem; a clip with a problem has row −1 and no flow. The
    format stands in its `attrs`. One subject is in memory at a time. Returns the index; raises MerbaError where
    the files' shapes or formats differ.
    """
    parts, shapes, formats = [], {}, {}
    for path in subjects:
        with np.load(path) as file:
            part = pd.DataFrame({column: file[column] for column in ("dataset", "subject", "clip", "problem")})
            shapes[file["flow"].shape[1:]] = path
            formats[FlowFormat(tuple(map(str, file["channels"])), str(file["unit"]))] = path
        parts.append(part)
    if len(shapes) > 1 or len(formats) > 1:
        found = "; ".join(f"{path.name}: {what}" for what, path in [*shapes.items(), *formats.items()])
        raise MerbaError(f"flow files of one dataset differ ({found}); delete results/flow and run again")
    table = pd.concat(parts, ignore_index=True)
    usable = (table["problem"] == "").to_numpy()
    table["row"] = np.where(usable, np.cumsum(usable) - 1, -1)
    table["problem"] = table["problem"].where(~usable, None)
    (form,) = formats
    table.attrs = {"channels": list(form.channels), "unit": form.unit}
    with atomic(array) as draft:
        out = np.lib.format.open_memmap(draft, "w+", np.float16, (int(usable.sum()), *next(iter(shapes))))
        start = 0
        for path in subjects:
            with np.load(path) as file:
                flow = file["flow"][file["problem"] == ""]
            out[start : start + len(flow)] = flow
            start += len(flow)
        out.flush()
    with atomic(index) as draft:
        table.to_parquet(draft, index=False)
    return table


def load_packs(pairs: Sequence[tuple[Path, Path]]) -> tuple[np.ndarray, pd.DataFrame, FlowFormat]:
    """The usable clips of several (array, index) pairs: flow float16 (n, channels, H, W), their index rows, the format.

    Raises MerbaError where the packs don't fit together.
    """
    arrays, tables, formats = [], [], {}
    for array, index in pairs:
        table = pd.read_parquet(index)
        formats[FlowFormat(tuple(table.attrs["channels"]), table.attrs["unit"])] = array
        arrays.append(np.load(array, mmap_mode="r"))
        tables.append(table[table["row"] >= 0].sort_values("row"))
    if len(formats) > 1 or len({array.shape[1:] for array in arrays}) > 1:
        found = "; ".join(f"{path.name}: {form}, {np.load(path, mmap_mode='r').shape}" for form, path in formats.items())
        raise MerbaError(f"the packs of one experiment differ ({found}); use datasets of one flow format")
    return np.concatenate(arrays), pd.concat(tables, ignore_index=True), next(iter(formats))


def check_problems(path: Path, *, drop: bool) -> None:
    """Stop with the whole list in `path` (dataset, subject, clip, problem) unless it is empty or `drop` is set."""
    problems = pd.read_csv(path, dtype=str)
    lines = [f"{row.dataset} {row.subject} {row.clip}: {row.problem}" for row in problems.itertuples()]
    if lines and not drop:
        raise MerbaError(
            f"{len(lines)} clips can't be used ({path}):\n  "
            + "\n  ".join(lines)
            + "\nMend them, or set `on_problem: drop` to go on without them"
        )
    for line in lines:
        log.warning("dropped: %s", line)
