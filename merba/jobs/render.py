"""Render one dataset of the demo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2

from merba.datasets.demo.rendering import render
from merba.joblog import job_log


def run(settings: Mapping[str, Any], folder: str, *, log: str) -> None:
    """Render the dataset of the demo that `folder` is named after, from the demo's `settings`, into this folder."""
    target = Path(folder)
    with job_log(log, f"render demo {target.name}"):
        cv2.setNumThreads(1)
        render(settings, target.name, target.parent)
