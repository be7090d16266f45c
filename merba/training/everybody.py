"""Train one model on all clips of ready-made flow, for new faces. This needs only the images, not a run of the workflow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from merba.config import fold_settings
from merba.datasets import flow_images, read_sheet
from merba.errors import MerbaError
from merba.preprocessing.flow import flow_format, flow_of_clips, flow_shape
from merba.preprocessing.packs import check_packed, pack, save_subject
from merba.protocols import EVERYBODY
from merba.training.checkpoint import Checkpoint
from merba.training.experiments import checked_experiment
from merba.training.fold import train_on_everybody
from merba.training.loading import Fold, load_fold

log = logging.getLogger(__name__)


def train_on_images(config: Mapping[str, Any], name: str) -> Checkpoint:
    """Train one model on all clips of the experiment `name` on flow images, with its settings and to its last epoch.

    Images without a configured root are cloned first, as in the workflow. No subject is held out, so the error of this model
    can't be measured; the closest measurement is that of the experiment's folds. Raises MerbaError if the configuration has no
    such experiment, has other clips than images, or chooses the epoch on held-out subjects.
    """
    _clone_missing(config["datasets"])
    sheet = read_sheet(config)
    experiment = checked_experiment(config, name, sheet)
    if experiment["stopping"] != "none":
        raise MerbaError(
            f"experiment {name} chooses its epoch on held-out subjects: train its folds, then run `merba export --retrain`; "
            "or set `stopping: none`"
        )
    everybody = fold_settings(experiment) | {"protocol": EVERYBODY}
    with TemporaryDirectory() as folder:
        fold = _packed(config, everybody, sheet, Path(folder))
        log.info("%s: training on %d clips", name, len(fold.clips))
        return train_on_everybody(config, everybody, fold, epochs=experiment["training"]["epochs"])


def _clone_missing(datasets: Mapping[str, Mapping[str, Any]]) -> None:
    for name, settings in datasets.items():
        if settings["adapter"] != flow_images.ADAPTER:
            raise MerbaError(
                f"datasets.{name}: adapter {settings['adapter']} reads frames, but `merba fit` needs flow images; run the "
                "workflow, then `merba export`"
            )
        target = flow_images.CLONES / name
        if not settings.get("root") and not target.exists():
            log.info("cloning %s into %s", settings["repository"], target)
            flow_images.clone(settings["repository"], settings["commit"], target)


def _packed(config: Mapping[str, Any], experiment: Mapping[str, Any], sheet: pd.DataFrame, folder: Path) -> Fold:
    """The images of the experiment's datasets, packed in `folder` as in the workflow, and loaded with all subjects."""
    packs = []
    for dataset in experiment["datasets"]:
        rows = sheet[sheet["dataset"] == dataset].reset_index(drop=True)
        flow, array, index = (folder / f"{dataset}.{suffix}" for suffix in ("npz", "npy", "parquet"))
        settings = config["flow"], config["faces"]
        save_subject(
            flow, rows, flow_of_clips(rows, None, None, *settings), flow_shape(rows, *settings), flow_format(rows, settings[0])
        )
        pack([flow], array, index)
        packs.append((array, index))
    check_packed([index for _, index in packs], drop=config["on_problem"] == "drop")
    return load_fold(config, experiment, dataset="all", subject_id="all", sheet=sheet, packs=packs)
