"""Writing each dataset's layout with its quirks, at tiny size, from the demo's face: two subjects, three clips each."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from openpyxl import load_workbook

from merba.datasets import load_dataset
from merba.datasets.demo.planning import plan
from merba.datasets.demo.rendering import render
from merba.errors import MerbaError


def planned(adapter: str, root: Path) -> pd.DataFrame:
    """What the adapter should read under `root`, for the layouts that the demo renders."""
    return plan(_settings(adapter), root.parent)


def write_release(adapter: str, root: Path) -> Path:
    """Writes the layout under `root` and returns it."""
    WRITERS[adapter](root)
    return root


def load(adapter, root, **settings):
    return load_dataset(adapter, {"adapter": adapter, "root": str(root), **settings})


def message(adapter, root, **settings):
    """What the adapter says when it refuses."""
    with pytest.raises(MerbaError) as error:
        load(adapter, root, **settings)
    return str(error.value)


def edit_workbook(path: Path, change: Callable) -> None:
    """Applies `change` to the first sheet of a workbook."""
    workbook = load_workbook(path)
    change(workbook.worksheets[0])
    workbook.save(path)


def _settings(adapter: str) -> dict[str, object]:
    return {"datasets": [adapter], "subjects": 2, "clips": 3, "dfme_subjects": 2, "dfme_clips": 7, "size": 0.1}


def _rendered(adapter: str, root: Path) -> None:
    staging = root.with_name(f"{root.name}-rendering")
    render(_settings(adapter), adapter, staging)
    root.parent.mkdir(parents=True, exist_ok=True)
    (staging / adapter).rename(root)
    staging.rmdir()


def _write_smic_hs(root: Path) -> None:
    _rendered("smic_hs", root)
    (root / "HS" / "Thumbs.db").write_bytes(b"")
    (root / "HS" / "s2" / "non_micro").mkdir()


def _write_casme2(root: Path) -> None:
    """Clips without a class (others, fear) have frames too; there is also a shortcut file."""
    _rendered("casme2", root)
    frames = root / "CASME2-RAW" / "sub01"
    shutil.copytree(frames / "EP01_01f", frames / "EP09_09")
    (frames / "Desktop - Shortcut.lnk").write_bytes(b"")

    def add(sheet):
        sheet.append([1, "EP09_09", None, 100, "/", 110, None, None, "others"])
        sheet.append([1, "EP09_10", None, 100, 105, 110, None, None, "fear"])

    edit_workbook(root / "CASME2-coding-20140508.xlsx", add)


def _write_samm(root: Path) -> None:
    _rendered("samm", root)
    edit_workbook(
        root / "SAMM_Micro_FACS_Codes_v2.xlsx",
        lambda sheet: sheet.append([8, "008_9_9", 9, 1, 2, 3, 3, "Micro - 1/2", None, "Other", None, None]),
    )


def _write_dfme(root: Path) -> None:
    _rendered("dfme", root)


def _write_casme3(root: Path) -> None:
    """Two micro-expressions of one long video, and a third one without the frames before its apex."""
    _rendered("casme2", root)
    video = root / "part_A" / "spNO.1" / "b" / "color"
    video.parent.mkdir(parents=True)
    frames = sorted((root / "CASME2-RAW" / "sub01" / "EP01_01f").iterdir())
    video.mkdir()
    for number, frame in enumerate(frames, start=166):
        shutil.copy(frame, video / f"{number}.jpg")
    shutil.copytree(video, root / "part_A" / "spNO.10" / "j" / "color")
    for name in ("CASME2-RAW", "truth"):
        shutil.rmtree(root / name)
    (root / "CASME2-coding-20140508.xlsx").unlink()
    rows = [
        ["spNO.1", "b", 166, 175, 179, 4, "III", "disgust"],
        ["spNO.1", "b", 180, 182, 184, "R12", "I", "happy"],
        ["spNO.10", "J", 170, 170, 180, "26+25", "II", "sad"],
        ["spNO.10", "J", 175, 177, 180, 38, "VII", "Others"],
    ]
    header = ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"]
    table = pd.DataFrame(rows, columns=header)
    table.to_excel(root / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", index=False)


def _write_flow_images(root: Path) -> None:
    """Images from the true displacement of rendered clips, scaled to 0…255 each; the CSV as upstream writes it."""
    (root / "STSNet_whole_norm_u_v_os").mkdir(parents=True)
    rows = []
    for adapter, dataset in (("smic_hs", "smic"), ("casme2", "casme2"), ("samm", "samm")):
        _rendered(adapter, root / adapter)
        for _, clip in planned(adapter, root / adapter).iterrows():
            truth = np.load(root / adapter / "truth" / f"{clip['clip']}.npz")["displacement"].astype(np.float32)
            u, v = (cv2.normalize(cv2.resize(part, (28, 28)), None, 0, 255, cv2.NORM_MINMAX) for part in truth)
            name = f"{clip['subject']}_{clip['clip']} .png"
            image = cv2.merge([np.zeros_like(u), v, u]).astype(np.uint8)
            cv2.imwrite(str(root / "STSNet_whole_norm_u_v_os" / name), image)
            label = ("negative", "positive", "surprise").index(clip["label"])
            rows.append([dataset, clip["subject"], clip["clip"], label, "", f"{clip['clip']}.jpg", ""])
        shutil.rmtree(root / adapter)
    header = ["dataset", "sub", "filename_o", "label", "apex", "imagename", "sub_filename"]
    pd.DataFrame(rows, columns=header).to_csv(root / "combined_3_class2_for_optical_flow.csv", index=False)


def _write_clips(root: Path) -> None:
    """A folder of frames, partly annotated, and a video with only its emotion annotated."""
    _rendered("casme2", root / "rendered")
    shutil.copytree(root / "rendered" / "CASME2-RAW" / "sub01" / "EP01_01f", root / "ann" / "smile")
    shutil.rmtree(root / "rendered")
    frames = sorted((root / "ann" / "smile").iterdir(), key=lambda path: int(path.stem[3:]))
    first = cv2.imread(str(frames[0]))
    writer = cv2.VideoWriter(str(root / "bob.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (first.shape[1], first.shape[0]))
    for frame in frames:
        writer.write(cv2.imread(str(frame)))
    writer.release()
    (root / "clips.csv").write_text(
        "Subject,Clip,Source,Onset,Apex,Offset,Emotion\nann,smile,ann/smile,,,,happiness\nbob,stare,bob.mp4,,7,,surprise\n"
    )


WRITERS = {
    "smic_hs": _write_smic_hs,
    "casme2": _write_casme2,
    "samm": _write_samm,
    "dfme": _write_dfme,
    "casme3": _write_casme3,
    "flow_images": _write_flow_images,
    "clips": _write_clips,
}
