"""Make a view of one subject's clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from merba.joblog import job_log
from merba.preprocessing.packs import save_subject
from merba.preprocessing.views.clips import Encoder, view_format, views_of_clips
from merba.preprocessing.views.settings import ViewSettings
from merba.sheet import from_plain_rows


def run(
    plain_rows: Sequence[Mapping[str, Any]],
    view: Mapping[str, Any],
    face_settings: Mapping[str, Any],
    flow_settings: Mapping[str, Any] | None,
    *,
    device: str,
    faces: str,
    apexes: str,
    output: str,
    log: str,
) -> None:
    """Write the view of the plain rows of a subject; `faces` and `apexes` are the files of these stages.

    Tokens are made on `device`, as the configuration sets it.
    """
    task = f"view {view['name']} of {plain_rows[0]['dataset']} {plain_rows[0]['subject']}"
    with job_log(log, task), _encoder(ViewSettings(**view), device) as encode:
        rows, settings = from_plain_rows(plain_rows), ViewSettings(**view)
        tables = (pd.read_parquet(path) for path in (faces, apexes))
        clips = views_of_clips(rows, *tables, settings, face_settings, flow_settings=flow_settings, encode=encode)
        save_subject(Path(output), rows, clips, settings.shape, view_format(settings))


@contextmanager
def _encoder(view: ViewSettings, device: str) -> Iterator[Encoder | None]:
    if view.keep != "tokens":
        yield None
        return
    import torch

    from merba.models.slstt import frozen_encoder
    from merba.training.devices import training_device

    torch.set_num_threads(1)  # the rule asks for one core
    with training_device(device) as chosen:
        yield frozen_encoder(Path(view.pretrained), chosen)
