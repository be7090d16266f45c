"""What the demo will hold, known before anything is rendered: every clip's names, frames and class."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from merba.datasets.demo.layouts import LAYOUTS, ClipPlan
from merba.errors import MerbaError, unknown
from merba.sheet import sample_rows


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo, and how hard its clips are; `size` scales frames and face."""

    seed: int = 0
    datasets: tuple[str, ...] = ("smic_hs", "casme2", "samm")
    subjects: int = 3  # a dataset
    clips: int = 6  # a subject; their classes take turns
    dfme_subjects: int = 6  # of DFME: all but the last two are trained on
    dfme_clips: int = 7
    frames: int = 20  # a clip at least; some get up to four more
    size: float = 1.0
    movement: tuple[float, float] = (1.25, 1.75)  # smallest and largest peak displacement, px of the aligned face
    noise: float = 2.5  # standard deviation, grey levels
    head: float = 1.2  # largest speed of the head's drift, px of the aligned face a clip, in each direction
    mixed: float = 0.0  # share of the clips that also move as another class does

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> DemoSettings:
        """The settings of a configuration's `demo` section. Raises MerbaError for a value that can't be rendered."""
        pairs = {name: tuple(settings.get(name, getattr(cls, name))) for name in ("datasets", "movement")}
        made = cls(**{**settings, **pairs})
        for name in made.datasets:
            if name not in LAYOUTS:
                raise MerbaError(f"demo: datasets: {unknown(name, LAYOUTS)}")
        for name, least in [
            ("subjects", 1), ("clips", 1), ("dfme_subjects", 1), ("dfme_clips", 1), ("frames", 20), ("size", 0.1),
        ]:  # fmt: skip
            if getattr(made, name) < least:
                raise MerbaError(f"demo: {name}: {getattr(made, name)} is less than {least}")
        return made

    def counts(self, dataset: str) -> tuple[int, int]:
        """Subjects of a dataset, and clips of each of them."""
        return (self.dfme_subjects, self.dfme_clips) if dataset == "dfme" else (self.subjects, self.clips)


def generator(settings: DemoSettings, *names: str | int) -> np.random.Generator:
    """The random numbers of one purpose, independent of those of every other."""
    return np.random.default_rng([settings.seed, *(zlib.crc32(str(name).encode()) for name in names)])


def clip_plans(settings: DemoSettings, dataset: str) -> list[ClipPlan]:
    """The clips of one dataset, by subject and clip."""
    subjects, clips = settings.counts(dataset)
    return [_plan_clip(settings, dataset, subject, clip) for subject in range(subjects) for clip in range(clips)]


def _plan_clip(settings: DemoSettings, dataset: str, subject_index: int, index: int) -> ClipPlan:
    layout = LAYOUTS[dataset]
    random = generator(settings, dataset, subject_index, index, "plan")
    labels = list(layout.emotions)
    label = labels[index % len(labels)]
    emotions = layout.emotions[label]
    count = settings.frames + int(random.integers(5))
    lead, tail = (0, 0) if layout.cut_to_clip else (int(random.integers(5)), int(random.integers(4)))
    onset, offset = lead, count - 1 - tail
    # The apex is between 20 and 80 % both of the folder's frames and of the way from onset to offset.
    earliest = math.ceil(max(onset + 0.2 * (offset - onset), 0.2 * (count - 1)))
    latest = math.floor(min(onset + 0.8 * (offset - onset), 0.8 * (count - 1)))
    apex = int(random.integers(earliest, latest + 1))
    first = int(random.integers(85, 100))  # so that unpadded names pass from two digits to three
    subject = layout.subject(subject_index)
    clip = layout.clip(subject_index, index, label)
    return ClipPlan(
        subject_index=subject_index,
        index=index,
        subject=subject,
        clip=clip,
        label=label,
        emotion=emotions[(subject_index + index // len(labels)) % len(emotions)],
        split=_split(settings, subject_index) if dataset == "dfme" else "all",
        folder=layout.folder(subject, clip, label),
        first=first,
        onset=first + onset,
        apex=first + apex,
        offset=first + offset,
        last=first + count - 1,
        apex_annotated=not layout.cut_to_clip and not (dataset == "casme2" and (index + 2 * subject_index) % 5 == 2),
    )


def _split(settings: DemoSettings, subject_index: int) -> str:
    """The last two subjects are the tests A and B, the others are trained on."""
    return {1: "test_b", 2: "test_a"}.get(settings.dfme_subjects - subject_index, "train")


def plan(settings: Mapping[str, object], root: Path) -> pd.DataFrame:
    """The sample sheet of the demo rendered under `root`, one folder a dataset: what the adapters will read there.

    Nothing is rendered, read or written.
    """
    made = DemoSettings.of(settings)
    return sample_rows(
        {
            "dataset": dataset,
            "subject": clip.subject,
            "clip": clip.clip,
            "source": str(root / dataset / clip.folder),
            "kind": "frames",
            "onset": clip.onset,
            "apex": clip.apex if clip.apex_annotated else None,
            "offset": clip.offset,
            "fps": LAYOUTS[dataset].fps,
            "emotion": clip.emotion,
            "label": clip.label,
            "split": clip.split,
        }
        for dataset in made.datasets
        for clip in clip_plans(made, dataset)
    )
