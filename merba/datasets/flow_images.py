"""Ready-made optical flow of the MEGC2019 composite: one image per clip, and one CSV for three datasets."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from merba.datasets.annotations import read_annotations, report
from merba.datasets.layout import find_folder, find_table, layout_error, nearest, open_root, report_missing
from merba.datasets.tasks import CLASSES, composite
from merba.errors import MerbaError, unknown
from merba.files import DRAFT
from merba.sheet import sample_rows

ADAPTER = "flow_images"
TABLE = "combined_3_class2_for_optical_flow.csv"
IMAGES = "STSNet_whole_norm_u_v_os"
COLUMNS = {"dataset": "dataset", "subject": "sub", "clip": "filename_o", "label": "label"}
DATASETS = {"smic": "smic_hs", "casme2": "casme2", "samm": "samm"}
CLONES = Path("results/public_flow")
"""Where the workflow clones releases without a configured root, one folder per dataset."""


def read(
    root: Path | None,
    *,
    name: str,
    annotations: str = TABLE,
    frames: str | None = None,
    missing: str = "error",
    repository: str | None = None,
    commit: str | None = None,
    clones: Path = CLONES,
) -> pd.DataFrame:
    """Sample sheet of the CSV and the images `<sub>_<filename_o> .png`; datasets are smic_hs, casme2, samm and any others.

    Without root, the rows are those of the clone of `repository` at `commit` in `clones`; before the workflow has made the clone,
    they come from the list of the composite.
    """
    if root is None:
        if not (repository and commit):
            raise layout_error(ADAPTER, f"dataset {name}: set `root`, or `repository` and `commit` to clone")
        root = clones / name
        if not (root / annotations).is_file():
            return _rows(composite().to_dict("records"), root / "datasets" / IMAGES)
    home = open_root(root, ADAPTER)
    table = find_table(home, (), annotations)
    clips = read_annotations(table, ADAPTER, COLUMNS)
    labels = ("0", "1", "2")
    faults = [f"row {row}: label {unknown(label, labels)}" for row, label in clips["label"].items() if label not in labels]
    faults += [
        f"row {row}: dataset {name!r} has other characters than lower-case letters, digits and _"
        for row, name in clips["dataset"].items()
        if not re.fullmatch("[a-z0-9_]+", name)
    ]
    report(faults, ADAPTER, table)
    clips["dataset"] = clips["dataset"].replace(DATASETS)
    clips["label"] = [CLASSES[int(label)] for label in clips["label"]]
    folder = find_folder(home, [frames] if frames else [IMAGES, f"datasets/{IMAGES}"], r".*\.png", "flow images *.png")
    there = set(folder.names)
    present, absent = [], []
    for clip in clips.to_dict("records"):
        image = _image(clip)
        if image in there:
            present.append(clip)
        else:
            absent.append(f"{image!r}{nearest(image, there)}")
    report_missing(absent, f"{len(absent)} of the {len(clips)} images are not in {folder.path}", ADAPTER, missing)
    return _rows(present, folder.path)


def clone(repository: str, commit: str, target: Path) -> None:
    """Fetch only the CSV and the images of one commit of a Git repository into `target`.

    `target` exists only when it is complete. Raises MerbaError with Git's own message if fetching fails.
    """
    draft = target.with_name(f"{DRAFT}{target.name}")
    for folder in (draft, target):
        shutil.rmtree(folder, ignore_errors=True)
    draft.mkdir(parents=True)
    for arguments in (
        ["init", "--quiet"],
        ["remote", "add", "--", "origin", repository],
        ["sparse-checkout", "set", "--no-cone", f"/{TABLE}", f"/datasets/{IMAGES}/"],
        ["fetch", "--quiet", "--depth", "1", "--filter", "blob:none", "--", "origin", commit],
        ["checkout", "--quiet", "FETCH_HEAD"],
    ):
        done = subprocess.run(["git", "-C", draft, *arguments], capture_output=True, text=True)
        if done.returncode:
            raise MerbaError(
                f"git {arguments[0]} of {repository} at {commit} failed: {done.stderr.strip()}\n"
                f"Or clone it yourself, and set `root` (`make model`: ROOT=) to the folder that holds {TABLE}."
            )
    draft.rename(target)


def _image(clip: Mapping[str, str]) -> str:
    return f"{clip['subject']}_{clip['clip']} .png"  # the release has this space


def _rows(clips: Iterable[Mapping[str, str]], images: Path) -> pd.DataFrame:
    return sample_rows(
        {
            "dataset": clip["dataset"],
            "subject": clip["subject"],
            "clip": clip["clip"],
            "source": str(images / _image(clip)),
            "kind": "flow",
            "emotion": clip["label"],
            "label": clip["label"],
        }
        for clip in clips
    )
