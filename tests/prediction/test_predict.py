"""From a clip to its class: as in the workflow, with a problem or a warning if something is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from checkpoints import CLASSES, CONFIG, checkpoint, member
from face_clips import clip_of
from moving_faces import FPS, STILL, video
from sklearn.metrics import f1_score

from merba.cli import main
from merba.errors import MerbaError
from merba.figures import DPI
from merba.models import create_model
from merba.prediction.figures import plot_prediction
from merba.prediction.predict import MODEL, predict
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import faces_of_subject
from merba.preprocessing.flow import flow_of_subject
from merba.preprocessing.flow_images import flow_images
from merba.preprocessing.packs import RELEASED, FlowFormat
from merba.sheet import subject_rows
from merba.training.checkpoint import Member, save_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_checkpoint(path, checkpoint())
    return path


def test_a_clips_flow_is_the_workflows_bit_for_bit(samm_clips, saved):
    rows = subject_rows(samm_clips, "samm", "006")
    faces = faces_of_subject(rows, CONFIG["faces"])
    apexes = apexes_of_subject(rows, faces, CONFIG["apex"], CONFIG["faces"])
    flow, _ = flow_of_subject(rows, faces, apexes, CONFIG["flow"], CONFIG["faces"])
    row = rows.iloc[1]
    (found,) = predict(row["source"], saved, onset=int(row["onset"]), apex=int(row["apex"]))
    assert found.problem is None
    assert (found.onset, found.apex) == (row["onset"], row["apex"])
    assert found.flow.dtype == np.float16
    assert (found.flow == flow[1]).all()
    assert found.box == tuple(faces.loc[1, ["x0", "y0", "x1", "y1"]])
    assert found.predicted == max(found.probabilities, key=found.probabilities.get)
    assert list(found.probabilities) == CLASSES


@pytest.mark.long
@pytest.mark.parametrize(
    ("fold", "selection", "tested"),
    [
        ("merba/samm/006", "validation", "all"),
        ("ststnet/casme2/sub01", "last", "all"),
        ("merba_dgcm/dfme/holdout", "validation", "test_a"),
    ],
)
def test_a_folds_weights_predict_its_test_clips_as_the_workflow_did(micro_demo, tmp_path, fold, selection, tested):
    """Bit for bit the same flow, and so the same probabilities, from only the frames and the checkpoint."""
    results = micro_demo / "results"
    expected = pd.read_parquet(results / "folds" / fold / "predictions.parquet")
    expected = expected[(expected["selection"] == selection) & (expected["split"] == tested)]
    clips = pd.read_parquet(results / "samples.parquet").merge(expected[["dataset", "subject", "clip"]])
    clips["source"] = [str(micro_demo / source) for source in clips["source"]]
    clips.to_csv(tmp_path / "clips.csv", index=False)
    found = predict(tmp_path / "clips.csv", results / "folds" / fold / "model.safetensors")
    assert [one.clip for one in found] == expected["clip"].tolist()
    assert [one.predicted for one in found] == expected["predicted"].tolist()
    for one, row in zip(found, expected.to_dict("records"), strict=True):
        assert list(one.probabilities.values()) == pytest.approx([row[f"p_{name}"] for name in one.probabilities], abs=1e-6)
        with np.load(results / "flow" / row["dataset"] / f"{row['subject']}.npz") as file:
            (place,) = np.flatnonzero(file["clip"] == row["clip"])
            assert (one.flow == file["flow"][place]).all()


def test_the_five_lines_of_the_documentation_run(samm_clips, saved, capsys):
    text = (Path(__file__).parents[2] / "docs" / "prediction.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(code.replace("clip.mp4", samm_clips["source"][0]).replace("model.safetensors", str(saved)), {})
    assert re.match(r"006_1_1 (negative|positive|surprise) \{'negative': 0\.", capsys.readouterr().out)


def test_bad_clips_have_problems_and_the_others_go_on(tmp_path, samm_clips, saved):
    clip_of(tmp_path / "empty", [np.zeros((120, 120, 3), np.uint8)] * 4)
    video(tmp_path / "one.avi", 1)
    (tmp_path / "bad.mp4").write_text("no video")
    names = [tmp_path / "empty", tmp_path / "one.avi", tmp_path / "bad.mp4", samm_clips["source"][0], tmp_path / "gone.mp4"]
    problems = [one.problem for one in predict(names, saved)]
    assert "no face was found" in problems[0]
    assert problems[1]
    assert "can't be decoded" in problems[2]
    assert problems[3] is None
    assert "does not exist" in problems[4]


def test_of_several_faces_the_largest_is_taken_with_a_warning_and_status_1(tmp_path, photograph, saved, capsys):
    small = cv2.resize(photograph, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    small = cv2.copyMakeBorder(small, 0, 512 - small.shape[0], 0, 0, cv2.BORDER_REPLICATE)
    both = np.hstack([small, photograph])
    clip_of(tmp_path / "two", [both] * 3)
    assert main(["predict", str(tmp_path / "two"), "--checkpoint", str(saved), "--json"]) == 1
    output = capsys.readouterr()
    assert "merba: two: the onset frame shows 2 faces; the one around" in output.err
    (found,) = json.loads(output.out)["predictions"]
    assert found["faces"] == 2
    assert found["box"][0] > small.shape[1]
    assert found["predicted"]


def test_a_long_clip_without_an_apex_is_warned_of(tmp_path, samm_clips, saved):
    (short, slow) = (predict(samm_clips["source"][0], saved, fps=fps)[0] for fps in (200, 10))
    assert short.warnings == ()
    assert "a micro-expression at most 0.5 s" in slow.warnings[0]
    assert slow.predicted


def moved(image, x, y=0.0):
    return cv2.warpAffine(image, np.float32([[1, 0, x], [0, 1, y]]), image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def test_a_head_that_moves_is_said_and_a_still_one_is_not(tmp_path, photograph, saved, capsys):
    clip_of(tmp_path / "still", [photograph] * 3)
    clip_of(tmp_path / "moves", [photograph, moved(photograph, 2), moved(photograph, 5)])
    (tmp_path / "clips.csv").write_text("subject,clip,source,onset,apex\ns,still,still,1,3\ns,moves,moves,1,3\n")
    arguments = ["predict", str(tmp_path / "clips.csv"), "--checkpoint", str(saved)]
    assert main(arguments) == 0, "a warning, no problem"
    output = capsys.readouterr()
    assert "merba: moves: the head moves 8.7 px from onset to apex, on a face 224 px wide" in output.err
    assert "still:" not in output.err
    header, still, moves = (line.split() for line in output.out.splitlines())
    assert (still[header.index("head")], moves[header.index("head")]) == ("0.0", "8.7!")
    assert main([*arguments, "--json"]) == 0
    still, moves = json.loads(capsys.readouterr().out)["predictions"]
    assert (still["head_motion"], still["head_moves"], still["warnings"]) == (pytest.approx(0, abs=0.05), False, [])
    assert (moves["head_motion"], moves["head_moves"]) == (pytest.approx(8.7, abs=0.1), True)
    assert moves["predicted"] and "the head moves" in moves["warnings"][0]


def test_a_checkpoint_of_flow_images_reads_images_of_the_clips_flow(samm_clips):
    torch.manual_seed(0)
    member = Member(create_model("ststnet", 3).state_dict(), [0, 0, 0], [1, 1, 1])
    made = checkpoint(member, model={"name": "ststnet"}, form=FlowFormat(("u", "v", "strain"), "image"), image=RELEASED)
    row = samm_clips.iloc[2]
    (found,) = predict(row["source"], made, onset=int(row["onset"]), apex=int(row["apex"]), explain=True)
    image = flow_images(found.flow[None], found.points.reshape(1, 5, 2), RELEASED)
    with torch.no_grad():
        expected = made.build(member)(torch.from_numpy(image).float()).softmax(1)[0]
    assert list(found.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    # The saliency is on the aligned face: outside its crop, and the model's map, there is none.
    assert found.saliency.shape == (224, 224)
    left, right = found.points.reshape(5, 2)[[0, 1], 0]
    assert np.flatnonzero(found.saliency.any(0))[[0, -1]] == pytest.approx(
        [left - 0.25 / 0.51 * (right - left), right + 0.25 / 0.51 * (right - left)], abs=8
    )


def test_a_face_that_noise_alone_moves_gets_no_class(tmp_path, photograph, saved):
    random = np.random.default_rng(0)
    frames = [np.clip(photograph + random.normal(0, 5, photograph.shape), 0, 255).astype(np.uint8) for _ in range(3)]
    clip_of(tmp_path / "still", frames)
    (found,) = predict(tmp_path / "still", saved, onset=1, apex=3, explain=True)
    assert (found.predicted, found.probabilities, found.saliency) == ("no movement", {}, None)
    assert 0 < found.movement < 0.2
    plot_prediction(found, checkpoint(), tmp_path / "still.png")
    assert (tmp_path / "still.png").exists()


@pytest.mark.parametrize("place", ["working folder", "checkout"])
def test_without_a_checkpoint_the_one_of_make_model_is_taken(tmp_path, samm_clips, monkeypatch, capsys, place):
    folders = {"working folder": tmp_path / "here", "checkout": tmp_path / "there"}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.chdir(folders["working folder"])
    monkeypatch.setattr("merba.prediction.predict.PACKAGE", folders["checkout"] / "merba")
    assert main(["predict", samm_clips["source"][0]]) == 1
    assert re.search(r"no models/public_flow\.safetensors in .*here or .*there: run `make model`", capsys.readouterr().err)
    error = {"all": {"n": 442, "subjects": 68, "uf1": 0.775, "uar": 0.784}}
    made = checkpoint(member(left_out=None), data="public_flow", clips={"samm": 442}, error=error)
    save_checkpoint(folders[place] / MODEL, made)
    assert main(["predict", samm_clips["source"][0], "--json"]) == 0
    output = capsys.readouterr()
    assert "was trained on 442 real micro-expressions (public flow); leave-one-subject-out UF1 / UAR: all 0.775" in output.err
    about = json.loads(output.out)["checkpoint"]
    assert (about["trained_on"], about["error"]) == (made.trained_on, error)


def test_a_checkpoint_of_a_view_is_refused(samm_clips):
    with pytest.raises(MerbaError, match="trained on the view tim10, but new clips are predicted only from flow"):
        predict(samm_clips["source"][0], checkpoint(view={"name": "tim10"}))


def test_a_search_without_candidates_is_no_problem(tmp_path, movement, saved):
    clip_of(tmp_path / "still", [movement[0][0]] * 40)
    (found,) = predict(tmp_path / "still", saved, fps=FPS, spot=True)
    assert (found.predicted, found.problem) == (None, None)
    assert "no candidate interval" in found.warnings[0]


def test_a_given_apex_needs_no_search(samm_clips, saved):
    with pytest.raises(MerbaError, match="leave out either"):
        predict(samm_clips["source"][0], saved, apex=3, spot=True)


def test_the_command_prints_a_table_and_writes_json_and_pictures(tmp_path, samm_clips, saved, capsys):
    assert main(["predict", samm_clips["source"][0], "--checkpoint", str(saved), "--out", str(tmp_path)]) == 0
    output = capsys.readouterr()
    header, line = output.out.splitlines()
    assert header.split() == ["clip", "onset", "apex", "seconds", "head", "class", *CLASSES]
    document = json.loads((tmp_path / "predictions.json").read_text())
    (record,) = document["predictions"]
    expected = [
        *(str(record[key]) for key in ("clip", "onset", "apex")),
        "–",
        f"{record['head_motion']:.1f}",
        record["predicted"],
    ]
    assert line.split()[:6] == expected
    assert record["seconds"] == {}  # a folder of images has no frame rate
    assert sum(record["probabilities"].values()) == pytest.approx(1)
    assert cv2.imread(str(tmp_path / record["picture"])).shape[1] == 15 * DPI
    assert set(record) >= {"onset", "apex", "offset", "box", "warnings", "problem", "score"}
    assert document["checkpoint"]["data"] == "demo"
    assert "predictions for real faces mean nothing" in output.err


def test_the_command_ends_with_1_where_a_clip_has_a_problem_and_prints_json(tmp_path, samm_clips, saved, capsys):
    arguments = [samm_clips["source"][0], str(tmp_path / "gone.mp4"), "--checkpoint", str(saved), "--json"]
    assert main(["predict", *arguments]) == 1
    output = capsys.readouterr()
    assert "merba: gone.mp4:" in output.err
    assert [one["predicted"] is None for one in json.loads(output.out)["predictions"]] == [False, True]


@pytest.mark.parametrize("text", ["0", "nan", "fast"])
def test_a_wrong_frame_rate_on_the_command_line_is_named(text, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "clip.mp4", "--fps", text])
    assert f"--fps: {text!r} is not a number of frames per second" in capsys.readouterr().err


def test_the_commands_name_a_clips_problem_once(tmp_path, samm_clips, saved, capsys, caplog):
    for command in (["predict", "--checkpoint", str(saved)], ["flow", "--out", str(tmp_path / "flow")]):
        caplog.clear()
        assert main([*command, samm_clips["source"][0], "--onset", "9999"]) == 1
        assert (capsys.readouterr().err + caplog.text).count("frame 9999 is missing") == 1


@pytest.mark.long
def test_predictions_with_true_classes_are_scored_as_they_are_written(tmp_path, samm_clips, saved, capsys):
    """The table gives emotions; the model's classes are three. A clip that can't be used is in no score."""
    emotions = {"negative": "Disgust", "positive": "happy", "surprise": "surprise"}
    table = samm_clips.assign(subject=["006", "006", "7 b"], emotion=samm_clips["label"].map(emotions))
    gone = table.iloc[:1].assign(clip="gone", source=str(tmp_path / "gone.mp4"))
    pd.concat([table, gone]).to_csv(tmp_path / "clips.csv", index=False)
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "clips.csv"), "--checkpoint", str(saved), "--out", str(out)]) == 1
    *records, lost = json.loads((out / "predictions.json").read_text())["predictions"]
    assert lost["problem"] and lost["true"] == records[0]["true"]
    written = pd.read_csv(out / "predictions.csv", dtype=str)
    assert written["subject"].tolist() == ["006", "006", "7 b"]
    assert written["clip"].tolist() == samm_clips["clip"].tolist()
    assert written["true"].tolist() == samm_clips["label"].tolist()
    assert written["predicted"].tolist() == [record["predicted"] for record in records]
    capsys.readouterr()
    assert main(["score", str(out / "predictions.csv"), "--json"]) == 0
    (scores,) = json.loads(capsys.readouterr().out)
    assert (scores["n"], scores["subjects"]) == (3, 2)
    assert scores["uf1"] == pytest.approx(f1_score(written["true"], written["predicted"], average="macro", labels=CLASSES))


@pytest.mark.long
def test_what_has_no_true_class_is_not_scored_and_both_commands_say_so(tmp_path, samm_clips, saved, capsys):
    table = samm_clips.iloc[:2].assign(emotion=["others", samm_clips["label"][1]])
    table.to_csv(tmp_path / "clips.csv", index=False)
    arguments = ["--checkpoint", str(saved), "--out", str(tmp_path)]
    assert main(["predict", str(tmp_path / "clips.csv"), *arguments]) == 0
    clip = samm_clips["clip"][0]
    assert f"merba: {clip}: its emotion 'others' is not one of the model's classes (negative, pos" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "predictions.csv")]) == 1
    assert "1 of 2 rows have no true class, the first is row 2" in capsys.readouterr().err
    assert main(["predict", samm_clips["source"][0], *arguments]) == 0
    written = pd.read_csv(tmp_path / "predictions.csv")
    assert written[["subject", "true"]].isna().all(axis=None)
    assert main(["score", str(tmp_path / "predictions.csv")]) == 1
    assert "1 of 1 rows have no true class" in capsys.readouterr().err


def test_a_prediction_by_merba_does_not_load_pytorchs_compiler(samm_clips, saved):
    arguments = ["predict", samm_clips["source"][0], "--checkpoint", str(saved)]
    code = f"import sys; from merba.cli import main; main({arguments}); print('torch._dynamo' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


def test_the_command_searches_and_predicts_candidates_like_clips(tmp_path, movement, saved, capsys):
    images, _ = movement
    clip = tmp_path / "long"
    clip_of(clip, [images[0]] * STILL + images + [images[-1]] * STILL)
    arguments = [str(clip), "--spot", "--fps", str(FPS), "--checkpoint", str(saved), "--out", str(tmp_path / "out")]
    assert main(["predict", *arguments]) == 0
    header, line = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header[:6] == ["clip", "onset", "apex", "offset", "seconds", "score"]
    (record,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert STILL - 5 <= record["onset"] < record["apex"] < record["offset"] <= STILL + len(images) + 5
    assert record["score"] > 0.15
    (whole,) = predict(clip, saved, onset=record["onset"], apex=record["apex"])
    assert record["probabilities"] == whole.probabilities
    assert record["source"] == whole.source
    assert record["seconds"] == {key: pytest.approx(record[key] / FPS) for key in ("onset", "apex", "offset")}
    assert line[4] == "–".join(f"{record[key] / FPS:.2f}" for key in ("onset", "apex", "offset"))
    assert record["picture"] == "001_long.png"
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"predictions.csv", "predictions.json", record["picture"], record["search_picture"]}
    (row,) = pd.read_csv(tmp_path / "out" / "predictions.csv").to_dict("records")
    assert (row["clip"], row["onset"], row["predicted"]) == ("long", record["onset"], record["predicted"])


@pytest.mark.long
def test_candidates_in_which_the_head_moves_are_marked(tmp_path, movement, saved, capsys, monkeypatch):
    images, apex = movement
    # The second time the head moves with the expression, 6 px of the frame and back.
    rise = np.interp(np.arange(len(images)), [0, apex, len(images) - 1], [0, 6, 0])
    moving = [moved(image, x) for image, x in zip(images, rise, strict=True)]
    still = [images[0]] * STILL
    clip_of(tmp_path / "long", still + images + still + moving + still)
    figures = {}
    monkeypatch.setattr(
        "merba.prediction.figures.save", lambda figure, path: (figures.update({path.name.split("-", 2)[2]: figure}), path.touch())
    )
    arguments = [str(tmp_path / "long"), "--spot", "--fps", str(FPS), "--checkpoint", str(saved), "--out", str(tmp_path / "out")]
    assert main(["predict", *arguments]) == 0
    output = capsys.readouterr()
    header, *lines = (line.split() for line in output.out.splitlines())
    assert [line[header.index("head")].endswith("!") for line in lines] == [False, True]
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert [record["head_moves"] for record in records] == [False, True]
    (warning,) = (line for line in output.err.splitlines() if "the head moves" in line)
    assert warning.startswith(f"merba: long, frames {records[1]['onset']} to {records[1]['offset']}: the head moves")
    assert records[0]["head_motion"] < 3 < 4.5 < records[1]["head_motion"]
    said = ["the head moves" in " ".join(text.get_text() for text in figures[record["picture"]].texts) for record in records]
    assert said == [False, True]
    (axes,) = figures[records[0]["search_picture"]].axes
    hatched = [(patch.get_x(), patch.get_hatch()) for patch in axes.patches]
    assert hatched == [(records[0]["onset"], None), (records[1]["onset"], "///")]
    assert "but the head moves" in "".join(axes.get_legend_handles_labels()[1])


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"device": "gpu"}, "device 'gpu' is unknown"), ({"fps": -5}, "fps -5 is not"), ({"fps": float("nan")}, "fps nan is not")],
)
def test_a_wrong_setting_in_python_is_named(tmp_path, saved, setting, said):
    with pytest.raises(MerbaError, match=said):
        predict(tmp_path, saved, **setting)
