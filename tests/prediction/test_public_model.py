"""What the models of `make model`, which saw only the 442 real clips, predict for clips with known movement.

pytest -rP -m "" tests/prediction/test_public_model.py      prints the numbers that docs/model_card.md quotes.
"""

import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from checkpoints import checkpoint
from shared_data import shared_data

from merba.config import load_config
from merba.datasets.demo.planning import plan
from merba.datasets.demo.rendering import render
from merba.frames import open_clip
from merba.prediction.inference import classify
from merba.prediction.predict import predict
from merba.training.everybody import train_on_images

ROOT = Path(__file__).parents[2]
EASY = yaml.safe_load((ROOT / "tests" / "clips_easy.yaml").read_text())
LEAST = 50  # of 54


def public_model(experiment):
    config = load_config(ROOT / "config" / "public_flow.yaml")
    config["datasets"]["public_flow"]["root"] = str(shared_data("megc2019_flow28"))
    return train_on_images(config, experiment)


@pytest.fixture(scope="module")
def kernel():
    return public_model("kernel")


@pytest.fixture(scope="module")
def merba():
    return public_model("merba_single_window")


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """The sheet of the 54 clips, rendered."""
    root = tmp_path_factory.mktemp("easy")
    for dataset in EASY["demo"]["datasets"]:
        render(EASY["demo"], dataset, root)
    sheet = plan(EASY["demo"], root)
    known = sheet[["dataset", "subject", "clip", "label", "onset", "apex", "offset"]].astype(object)
    assert sorted(known.where(known.notna(), None).values.tolist()) == sorted(EASY["clips"])
    return sheet


def predicted(sheet, model, folder):
    sheet.to_csv(folder / "clips.csv", index=False)
    found = predict(folder / "clips.csv", model)
    assert [one.clip for one in found] == sheet["clip"].tolist()
    return found


@pytest.fixture(scope="module")
def as_rendered(easy, kernel, tmp_path_factory):
    """The kernel model's predictions for the clips."""
    return predicted(easy, kernel, tmp_path_factory.mktemp("as_rendered"))


def by(model, found):
    """Another model's classes for the flow of these predictions."""
    flow, points = (np.stack([getattr(one, name) for one in found]) for name in ("flow", "points"))
    result = classify(model, flow, points.reshape(-1, 5, 2), torch.device("cpu"))
    return [model.classes[code] for code in result.predicted]


@pytest.mark.long
def test_the_kernel_model_is_right_on_movements_that_it_never_saw(easy, as_rendered):
    right = sum(one.predicted == label for one, label in zip(as_rendered, easy["label"], strict=True))
    print(f"kernel: {right} of {len(easy)} right; the smallest movement is {min(one.movement for one in as_rendered):.2f} px")
    assert right >= LEAST


@pytest.mark.slow
def test_merba_nano_is_right_on_movements_that_it_never_saw(easy, as_rendered, merba):
    right = sum(np.array(by(merba, as_rendered)) == easy["label"])
    print(f"merba_single_window: {right} of {len(easy)} right")
    assert right >= LEAST


def shifted(image):
    height, width = image.shape[:2]
    by = np.array([[1, 0, 31.4], [0, 1, -17.7]])
    return cv2.warpAffine(image, by, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


CHANGES = {
    "mirrored": lambda image: cv2.flip(image, 1),
    "shifted": shifted,
    "smaller": lambda image: cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
    "larger": lambda image: cv2.resize(image, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_another_view_of_a_movement_has_the_same_class(easy, as_rendered, kernel, merba, tmp_path, change):
    sources = []
    for number, row in enumerate(easy.itertuples()):
        folder = tmp_path / str(number)
        folder.mkdir()
        sources.append(str(folder))
        for frame, image in open_clip(row.source, "frames").frames():
            cv2.imwrite(str(folder / f"{frame}.png"), CHANGES[change](image))
    found = predicted(easy.assign(source=sources), kernel, tmp_path)
    same = {
        "kernel": sum(one.predicted == before.predicted for one, before in zip(found, as_rendered, strict=True)),
        "merba_single_window": sum(np.array(by(merba, found)) == np.array(by(merba, as_rendered))),
    }
    print(f"{change}, of {len(easy)} the same class: {same}")
    assert min(same.values()) >= LEAST


def test_still_frames_of_a_real_video_have_no_class():
    """Neighbouring frames, when the face moves least: the video has no longer part without motion."""
    (found,) = predict(shared_data("clips/WolfgangLanger_Pexels.mp4"), checkpoint(), onset=235, apex=236)
    print(f"{found.movement:.2f} px")
    assert found.predicted == "no movement"


def test_make_model_ships_what_the_honest_table_ranks_highest():
    rows = pd.read_csv(ROOT / "docs" / "results" / "public_flow_table_5_3db.csv")
    best = rows[rows["leaks"] == "no"].sort_values("combined_uf1").iloc[-1]["experiment"]
    first = re.search(r"--experiment (\w+) --error (\w+) --out models/public_flow\.safetensors", (ROOT / "Makefile").read_text())
    assert first.groups() == (best, best)
