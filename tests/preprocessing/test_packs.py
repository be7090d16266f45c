"""Packs: they give back what was packed, without clips with problems; and mirrored flow is that of mirrored frames."""

import numpy as np
import pandas as pd
import pytest

from merba.errors import MerbaError
from merba.jobs.problems import run
from merba.preprocessing.packs import ClipFlow, FlowFormat, check_packed, load_packs, pack, preprocessing_summary, save_subject

PIXELS = FlowFormat(("u", "v"), "px")


def write_subject(folder, subject, problems, form=PIXELS, size=4):
    shape = (len(form.channels), size, size)
    flow = np.random.default_rng(len(subject)).normal(size=(len(problems), *shape)).astype(np.float16)
    clips = [
        ClipFlow(one, np.full((5, 2), place), 0.5 * place, problem)
        for place, (one, problem) in enumerate(zip(flow, problems, strict=True))
    ]
    rows = pd.DataFrame({"dataset": "d", "subject": subject, "clip": [f"c{i}" for i in range(len(problems))]})
    save_subject(folder / f"{subject}.npz", rows, clips, shape, form)
    return folder / f"{subject}.npz", flow


def test_a_pack_holds_the_usable_clips_in_order(tmp_path):
    (a, flow_a), (b, flow_b) = (
        write_subject(tmp_path, "a", [None, "no face"]),
        write_subject(tmp_path, "bb", [None, None]),
    )
    pack([a, b], tmp_path / "d.npy", tmp_path / "d.parquet")
    flow, clips, form = load_packs([(tmp_path / "d.npy", tmp_path / "d.parquet")])
    assert (flow == np.concatenate([flow_a[:1], flow_b])).all()
    assert clips[["subject", "clip"]].to_numpy().tolist() == [["a", "c0"], ["bb", "c0"], ["bb", "c1"]]
    assert form == PIXELS
    index = pd.read_parquet(tmp_path / "d.parquet")
    assert index["problem"].tolist()[1] == "no face"
    assert index["head_motion"].tolist() == [0, 0.5, 0, 0.5]
    assert np.stack(index["points"]).tolist() == [[0] * 10, [1] * 10, [0] * 10, [1] * 10]


def test_files_that_differ_are_not_packed_and_their_folder_is_named(tmp_path):
    (a, _), (b, _) = write_subject(tmp_path, "a", [None]), write_subject(tmp_path, "b", [None], size=5)
    with pytest.raises(MerbaError, match=rf"a.npz: \(2, 4, 4\); b.npz: \(2, 5, 5\).*delete {tmp_path} and run again"):
        pack([a, b], tmp_path / "d.npy", tmp_path / "d.parquet")


def test_a_subjects_file_is_an_ordinary_npz(tmp_path):
    path, flow = write_subject(tmp_path, "a", [None, "no face"])
    with np.load(path) as file:
        assert (file["flow"] == flow).all()
        assert file["problem"].tolist() == ["", "no face"]
        assert file["channels"].tolist() == ["u", "v"]


def test_the_summary_counts_problems_and_measures_head_motion_by_dataset(tmp_path):
    file, _ = write_subject(tmp_path, "a", [None, None, "no face"])
    clips = pack([file], tmp_path / "d.npy", tmp_path / "d.parquet").assign(warning=[None, "moves", None])
    (row,) = preprocessing_summary(clips).to_dict("records")
    assert (row["dataset"], row["subjects"], row["clips"], row["problems"], row["warnings"]) == ("d", 1, 3, 1, 1)
    assert (row["head_motion_median"], row["head_motion_largest"]) == (0.5, 1.0)


def test_a_head_that_moves_is_warned_of_by_clip_and_by_dataset_and_drops_nothing(tmp_path):
    (still, _), (moving, _) = write_subject(tmp_path, "a", [None] * 2), write_subject(tmp_path, "bb", [None] * 4)
    files = {name: str(tmp_path / f"{name}.csv") for name in ("problems", "warnings", "summary")}
    pack([still, moving], tmp_path / "d.npy", tmp_path / "d.parquet")
    run([str(tmp_path / "d.parquet")], 56, 0.02, **files, log=str(tmp_path / "log"))
    warnings = pd.read_csv(files["warnings"])
    assert warnings[["subject", "clip"]].to_numpy().tolist() == [["bb", "c3"]], "1.5 px of 56; 1 px is none"
    assert "the head moves 1.5 px" in warnings["warning"].item()
    assert pd.read_csv(files["problems"]).empty
    (row,) = pd.read_csv(files["summary"]).to_dict("records")
    assert (row["clips"], row["problems"], row["warnings"]) == (6, 0, 1)
    assert len(load_packs([(tmp_path / "d.npy", tmp_path / "d.parquet")])[1]) == 6


def test_two_packs_are_joined_row_by_row(tmp_path):
    pairs = []
    for name in ("a", "bb"):
        file, _ = write_subject(tmp_path, name, [None, None])
        pairs.append((tmp_path / f"{name}.npy", tmp_path / f"{name}.parquet"))
        pack([file], *pairs[-1])
    flow, clips, _ = load_packs(pairs)
    assert (flow[2:] == np.load(pairs[1][0])).all()
    assert clips["subject"].tolist() == ["a", "a", "bb", "bb"]


def test_a_pack_and_an_index_of_different_runs_are_refused(tmp_path):
    """As after copying half of them: clips would get other clips' labels."""
    file, _ = write_subject(tmp_path, "a", [None, None])
    pair = tmp_path / "d.npy", tmp_path / "d.parquet"
    pack([file], *pair)
    np.save(pair[0], np.zeros((3, 2, 4, 4), np.float16))
    with pytest.raises(MerbaError, match=r"d.npy holds the flow of 3 clips, its index .*d.parquet names 2.*copy both"):
        load_packs([pair])


def test_files_of_different_shape_are_refused(tmp_path):
    files = [write_subject(tmp_path, "a", [None])[0], write_subject(tmp_path, "bb", [None], size=5)[0]]
    with pytest.raises(MerbaError, match="differ"):
        pack(files, tmp_path / "d.npy", tmp_path / "d.parquet")
    assert not (tmp_path / "d.npy").exists()


def test_packs_of_different_format_are_refused(tmp_path):
    pairs = []
    for name, unit in (("a", "px"), ("bb", "image")):
        file, _ = write_subject(tmp_path, name, [None], FlowFormat(("u", "v"), unit))
        pairs.append((tmp_path / f"{name}.npy", tmp_path / f"{name}.parquet"))
        pack([file], *pairs[-1])
    with pytest.raises(MerbaError, match="the packs of one experiment differ"):
        load_packs(pairs)


@pytest.mark.parametrize(("unit", "u", "mirrored"), [("px", 3.0, -3.0), ("image", 200.0, 55.0)])
def test_a_mirror_negates_u_about_its_zero_and_keeps_the_rest(unit, u, mirrored):
    factor, offset = FlowFormat(("u", "v", "strain"), unit).mirror()
    values = np.array([u, 7.0, 9.0]).reshape(3, 1, 1)
    assert (values * factor + offset).ravel().tolist() == [mirrored, 7.0, 9.0]


def write_index(path, problems):
    """The index of a pack of clips c0, c1, … of the subject NA, each with its problem or None."""
    clips = {"dataset": "own", "subject": "NA", "clip": [f"c{i}" for i in range(len(problems))], "problem": problems}
    pd.DataFrame(clips).astype({"problem": "str"}).to_parquet(path)
    return path


def test_the_gate_lists_every_problem_or_drops_them(tmp_path):
    indexes = [write_index(tmp_path / "a.parquet", ["no face", None]), write_index(tmp_path / "b.parquet", [None, "damaged"])]
    with pytest.raises(MerbaError, match="(?s)2 clips can't be used.*own NA c0: no face.*own NA c1: damaged.*on_problem: drop"):
        check_packed(indexes, drop=False)
    check_packed(indexes, drop=True)


def test_the_gate_is_open_without_problems(tmp_path):
    check_packed([write_index(tmp_path / "a.parquet", [None, None])], drop=False)


def test_a_damaged_index_is_named(tmp_path):
    file, _ = write_subject(tmp_path, "a", [None])
    pair = tmp_path / "d.npy", tmp_path / "d.parquet"
    pack([file], *pair)
    pair[1].write_bytes(pair[1].read_bytes()[:100])
    with pytest.raises(MerbaError, match="d.parquet can't be read .*copy it again"):
        load_packs([pair])
