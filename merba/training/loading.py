"""One fold before training: its clips, labels, flow and split, and the digest of what decides its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merba.code import code_digest
from merba.errors import MerbaError
from merba.files import checksum
from merba.preprocessing.packs import FlowFormat, load_packs
from merba.preprocessing.same_flow import check_flow_differs
from merba.protocols import Split, make_split
from merba.sheet import KEY, class_names, safe_id


@dataclass(frozen=True)
class Fold:
    """One fold before training: all usable clips with their labels as class numbers, flow, split, and its digest.

    The digest is of everything that decides a training's result but its seed: settings, split, labels, content of packs,
    pretrained weights and the user's file of the model, and the `code` of training and of the fold's own model.
    """

    dataset: str
    subject: str
    clips: pd.DataFrame
    labels: np.ndarray
    classes: list[str]
    flow: np.ndarray
    form: FlowFormat
    split: Split
    inputs: dict[str, str]
    code: str
    digest: str


def load_clips(sheet: pd.DataFrame, packs: Sequence[tuple[Path, Path]]) -> tuple[np.ndarray, pd.DataFrame, FlowFormat]:
    """The usable clips of (array, index) files as `load_packs` has them, with each one's label and split from the sheet.

    Raises MerbaError for a clip that the sheet doesn't have, and where two subjects have the same flow.
    """
    flow, clips, form = load_packs(packs)
    check_flow_differs(packs)  # here, because a gate sees one dataset, and this is how every training gets its clips
    clips = clips.merge(sheet[[*KEY, "label", "split"]], on=KEY, how="left", validate="one_to_one")
    if clips["label"].isna().any():
        unknown = clips[clips["label"].isna()].iloc[0]
        raise MerbaError(
            f"{unknown['dataset']} {unknown['subject']} {unknown['clip']} is packed, but has no label in the sample sheet: "
            "one of the two is of an earlier run; run the workflow again"
        )
    return flow, clips, form


def load_fold(
    config: Mapping[str, Any],
    experiment: Mapping[str, Any],
    *,
    dataset: str,
    subject_id: str,
    sheet: pd.DataFrame,
    packs: Sequence[tuple[Path, Path]],
) -> Fold:
    """The fold of `experiment` (from `merba.config.fold_settings`) that tests one subject, by its safe id.

    `sheet` has the labels of all clips, usable or not; `packs` are the (array, index) files of the experiment's datasets.
    Other protocols than loso have a single fold. Raises MerbaError for a subject or a clip that the sheet doesn't have.
    """
    flow, clips, form = load_clips(sheet, packs)
    subject = _subject_name(sheet, dataset, subject_id) if experiment["protocol"] == "loso" else subject_id
    classes = class_names(sheet, experiment["datasets"])
    labels = clips["label"].map({name: code for code, name in enumerate(classes)}).to_numpy(np.int64)
    split = make_split(clips, experiment["protocol"], dataset, subject, stopping=experiment["stopping"], seed=config["seed"])
    model = experiment["model"]
    own = [Path(model[key]) for key in ("pretrained", "file") if model.get(key)]
    files = [*(path for pair in packs for path in pair), *own]
    inputs = {path.name: checksum(path) for path in files}
    code = code_digest("merba.training.fold", [model.get("name", "")])
    alone = {key: value for key, value in experiment.items() if key != "seeds"}
    decides = [alone, config["seed"], classes, labels.tolist(), *(part.tolist() for part in astuple(split)), inputs, code]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    return Fold(dataset, subject, clips, labels, classes, flow, form, split, inputs, code, digest)


def split_rows(clips: pd.DataFrame, split: Split) -> pd.DataFrame:
    """Each clip's part in a fold: train, validation, test, or none of them."""
    rows = clips[KEY].assign(part="none")
    for part in ("train", "validation", "test"):
        rows.iloc[getattr(split, part), rows.columns.get_loc("part")] = part
    return rows


def _subject_name(sheet: pd.DataFrame, dataset: str, subject_id: str) -> str:
    for name in sheet.loc[sheet["dataset"] == dataset, "subject"].unique():
        if safe_id(name) == subject_id:
            return name
    raise MerbaError(f"the sample sheet has no subject {subject_id} in {dataset}")
