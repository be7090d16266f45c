"""Contact sheets: what was found in every clip, for any channels, and what should be checked."""

import cv2
import numpy as np
import pytest
from face_clips import clip_of, rows_of

from merba.figures import flow_colours
from merba.jobs import samples_figure
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import FaceSettings, faces_of_subject
from merba.preprocessing.figures import COLUMNS, GAP, HEAD, SIDE, TEXT, Tile, clip_tile, plot_contact_sheet
from merba.preprocessing.flow import flow_format, flow_of_clips, flow_of_subject, flow_shape
from merba.preprocessing.packs import save_subject
from merba.sheet import KEY, plain_rows


@pytest.mark.parametrize(("direction", "channel"), [((1, 0), 0), ((-0.5, 0.866), 1), ((-0.5, -0.866), 2)])
def test_a_direction_has_one_hue_and_no_motion_is_white(direction, channel):
    """Right is red, and the hue turns clockwise, as the picture's y axis does: a third of a turn to green."""
    colours = flow_colours(np.array(direction)[:, None, None] * np.array([0, 2.0]), 2.0)
    assert colours[0, 0].tolist() == [255, 255, 255]
    assert colours[0, 1].argmax() == channel
    assert sorted(colours[0, 1])[1] < 5


SETTINGS = {"landmark_frames": 1}


@pytest.fixture(scope="module")
def clips(tmp_path_factory, photograph):
    """Rows of a good clip (its face moves by 2 px) and of one with a damaged apex frame; their faces and apexes."""
    folder = tmp_path_factory.mktemp("clips")
    moved = cv2.warpAffine(photograph, np.float32([[1, 0, 2], [0, 1, 0]]), (512, 512))
    rows = rows_of(*(clip_of(folder / name, [photograph, photograph, moved], apex=3) for name in ("$g_ood$", "bad")))
    rows["label"] = "surprise"
    (folder / "bad" / "img3.png").write_bytes(b"")
    faces = faces_of_subject(rows, SETTINGS)
    return rows, faces, apexes_of_subject(rows, faces, {}, SETTINGS)


def tiles_of(clips, channels=("u", "v"), **found):
    """The clips' tiles; `found` changes values of the first clip's face."""
    rows, faces, apexes = clips
    flow, table = flow_of_subject(rows, faces, apexes, {"channels": channels}, SETTINGS)
    records = faces.to_dict("records")
    records[0] |= found
    problems = table["problem"].fillna("")
    parts = zip(rows.itertuples(), records, apexes.to_dict("records"), flow, table["head_motion"], problems, strict=True)
    return [
        clip_tile(
            row,
            face,
            apex,
            dict(zip(channels, values, strict=True)),
            moved,
            problem,
            FaceSettings.of(SETTINGS),
            limit=0.01,
        )
        for row, face, apex, values, moved, problem in parts
    ]


def test_a_tile_shows_face_difference_and_flow_or_the_problem(clips, photograph):
    good, bad = tiles_of(clips)
    assert good.name == "s  $g_ood$  surprise"
    assert good.about.startswith("apex 3 annotated, ×")
    assert good.pictures.shape == (SIDE, 3 * SIDE, 3)
    face, difference, flow = np.split(good.pictures, 3, axis=1)
    aligned = cv2.warpAffine(photograph[:, :, ::-1], clips[1]["transform"][0].reshape(2, 3) / 2, (SIDE, SIDE))
    assert np.median(np.abs(face.astype(int) - aligned)) < 8
    assert np.median(difference) == pytest.approx(128, abs=10)
    assert difference.std() > 20
    middle = flow[30:80, 30:80].mean((0, 1))
    assert middle[0] > middle[1] + 50 and middle[0] > middle[2] + 50, "everything moves to the right, which is red"
    assert bad.pictures is None
    assert "img3.png is damaged" in bad.warning


@pytest.mark.parametrize(("channels", "said"), [(["strain", "v", "u"], "flow 3."), (["strain"], "strain 0."), (["v"], "v 0.")])
def test_any_channels_are_shown(clips, channels, said):
    good, _ = tiles_of(clips, channels)
    assert f", {said}" in good.about
    assert good.pictures[:, 2 * SIDE :].std() > 1


def test_what_somebody_should_look_at_is_said(clips):
    good, _ = tiles_of(clips, faces=2, choice="largest", backend="dlib_cnn", turn=90)
    face = "of 2 faces, the largest one; face found by dlib_cnn; turned by 90° anticlockwise"
    assert good.warning.startswith(f"{face}; the head moves 3.")


def test_names_are_drawn_as_they_are_and_warned_clips_are_framed(monkeypatch, tmp_path):
    from matplotlib import pyplot

    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    grey = np.full((SIDE, 3 * SIDE, 3), 128, np.uint8)
    tiles = [Tile(r"a $x_1$ \alpha", grey, "about", "")] * COLUMNS + [
        Tile("b" * 90, grey, "about", "look"),
        Tile("c", None, "", "gone"),
    ]
    plot_contact_sheet(tiles, title="d_1", path=tmp_path / "page.jpg")
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    assert texts.count(r"a $x_1$ \alpha") == COLUMNS
    assert "b" * 51 + "…" in texts
    assert {"look", "gone", "d_1"} <= set(texts)
    page = cv2.imread(str(tmp_path / "page.jpg")).astype(int)
    assert page.shape[:2] == (HEAD + 2 * (SIDE + TEXT + GAP), GAP + COLUMNS * (3 * SIDE + GAP))
    orange = (abs(page - [0, 94, 213]).sum(-1) < 120).sum(1) > 2 * SIDE  # rows of pixels with an edge of a frame
    assert not orange[: HEAD + SIDE].any()
    assert orange[HEAD + SIDE :].any()


def test_a_page_is_drawn_from_the_files_of_its_subjects_whose_other_clips_it_leaves_out(monkeypatch, tmp_path, clips):
    rows, faces, apexes = clips
    files = {"faces": tmp_path / "faces.parquet", "apexes": tmp_path / "apexes.parquet", "flow": tmp_path / "flow.npz"}
    faces.to_parquet(files["faces"])
    apexes.to_parquet(files["apexes"])
    flows = flow_of_clips(rows, faces, apexes, {}, SETTINGS)
    save_subject(files["flow"], rows, flows, flow_shape(rows, {}, SETTINGS), flow_format(rows, {}))
    drawn = []
    monkeypatch.setattr(samples_figure, "plot_contact_sheet", lambda tiles, **page: drawn.append((list(tiles), page)))
    plain = plain_rows(rows, [*KEY, "source", "kind", "bits", "label"])
    for part in (plain, plain[:1]):
        paths = {name: [str(path)] for name, path in files.items()}
        samples_figure.run(part, "title", SETTINGS, 0.01, **paths, output=str(tmp_path / "page.jpg"), log=str(tmp_path / "log"))
    both = tiles_of(clips)
    for (tiles, page), expected in zip(drawn, (both, both[:1]), strict=True):
        assert [(tile.name, tile.about, tile.warning) for tile in tiles] == [(x.name, x.about, x.warning) for x in expected]
        assert (tiles[0].pictures == expected[0].pictures).all()
        assert page["title"] == "title"
