"""Flow of one's own clips as files: arrays in px, and what the public codes of STSTNet and HTNet read."""

import cv2
import numpy as np
import pandas as pd
import pytest
from face_clips import clip_of

from merba.cli import main
from merba.datasets import load_dataset
from merba.errors import MerbaError
from merba.prediction.flow_files import write_flow
from merba.preprocessing.alignment import five_points
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.detectors import BorderedDlib
from merba.preprocessing.faces import faces_of_subject
from merba.preprocessing.flow import flow_of_subject
from merba.preprocessing.flow_images import flow_images
from merba.preprocessing.packs import RELEASED


@pytest.fixture(scope="module")
def table(samm_clips, tmp_path_factory):
    """A table of three clips of two persons; names are numbers."""
    path = tmp_path_factory.mktemp("table") / "My Clips.csv"
    clips = samm_clips.assign(subject=["006", "006", "007"], emotion=["happiness", "Surprise", "anger"])
    clips[["subject", "clip", "source", "onset", "apex", "offset", "emotion"]].to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def workflow_flow(samm_clips):
    """Flow, float16 (3, 2, 224, 224), of these clips, and the points of their faces, from the workflow's stages."""
    faces = faces_of_subject(samm_clips, {})
    flow, found = flow_of_subject(samm_clips, faces, apexes_of_subject(samm_clips, faces, {}, {}), {}, {})
    return flow, np.stack(found["points"].to_list()).reshape(-1, 5, 2)


@pytest.fixture(scope="module")
def release(table):
    """The folder that `merba flow --form ststnet` makes of the table."""
    folder = table.parent / "release"
    assert main(["flow", str(table), "--form", "ststnet", "--out", str(folder)]) == 0
    return folder


def test_the_adapter_reads_the_flow_images_back_to_the_same_numbers(release, workflow_flow):
    rows = load_dataset("mine", {"adapter": "flow_images", "root": str(release)})
    assert rows["dataset"].unique().tolist() == ["my_clips"]
    assert rows["subject"].tolist() == ["s006", "s006", "s007"]
    assert rows["label"].tolist() == ["positive", "surprise", "negative"]
    read, found = flow_of_subject(rows, None, None, {}, {})
    assert found["problem"].isna().all()
    assert read.shape == (3, 3, 28, 28)
    assert (read == flow_images(*workflow_flow, RELEASED)).all()
    assert (read.min((2, 3)) == 0).all()
    assert (read.max((2, 3)) == 255).all()


def test_htnet_finds_its_files_by_its_own_rules(release):
    """As in its main_HTNet.py: by pandas, with names made from columns."""
    clips = pd.read_csv(release / "combined_3_class2_for_optical_flow.csv")
    names = set()
    for _, clip in clips.iterrows():
        name = str(clip["sub"]) + "_" + str(clip["filename_o"]) + " .png"
        image = cv2.imread(str(release / "datasets" / "STSNet_whole_norm_u_v_os" / name))
        face = cv2.imread(str(release / "datasets" / "combined_datasets_whole" / clip["imagename"]))
        assert (image.shape, face.shape) == ((28, 28, 3), (224, 224, 3))
        names.add(name)
    assert {path.name for path in (release / "datasets" / "STSNet_whole_norm_u_v_os").iterdir()} == names
    folds = release / "datasets" / "three_norm_u_v_os"
    assert {path.name for path in folds.iterdir()} == {"s006", "s007"}
    tested = {path.name: path.parent.name for path in folds.glob("s006/u_test/*/*")}
    trained = {path.name: path.parent.name for path in folds.glob("s006/u_train/*/*")}
    labels = {f"{sub}_{name} .png": str(label) for sub, name, label in clips[["sub", "filename_o", "label"]].to_numpy()}
    assert tested == {name: label for name, label in labels.items() if name.startswith("s006")}
    assert tested | trained == labels
    assert not tested.keys() & trained.keys()


def test_the_apex_face_is_in_the_crop_of_the_public_ones(release, samm_clips):
    """dlib's landmarks of the written face are where those of HTNet's faces are, for a face with roughly their proportions."""
    face = cv2.imread(str(next((release / "datasets" / "combined_datasets_whole").iterdir())))
    detector = BorderedDlib(1)
    points = five_points(detector.landmarks([face], detector.faces(face)[0]))
    public = np.array([(54.5, 69.5), (168.3, 69.2), (112.0, 119.1), (65.8, 164.6), (158.1, 163.7)])
    assert np.hypot(*(points - public).T).mean() < 15


def test_arrays_are_in_px_and_the_table_says_of_what(samm_clips, workflow_flow, tmp_path):
    clip_of(tmp_path / "empty", [np.zeros((120, 120, 3), np.uint8)] * 4)
    row = samm_clips.iloc[1]
    clips = write_flow([row["source"]], tmp_path / "one", onset=int(row["onset"]), apex=int(row["apex"]))
    (flow,) = (np.load(tmp_path / "one" / name) for name in clips["file"])
    assert flow.dtype == np.float32
    assert (flow == workflow_flow[0][1]).all()
    assert main(["flow", str(tmp_path / "empty"), row["source"], "--out", str(tmp_path / "two")]) == 1
    written = pd.read_csv(tmp_path / "two" / "clips.csv")
    assert "no face was found" in written["problem"][0]
    assert written["file"].isna().tolist() == [True, False]
    assert written["apex"].isna().tolist() == [True, False]
    assert np.load(tmp_path / "two" / written["file"][1]).shape == (2, 224, 224)


def test_a_folder_with_something_in_it_and_two_clips_of_one_name_are_refused(tmp_path, samm_clips):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    with pytest.raises(MerbaError, match="full is not empty; name a new folder"):
        write_flow([samm_clips["source"][0]], tmp_path / "full")
    with pytest.raises(MerbaError, match="note is a file; name a new folder"):
        write_flow([samm_clips["source"][0]], tmp_path / "full" / "note")
    table = tmp_path / "t.csv"
    samm_clips.assign(clip="same")[["subject", "clip", "source"]].to_csv(table, index=False)
    with pytest.raises(MerbaError, match="several clips would be called s006_same"):
        write_flow([table], tmp_path / "new", form="ststnet")
    assert not (tmp_path / "new").exists()


def test_without_classes_there_are_images_and_no_folds(tmp_path, samm_clips, caplog):
    write_flow(samm_clips["source"].tolist()[:2], tmp_path / "out", form="ststnet")
    clips = pd.read_csv(tmp_path / "out" / "combined_3_class2_for_optical_flow.csv")
    assert clips["sub"].tolist() == ["own001", "own002"]
    assert clips["label"].isna().all()
    assert "2 clips have no class" in caplog.text
    assert not (tmp_path / "out" / "datasets" / "three_norm_u_v_os").exists()
    with pytest.raises(MerbaError, match="label '' is unknown; choose one of 0, 1, 2"):
        load_dataset("mine", {"adapter": "flow_images", "root": str(tmp_path / "out")})
