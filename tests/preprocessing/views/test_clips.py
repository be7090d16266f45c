"""Views of a rendered clip: what is kept of which frames, and problems."""

import cv2
import numpy as np
import pytest

from merba.errors import MerbaError
from merba.frames import open_clip
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import FaceSettings, aligned_grey, faces_of_subject
from merba.preprocessing.flow import flow_of_clips
from merba.preprocessing.packs import flows_of, pack, save_subject
from merba.preprocessing.views.clips import shown_view, view_format, views_of_clips
from merba.preprocessing.views.figures import plot_view
from merba.preprocessing.views.selection import tim_matrix
from merba.preprocessing.views.settings import ViewSettings

FACES = {"size": 96}
TIM = ViewSettings("tim", "tim", 6, 64, "grey")
KEY = ViewSettings("key", "key", 8, 96, "grey")
LONG = ViewSettings("long", "around_apex", 5, 96, "flow")
APEX = ViewSettings("apex", "apex", 1, 48, "grey_flow")


@pytest.fixture(scope="module")
def stages(samm_clips):
    """Rows of a subject, and its faces and apexes."""
    faces = faces_of_subject(samm_clips, FACES)
    return samm_clips, faces, apexes_of_subject(samm_clips, faces, {}, FACES)


def made(stages, view):
    return list(views_of_clips(*stages, view, FACES, flow_settings={}))


def greys(stages, clip=0):
    """The aligned grey faces of a clip, by frame number, read in the simplest way."""
    rows, faces, apexes = stages
    row, transform = rows.iloc[clip], np.reshape(faces["transform"].iloc[clip], (2, 3))
    frames = open_clip(row["source"], row["kind"]).frames(int(row["onset"]), int(row["offset"]))
    return {n: aligned_grey(image, transform, FaceSettings.of({"size": 96})) for n, image in frames}, apexes.iloc[clip]


@pytest.mark.parametrize("view", [TIM, KEY, LONG, APEX], ids=lambda view: view.name)
def test_every_clip_has_a_view_of_the_shape_that_the_settings_say(stages, view):
    clips = made(stages, view)
    assert [clip.problem for clip in clips] == [None] * 3
    assert {clip.flow.shape for clip in clips} == {view.shape}
    assert {clip.flow.dtype for clip in clips} == {np.dtype(np.float16)}
    assert all((clip.points > 0).all() and (clip.points < view.size).all() for clip in clips)


def test_key_frames_are_the_aligned_grey_faces_with_the_apex_in_the_middle(stages):
    clip = made(stages, KEY)[0].flow
    frames, apex = greys(stages)
    assert (clip[0, 0] == frames[apex["onset"]]).all()
    assert (clip[4, 0] == frames[apex["apex"]]).all()
    assert (clip[7, 0] == frames[apex["offset"]]).all()


def test_a_whole_clip_in_six_frames_is_its_frames_interpolated_at_another_size(stages):
    view = ViewSettings("same", "tim", 6, 96, "grey")
    clip = made(stages, view)[0].flow[:, 0].astype(float)
    frames = np.stack(list(greys(stages)[0].values())).astype(float)
    assert np.abs(clip - np.tensordot(tim_matrix(len(frames), 6), frames, 1).clip(0, 255)).max() <= 0.5
    smaller = made(stages, TIM)[0].flow[0, 0].astype(np.float32)
    shrunk = cv2.resize(frames[0].astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(smaller - shrunk).mean() < 3
    assert np.abs(smaller[:, 1:] - shrunk[:, :-1]).mean() > 1.5 * np.abs(smaller - shrunk).mean(), "not shifted"


def test_long_term_flow_goes_from_the_onset_to_each_frame(stages):
    clip = made(stages, LONG)[0].flow
    frames, apex = greys(stages)
    numbers = sorted(frames)
    middle = numbers.index(apex["apex"])
    for flow, number in zip(clip, numbers[middle - 2 : middle + 3], strict=True):
        expected = cv2.calcOpticalFlowFarneback(frames[apex["onset"]], frames[number], None, 0.5, 3, 15, 3, 5, 1.2, 0)
        assert np.abs(flow - expected.transpose(2, 0, 1)).max() < 0.01


def test_the_apex_frame_stands_beside_its_flow(stages):
    rows, faces, apexes = stages
    view = ViewSettings("same", "apex", 1, 96, "grey_flow")
    (frame,) = made(stages, view)[0].flow
    assert (frame[0] == greys(stages)[0][apexes["apex"].iloc[0]]).all()
    expected = next(flow_of_clips(rows, faces, apexes, {}, FACES)).flow
    assert np.abs(frame[1:] - expected).max() < 0.01


def test_tokens_are_what_an_encoder_makes_of_the_flow(stages):
    view = ViewSettings("tokens", "around_apex", 5, 96, "tokens", "unread.safetensors")
    assert shown_view(view) == ViewSettings("tokens", "around_apex", 5, 96, "flow")
    assert shown_view(KEY) is KEY


def test_problems_of_faces_frames_and_apexes_are_named_and_the_other_clips_go_on(stages, caplog):
    rows, faces, apexes = (table.copy() for table in stages)
    faces.loc[0, "problem"] = "no face was found"
    faces.at[0, "transform"] = None
    apexes.loc[1, "offset"] = 10**6
    for view in (TIM, KEY, LONG, APEX):
        clips = made((rows, faces, apexes), view)
        assert clips[0].problem == "no face was found"
        assert (clips[0].flow == 0).all() and clips[0].flow.shape == view.shape
        assert clips[2].problem is None
    assert "frame 1000000 is missing" in caplog.text


@pytest.mark.parametrize("view", [KEY, LONG, APEX], ids=lambda view: view.name)
def test_a_clip_without_its_apex_is_a_problem_and_not_the_frame_beside_it(stages, view):
    rows, faces, apexes = (table.copy() for table in stages)
    apexes.loc[0, ["apex", "offset"]] = [10**6, None]
    problems = [clip.problem for clip in made((rows, faces, apexes), view)]
    assert "frame 1000000 is missing" in problems[0] and problems[1:] == [None, None]


def test_a_clip_without_an_offset_ends_with_its_last_frame(stages):
    rows, faces, apexes = (table.copy() for table in stages)
    apexes.loc[0, "offset"] = None
    last = max(open_clip(rows["source"].iloc[0], "frames").numbers)
    apexes.loc[1, "offset"] = max(open_clip(rows["source"].iloc[1], "frames").numbers)
    clips = made((rows, faces, apexes), KEY)
    assert clips[0].problem is None
    row = rows.iloc[0]
    image = open_clip(row["source"], "frames").read(last)
    expected = aligned_grey(image, np.reshape(faces["transform"].iloc[0], (2, 3)), FaceSettings.of({"size": 96}))
    assert (clips[0].flow[-1, 0] == expected).all()


def test_a_view_is_packed_as_flow_is(stages, tmp_path):
    rows = stages[0]
    save_subject(tmp_path / "s.npz", rows, made(stages, KEY), KEY.shape, view_format(KEY))
    index = pack([tmp_path / "s.npz"], tmp_path / "d.npy", tmp_path / "d.parquet")
    assert index.attrs == {"channels": ["grey"], "unit": "grey"}
    packed = np.load(tmp_path / "d.npy")
    assert packed.shape == (3, 8, 1, 96, 96)
    assert (packed == np.stack(list(flows_of(tmp_path / "s.npz")))).all()


@pytest.mark.parametrize("view", [TIM, LONG, APEX], ids=lambda view: view.name)
def test_a_figure_shows_a_views_frames(stages, view, tmp_path):
    rows = stages[0].assign(label="positive")
    clips = made(stages, view)
    plot_view(rows, [clips[0], clips[1], clips[2]._replace(problem="no face was found")], view, tmp_path / "v.png")
    image = cv2.imread(str(tmp_path / "v.png"))
    assert image.shape[0] > 200 and image.std() > 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("v", "apex", 2, 64, "grey"), "views.v: `frames: apex` with length 2"),
        (("v", "tim", 1, 64, "grey"), "views.v: `frames: tim` with length 1"),
        (("v", "key", 2, 64, "grey"), "views.v.length is 2; key frames must be at least 3"),
        (("v", "key", 4, 64, "grey_flow"), "views.v: `keep: grey_flow` is flow from onset to apex; set `frames: apex`"),
        (("v", "key", 4, 64, "grey", "vit.safetensors"), "views.v.pretrained is the encoder of tokens, but the view keeps grey"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(MerbaError) as error:
        ViewSettings(*settings)
    assert message in str(error.value)


def test_a_model_of_another_input_is_refused():
    KEY.check_model("meplan", (8, 1, 96, 96))
    with pytest.raises(MerbaError, match="meplan takes inputs of 16×1×112×112, the view key gives 8×1×96×96: name another view"):
        KEY.check_model("meplan", (16, 1, 112, 112))


def test_tokens_without_a_file_of_weights_are_refused(tmp_path):
    def shape(path):
        return ViewSettings("v", "around_apex", 5, 64, "tokens", path).shape

    with pytest.raises(MerbaError, match="views.v.pretrained: there is no file 'absent' of the encoder's weights"):
        shape("absent")
    (tmp_path / "vit.safetensors").write_bytes(b"nothing")
    with pytest.raises(MerbaError, match="is not a .safetensors file of a ViT with timm's names"):
        shape(str(tmp_path / "vit.safetensors"))
