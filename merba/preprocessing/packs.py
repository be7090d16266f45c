"""Packs: the flow of a whole dataset in one memory-mapped array with an index.

Folds depend on a handful of packs instead of on every subject's file, which keeps planning fast.
"""

from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from merba.errors import MerbaError
from merba.files import atomic, read_parquet
from merba.sheet import KEY

log = logging.getLogger(__name__)

MEASURED = ("points", "head_motion", "problem")
"""What is stored for each clip besides its flow, as in `ClipFlow`."""


@dataclass(frozen=True)
class FlowFormat:
    """What a flow array holds: its channels, and their unit.

    The unit is `px` (of the aligned face), `image` (0..255), or, in a model's input, `size`: the size of the clip's own motion
    (see `decode: signed`).
    """

    channels: tuple[str, ...]
    unit: str

    def mirror(self) -> tuple[np.ndarray, np.ndarray]:
        """Factors and offsets, float32 (channels, 1, 1), for values after a horizontal mirror.

        Mirroring an image turns u into −u; scaled to 0..255, into 255 − u. Other channels keep their values.
        """
        is_u = np.array([name == "u" for name in self.channels])[:, None, None]
        top = 255 if self.unit == "image" else 0
        return np.where(is_u, -1, 1).astype(np.float32), np.where(is_u, top, 0).astype(np.float32)


@dataclass(frozen=True)
class ImageForm:
    """How flow images, of channels u, v and strain, are made from flow in px of the aligned face (see `flow_images`).

    The face is cut out so that its eye centres, nose tip and mouth corners, image left first, come closest to `template`, in
    parts of the image's side, and is resized to `size` px: with `resizing` "area" each pixel is the mean of what it covers.
    With `scaling` "min-max" each channel of each clip fills 0..255, so that the size and the zero of the motion are lost.
    """

    template: tuple[tuple[float, float], ...]
    size: int
    resizing: str = "area"
    scaling: str = "min-max"


RELEASED = ImageForm(((0.246, 0.312), (0.754, 0.311), (0.502, 0.534), (0.296, 0.737), (0.708, 0.733)), size=28)
"""The public images of the MEGC2019 composite. dlib found the points in HTNet's apex faces, which have the same crop."""


class ClipFlow(NamedTuple):
    """One clip's flow, float16 (C, H, W), zeros if it has a problem.

    `points`: the landmarks that the face was aligned by (5, 2), px of the aligned face (see `alignment.five_points`).
    `head_motion`: how far the head moved from onset to apex, in px of the aligned face, before any of that is removed (see
    `merba.preprocessing.head_motion`). Both are NaN for ready-made flow and with a problem.
    """

    flow: np.ndarray
    points: np.ndarray
    head_motion: float
    problem: str | None


def save_subject(path: Path, rows: pd.DataFrame, flows: Iterable[ClipFlow], shape: Sequence[int], form: FlowFormat) -> None:
    """Write the flow of one subject's `rows`, clip by clip: an .npz file of `flow`, float16 (n, *shape), and its columns.

    The columns are dataset, subject, clip, points (10 values: x0, y0, x1, …, px), head_motion (px) and problem (empty if there
    is none); `channels` and `unit` are stored with them.
    """
    values = []
    with atomic(path) as draft, zipfile.ZipFile(draft, "w") as archive:
        with archive.open("flow.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f2", "fortran_order": False, "shape": (len(rows), *shape)}
            np.lib.format.write_array_header_1_0(member, header)
            for clip in flows:
                member.write(clip.flow.astype("<f2").tobytes())
                values.append((np.float32(clip.points).ravel(), clip.head_motion, clip.problem or ""))
        columns = {key: rows[key].to_numpy(str) for key in KEY} | dict(zip(MEASURED, zip(*values, strict=True), strict=True))
        for name, values in (columns | {"channels": form.channels, "unit": form.unit}).items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.array(values))


def flows_of(path: Path) -> Iterator[np.ndarray]:
    """The flow, float16 (C, H, W), of each clip in a file of `save_subject`; only one is in memory at a time."""
    with zipfile.ZipFile(path) as archive, archive.open("flow.npy") as member:
        np.lib.format.read_magic(member)
        (n, *shape), _, dtype = np.lib.format.read_array_header_1_0(member)
        for _ in range(n):
            yield np.frombuffer(member.read(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)


def pack(subjects: Sequence[Path], array: Path, index: Path) -> pd.DataFrame:
    """Join the files of `save_subject` into the float16 array file `array` (n, channels, H, W) and its `index`.

    The index has columns dataset, subject, clip, points, head_motion, problem, row; a clip with a problem has row −1 and no
    flow. The format is in its `attrs`. Returns the index; raises MerbaError if the files' shapes or formats differ.
    """
    parts, shapes, formats = [], {}, {}
    for path in subjects:
        with np.load(path) as file:
            parts.append(pd.DataFrame({column: list(file[column]) for column in (*KEY, *MEASURED)}))
            formats[FlowFormat(tuple(map(str, file["channels"])), str(file["unit"]))] = path
        shapes[next(flows_of(path)).shape] = path
    if len(shapes) > 1 or len(formats) > 1:
        listed = "; ".join(f"{path.name}: {what}" for what, path in [*shapes.items(), *formats.items()])
        raise MerbaError(f"files of one dataset differ ({listed}); delete {subjects[0].parent} and run again")
    table = pd.concat(parts, ignore_index=True)
    usable = (table["problem"] == "").to_numpy()
    table["row"] = np.where(usable, np.cumsum(usable) - 1, -1)
    table["problem"] = table["problem"].where(~usable, None)
    (form,), (shape,) = formats, shapes
    table.attrs = {"channels": list(form.channels), "unit": form.unit}
    # Written, not mapped: on a full disk, a mapped array ends the process without a message.
    with atomic(array) as draft, draft.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (int(usable.sum()), *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for wanted, flow in zip(usable, chain.from_iterable(map(flows_of, subjects)), strict=True):
            if wanted:
                file.write(flow.tobytes())
    with atomic(index) as draft:
        table.to_parquet(draft, index=False)
    return table


def load_packs(pairs: Sequence[tuple[Path, Path]]) -> tuple[np.ndarray, pd.DataFrame, FlowFormat]:
    """The usable clips of several (array, index) pairs: flow float16 (n, channels, H, W), their index rows, the format.

    Raises MerbaError if the packs don't fit together.
    """
    arrays, tables, formats = [], [], {}
    for array, index in pairs:
        table = read_parquet(index)
        formats[FlowFormat(tuple(table.attrs["channels"]), table.attrs["unit"])] = array
        arrays.append(np.load(array, mmap_mode="r"))
        tables.append(table[table["row"] >= 0].sort_values("row"))
        if tables[-1]["row"].tolist() != list(range(len(arrays[-1]))):
            raise MerbaError(
                f"{array} holds the flow of {len(arrays[-1])} clips, its index {index} names {len(tables[-1])}: they come from "
                "different runs; delete both and run the preprocessing again, or copy both here"
            )
    if len(formats) > 1 or len({array.shape[1:] for array in arrays}) > 1:
        listed = "; ".join(f"{path.name}: {form}, {np.load(path, mmap_mode='r').shape}" for form, path in formats.items())
        raise MerbaError(f"the packs of one experiment differ ({listed}); use datasets with the same kind of flow")
    flow = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]  # a single one stays on disk until it is read
    return flow, pd.concat(tables, ignore_index=True), next(iter(formats))


def preprocessing_summary(clips: pd.DataFrame) -> pd.DataFrame:
    """One row per dataset: subjects, clips, problems, warnings, and median, 95th percentile and largest head motion (px).

    `clips` are the indexes of `pack`, joined, and the `warning` of each (see `merba.preprocessing.head_warning`).
    """
    by_dataset = clips.groupby("dataset")
    counts = by_dataset.agg(
        subjects=("subject", "nunique"), clips=("clip", "size"), problems=("problem", "count"), warnings=("warning", "count")
    )
    motion = by_dataset["head_motion"]
    spread = {"median": motion.median(), "p95": motion.quantile(0.95), "largest": motion.max()}
    return counts.assign(**{f"head_motion_{name}": values.round(2) for name, values in spread.items()}).reset_index()


def check_packed(indexes: Sequence[Path], *, drop: bool) -> list[str]:
    """The problems of the clips in these packs, one line each. If there are any, raises MerbaError unless `drop` is set."""
    clips = pd.concat([read_parquet(path) for path in indexes], ignore_index=True)
    problems = clips[clips["problem"].notna()]
    lines = [f"{row.dataset} {row.subject} {row.clip}: {row.problem}" for row in problems.itertuples()]
    if lines and not drop:
        raise MerbaError(
            f"{len(lines)} clips can't be used ({', '.join(map(str, indexes))}):\n  "
            + "\n  ".join(lines)
            + "\nFix them, or set `on_problem: drop` to continue without them"
        )
    for line in lines:
        log.warning("dropped: %s", line)
    return lines
