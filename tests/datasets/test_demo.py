"""The embedded demo: what it plans, what it renders, and whether its truth is right."""

import hashlib
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from merba.datasets.cells import read_sheets
from merba.datasets.demo.face import CROP_WIDTHS, LANDMARKS, MOVEMENTS, field, region_bumps
from merba.datasets.demo.layouts import EMOTIONS, LAYOUTS, ClipPlan
from merba.datasets.demo.planning import DemoSettings, clip_plans, plan
from merba.datasets.demo.rendering import ALIGNED_SIZE, clip_motion, render, rest_face, rise, true_displacement
from merba.errors import MerbaError
from merba.frames import open_clip

MICRO = {"subjects": 2, "clips": 3, "size": 0.5}


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The micro-demo, rendered: its root folder."""
    root = tmp_path_factory.mktemp("demo")
    for dataset in ("smic_hs", "casme2", "samm"):
        render(MICRO, dataset, root)
    return root


@pytest.fixture(scope="session")
def clips(demo):
    """Every rendered clip: its sheet row, opened frames and truth."""
    rows = plan(MICRO, demo).to_dict("records")
    return [
        (row, open_clip(row["source"], "frames"), np.load(demo / row["dataset"] / "truth" / f"{row['clip']}.npz")) for row in rows
    ]


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(f.relative_to(folder)).encode() + f.read_bytes() for f in files)).hexdigest()


def all_plans(**settings):
    made = DemoSettings.of(settings)
    return [(dataset, clip) for dataset in made.datasets for clip in clip_plans(made, dataset)]


# ---- the plan


def test_the_default_plan_has_three_datasets_of_three_subjects_with_two_clips_a_class(tmp_path):
    sheet = plan({}, tmp_path / "demo")
    assert set(sheet.groupby(["dataset", "subject", "label"]).size()) == {2}
    assert sheet.groupby("dataset")["subject"].nunique().to_dict() == {"smic_hs": 3, "casme2": 3, "samm": 3}
    assert not (tmp_path / "demo").exists()


def test_every_planned_clip_has_twenty_frames_and_its_apex_in_the_middle_three_fifths():
    for seed in range(20):
        for _, clip in all_plans(seed=seed, datasets=[*LAYOUTS]):
            assert len(clip.numbers) >= 20
            assert clip.first <= clip.onset < clip.apex < clip.offset <= clip.last
            assert 0.2 <= (clip.apex - clip.first) / (clip.last - clip.first) <= 0.8
            assert 0.2 <= (clip.apex - clip.onset) / (clip.offset - clip.onset) <= 0.8


def test_guessing_the_middle_frame_misses_most_apexes():
    hits = [abs(clip.apex - (clip.first + clip.last) / 2) <= 2 for _, clip in all_plans()]
    assert np.mean(hits) < 0.6


def test_smic_hs_has_no_apex_and_casme2_lacks_some_in_the_sheet(tmp_path):
    sheet = plan({}, tmp_path)
    lacking = sheet["apex"].isna().groupby(sheet["dataset"]).mean()
    assert lacking["smic_hs"] == 1
    assert 0 < lacking["casme2"] < 0.5
    assert lacking["samm"] == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"frames": 5}, "frames: 5 is less than 20"), ({"datasets": ["casme"]}, "'casme' is unknown .did you mean 'casme2'")],
)
def test_settings_that_cannot_be_rendered_are_named(settings, said, tmp_path):
    with pytest.raises(MerbaError, match=said):
        plan(settings, tmp_path)


# ---- the files


def test_the_photograph_is_installed_and_not_downloaded():
    assert (Path(skimage.data.__file__).parent / "astronaut.png").is_file()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(tmp_path):
    settings = {"subjects": 1, "clips": 1, "size": 0.15}
    for dataset in LAYOUTS:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            render({**settings, "seed": seed}, dataset, tmp_path / name)
        first, again, other = (digest(tmp_path / name / dataset) for name in "abc")
        assert first == again != other


def test_workbooks_hold_no_time_of_day(demo):
    for path in demo.rglob("*.xlsx"):
        with zipfile.ZipFile(path) as workbook:
            assert {entry.date_time for entry in workbook.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            core = workbook.read("docProps/core.xml")
            assert set(re.findall(rb"\d{4}-\d\d-\d\dT[\d:]+", core)) == {b"1980-01-01T00:00:00"}


def test_a_dataset_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("merba.datasets.demo.rendering.true_displacement", fail)
    with pytest.raises(OSError, match="disk full"):
        render({"size": 0.1}, "samm", tmp_path)
    assert not (tmp_path / "samm").exists()
    monkeypatch.undo()
    render({"size": 0.1, "subjects": 1, "clips": 1}, "samm", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["samm"]


def test_annotation_tables_have_the_quirks_of_their_releases(demo):
    casme2 = demo / "casme2" / "CASME2-coding-20140508.xlsx"
    cells = read_sheets(".xlsx", casme2.read_bytes())[0].cells
    assert cells[0] == [
        *("Subject", "Filename", "", "OnsetFrame", "ApexFrame", "OffsetFrame", "", "Action Units", "Estimated Emotion")
    ]
    assert "/" in [row[4] for row in cells]
    samm = demo / "samm" / "SAMM_Micro_FACS_Codes_v2.xlsx"
    cells = read_sheets(".xlsx", samm.read_bytes())[0].cells
    assert [row[0] for row in cells].index("Subject") == 13
    assert {row[0] for row in cells[14:]} == {"6", "7"}
    assert not list((demo / "smic_hs").glob("*.*"))


def test_frames_have_the_names_and_colours_of_their_releases(clips):
    for row, clip, _ in clips:
        paths = sorted(Path(row["source"]).iterdir())
        image = cv2.imread(str(paths[0]), cv2.IMREAD_UNCHANGED)
        assert image.ndim == (2 if row["dataset"] == "samm" else 3)
        assert paths[0].suffix == {"smic_hs": ".bmp"}.get(row["dataset"], ".jpg")
        assert clip.numbers[0] > 1
    assert any(len(str(clip.numbers[0])) < len(str(clip.numbers[-1])) for _, clip, _ in clips)


# ---- the truth


def grey(image):
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)


def in_face(truth):
    """Whether each pixel is in the convex hull of the landmarks."""
    mask = np.zeros(truth["displacement"].shape[1:], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(truth["landmarks"]).astype(np.int32), 1)
    return mask.astype(bool)


def local_motion(truth):
    """The true displacement without the drift, in pixels of the aligned face (2, H, W)."""
    aligned_px = CROP_WIDTHS * np.ptp(truth["landmarks"][:, 0]) / 224
    return (truth["displacement"].astype(np.float32) - truth["drift"][:, None, None]) / aligned_px


def test_the_apex_frame_taken_back_by_the_true_displacement_is_the_onset_frame(clips):
    for _, clip, truth in clips:
        onset, apex = (grey(clip.read(int(truth[name]))) for name in ("onset", "apex"))
        y, x = np.mgrid[: onset.shape[0], : onset.shape[1]].astype(np.float32)
        u, v = truth["displacement"].astype(np.float32)
        face = in_face(truth)
        apart = (apex - onset)[face].std()
        left = (cv2.remap(apex, x + u, y + v, cv2.INTER_CUBIC) - onset)[face].std()
        noise = np.sqrt(2) * 2.9  # of two frames, with JPEG's part
        assert left < 1.1 * noise < apart


def test_movements_peak_between_one_and_two_aligned_pixels(clips):
    peaks = [float(np.hypot(*local_motion(truth)).max()) for _, _, truth in clips]
    assert 1 <= min(peaks) <= max(peaks) <= 2


def test_the_drift_is_what_moves_far_from_the_face(clips):
    for _, _, truth in clips:
        corner = truth["displacement"][:, 0, 0].astype(np.float32)
        np.testing.assert_allclose(corner, truth["drift"], atol=2e-3)
        assert np.hypot(*truth["drift"]) < 6


@pytest.mark.parametrize(
    ("label", "landmarks", "direction"),
    [
        ("surprise", [19, 24, 37, 44], (0, -1)),  # brows and upper lids up
        ("positive", [48], (-1, -1)),  # the right lip corner, at the left of the picture, outward and up
        ("positive", [54], (1, -1)),
        ("negative", [20, 23, 48, 54], (0, 1)),  # brows and lip corners down
    ],
)
def test_each_class_moves_its_landmarks_its_own_way(clips, label, landmarks, direction):
    truths = [truth for row, _, truth in clips if row["label"] == label]
    assert len(truths) == 6
    for truth in truths:
        motion = local_motion(truth)
        for x, y in truth["landmarks"][landmarks].round().astype(int):
            for component, sign in zip(motion[:, y, x], direction, strict=True):
                assert sign == 0 or sign * component > 0.2


def test_surprise_opens_the_eyes(clips):
    for row, _, truth in clips:
        if row["label"] == "surprise":
            v = local_motion(truth)[1]
            upper, lower = (truth["landmarks"][at].mean(0).round().astype(int) for at in ([37, 38], [40, 41]))
            assert v[lower[1], lower[0]] - v[upper[1], upper[0]] > 0.4


def test_every_movement_of_the_seven_is_another(clips):
    fields = []
    for emotion in EMOTIONS:
        bumps = region_bumps(MOVEMENTS[emotion], LANDMARKS, 10)
        shape = field(bumps, np.arange(140, 320)[None], np.arange(50, 220)[:, None])
        fields.append((shape / np.linalg.norm(shape)).ravel())
    similarity = np.array(fields) @ np.array(fields).T
    assert similarity[~np.eye(7, dtype=bool)].max() < 0.75


def test_frames_rise_from_onset_to_apex_and_fall_to_the_offset():
    for _, clip in all_plans():
        size = rise(clip)
        at = clip.apex - clip.first
        assert size[at] == 1
        assert (np.diff(size)[:at] >= 0).all()
        assert (np.diff(size)[at:] <= 0).all()
        assert size[clip.onset - clip.first] == size[clip.offset - clip.first] == size[0] == size[-1] == 0


def test_the_rendered_frames_move_most_at_the_apex(clips):
    """How much of the true movement each frame shows, fitted together with the drift, follows the planned rise."""
    for row, clip, truth in clips:
        made = DemoSettings.of(MICRO)
        index = next(i for i, c in enumerate(clip_plans(made, row["dataset"])) if c.clip == row["clip"])
        size = rise(clip_plans(made, row["dataset"])[index])
        motion = local_motion(truth)
        onset = grey(clip.read(int(truth["onset"])))
        gradient = np.stack(np.gradient(cv2.GaussianBlur(onset, (0, 0), 1.5))[::-1])
        # Brightness constancy: a frame differs from the onset by −(motion + drift)·gradient; by least squares.
        basis = [-(motion * gradient).sum(0), -gradient[0], -gradient[1]]
        face = in_face(truth)
        design = np.stack([part[face] for part in basis], axis=1)
        found = []
        for number in clip.numbers:
            change = (cv2.GaussianBlur(grey(clip.read(number)) - onset, (0, 0), 1.5))[face]
            found.append(np.linalg.lstsq(design, change, rcond=None)[0][0])
        assert np.corrcoef(found, size)[0, 1] > 0.95


def test_noise_is_at_least_two_grey_levels_and_new_in_each_frame(clips):
    for _, clip, _ in clips:
        first, second, third = (grey(clip.read(n)) for n in clip.numbers[:3])
        background = np.s_[8:24, 8:40]  # smooth, so that drift changes it little
        one, two = (second - first)[background], (third - second)[background]
        assert one.std() / np.sqrt(2) > 2
        # Differences that share a frame of independent noise correlate at −1/2.
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] == pytest.approx(-0.5, abs=0.2)


def test_subjects_have_faces_of_their_own():
    made = DemoSettings.of({"size": 0.25})
    shapes = []
    for dataset in made.datasets:
        for subject in range(3):
            landmarks = rest_face(made, dataset, subject).landmarks
            landmarks = landmarks - landmarks.mean(0)
            shapes.append(landmarks / np.linalg.norm(landmarks))
    apart = [np.linalg.norm(a - b) for i, a in enumerate(shapes) for b in shapes[:i]]
    assert min(apart) > 0.02


def test_the_landmarks_of_a_rest_face_are_where_the_photographs_are():
    """The picture around a landmark is that around the photograph's: compared at the eyes, after scaling."""
    made = DemoSettings.of({})
    rest = rest_face(made, "casme2", 0)
    scale = np.ptp(rest.landmarks[:, 0]) / np.ptp(LANDMARKS[:, 0])
    photograph = grey(cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR))
    large = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    image = cv2.cvtColor(rest.image, cv2.COLOR_BGR2GRAY)
    for eye in (range(36, 42), range(42, 48)):
        there = rest.landmarks[list(eye)].mean(0).round().astype(int)
        template = cv2.getRectSubPix(large, (41, 31), tuple(LANDMARKS[list(eye)].mean(0) * scale))
        around = image[there[1] - 30 : there[1] + 31, there[0] - 40 : there[0] + 41]
        match = cv2.matchTemplate(around, template, cv2.TM_CCOEFF_NORMED)
        place = np.unravel_index(match.argmax(), match.shape)
        assert match.max() > 0.8
        assert np.hypot(place[0] - 15, place[1] - 20) < 5


def test_the_displacement_of_a_movement_solves_its_equation():
    x, y = np.arange(60)[None], np.arange(50)[:, None]
    movement = field(region_bumps({"lip corner": (2, -3)}, LANDMARKS * 0.2 + (-15, -2), 6), x, y).astype(np.float32)
    drift = np.array([1.5, -0.5])
    u, v = true_displacement(movement, drift)
    exact = field(region_bumps({"lip corner": (2, -3)}, LANDMARKS * 0.2 + (-15, -2), 6), x + u, y + v)
    np.testing.assert_allclose(np.stack([u, v]), exact + drift[:, None, None], atol=0.05)


# ---- how hard the clips are


def motions(**settings):
    """Every clip of two small subjects: its plan, face at rest and motion."""
    made = DemoSettings.of({"subjects": 1, "clips": 9, "size": 0.2, **settings})
    rests = {dataset: rest_face(made, dataset, 0) for dataset in ("casme2", "samm")}
    return [
        (clip, rest, clip_motion(made, dataset, clip, rest))
        for dataset, rest in rests.items()
        for clip in clip_plans(made, dataset)
    ]


def aligned_px(rest):
    """Pixels of the frame in one of the aligned face."""
    return CROP_WIDTHS * rest.width / ALIGNED_SIZE


def test_movements_and_drifts_are_as_large_as_the_settings_say():
    peaks, drifts = [], []
    for clip, rest, motion in motions(movement=[0.4, 0.6], head=3):
        peaks.append(np.hypot(*motion.movement).max() / aligned_px(rest))
        drifts.append(np.abs(motion.drift[clip.apex - clip.first]).max() / aligned_px(rest))
    assert 0.4 <= min(peaks) < 0.45 < 0.55 < max(peaks) <= 0.601
    assert 1.2 < max(drifts) < 4


def test_the_noise_of_a_frame_is_as_strong_as_the_settings_say(tmp_path):
    settings = {"subjects": 1, "clips": 1, "datasets": ["smic_hs"], "size": 0.2, "movement": [0, 0], "head": 0, "noise": 6}
    render(settings, "smic_hs", tmp_path)
    (row,) = plan(settings, tmp_path).itertuples()
    first, second = (grey(open_clip(row.source, "frames").read(number)) for number in (row.onset, row.onset + 1))
    dark = (first > 30) & (first < 225)  # where noise isn't clipped
    assert (second - first)[dark].std() == pytest.approx(6 * np.sqrt(2), rel=0.03)


def test_a_mixed_clip_moves_as_its_class_and_less_as_one_other():
    for clip, rest, motion in motions(mixed=1):
        shape = motion.movement.shape[1:]
        x, y = np.arange(shape[1])[None], np.arange(shape[0])[:, None]
        labels = ["negative", "positive", "surprise"]
        fields = [field(region_bumps(MOVEMENTS[label], rest.landmarks, 0.11 * rest.width), x, y).ravel() for label in labels]
        sizes = dict(zip(labels, np.linalg.lstsq(np.array(fields).T, motion.movement.ravel(), rcond=None)[0], strict=True))
        own = sizes.pop(clip.label)
        none, other = sorted(size / own for size in sizes.values())
        assert abs(none) < 0.1
        assert 0.4 < other < 1.1  # 0.5 to 1, and the asymmetry


def test_a_share_of_the_clips_is_mixed_and_mixing_changes_nothing_else():
    changed = []
    for (_, _, before), (_, _, after) in zip(motions(), motions(mixed=0.5), strict=True):
        changed.append(not np.array_equal(before.movement, after.movement))
        np.testing.assert_array_equal(before.drift, after.drift)
        assert np.hypot(*after.movement).max() == pytest.approx(np.hypot(*before.movement).max(), rel=1e-5)
    assert 0.25 < np.mean(changed) < 0.75


def test_a_field_is_the_sum_of_its_bumps():
    bumps = region_bumps({"chin": (0, 2)}, LANDMARKS, 5)
    centre = LANDMARKS[[7, 8]].mean(0)
    at_centre = field(bumps, centre[:1], centre[1:])[:, 0]
    other = LANDMARKS[[8, 9]].mean(0)
    expected = 2 * (1 + np.exp(-0.5 * ((centre - other) ** 2).sum() / 25))
    assert np.hypot(*at_centre) == pytest.approx(expected)


def test_a_clip_plan_lists_its_frames():
    clip = ClipPlan(0, 0, "s01", "c", "positive", "happiness", "all", Path("c"), 98, 98, 99, 101, 101, True)
    assert list(clip.numbers) == [98, 99, 100, 101]
