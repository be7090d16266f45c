"""Compute the flow of one subject's clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from merba.errors import MerbaError
from merba.joblog import job_log
from merba.preprocessing.flow import flow_format, flow_of_clips, flow_shape
from merba.preprocessing.packs import save_subject
from merba.sheet import from_plain_rows


def run(
    plain_rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    face_settings: Mapping[str, Any],
    *,
    faces: str | None,
    apexes: str | None,
    output: str,
    threads: int,
    log: str,
) -> None:
    """Write the flow of the plain rows of a subject; ready-made flow has no files of `faces` and `apexes`."""
    with job_log(log, f"flow of {plain_rows[0]['dataset']} {plain_rows[0]['subject']}"):
        rows = from_plain_rows(plain_rows)
        tables = (pd.read_parquet(path) if path else None for path in (faces, apexes))
        shape, form = flow_shape(rows, settings, face_settings), flow_format(rows, settings)
        with _gpu() if faces and settings["solver"] == "cuda" else nullcontext() as device:
            flows = flow_of_clips(rows, *tables, settings, face_settings, threads, device)
            save_subject(Path(output), rows, flows, shape, form)


def _gpu() -> AbstractContextManager:
    """The GPU, reserved for this job during the block. Raises MerbaError if PyTorch finds none."""
    import torch

    from merba.training.devices import training_device

    if not torch.cuda.is_available():
        raise MerbaError(
            "flow.solver: auto computes flow on the GPU that training will use, but PyTorch finds none; set "
            "`flow.solver: numba` or see `merba doctor`"
        )
    return training_device("cuda")
