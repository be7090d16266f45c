"""The samples figure: it shows what was found, whatever the channels, and the problem of a clip that can't be used."""

import cv2
import numpy as np
import pytest
from face_clips import clip_of, rows_of

from merba.figures import flow_colours
from merba.preprocessing.apex import apexes_of_subject
from merba.preprocessing.faces import faces_of_subject
from merba.preprocessing.figures import plot_samples
from merba.preprocessing.flow import flow_of_subject


@pytest.mark.parametrize(("direction", "channel"), [((1, 0), 0), ((-0.5, 0.866), 1), ((-0.5, -0.866), 2)])
def test_a_direction_has_one_hue_and_no_motion_is_white(direction, channel):
    """Right is red, and the hue turns clockwise, as the picture's y axis does: a third of a turn to green."""
    colours = flow_colours(np.array(direction)[:, None, None] * np.array([0, 2.0]), 2.0)
    assert colours[0, 0].tolist() == [255, 255, 255]
    assert colours[0, 1].argmax() == channel
    assert sorted(colours[0, 1])[1] < 5


@pytest.fixture
def shown(monkeypatch, tmp_path, photograph):
    """Draws the figure of a good clip and of one whose apex frame is damaged; its axes, two rows of five."""
    from matplotlib import pyplot

    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    moved = cv2.warpAffine(photograph, np.float32([[1, 0, 2], [0, 1, 0]]), (512, 512))
    rows = rows_of(*(clip_of(tmp_path / name, [photograph, photograph, moved], apex=3) for name in ("good", "bad")))
    rows["label"] = "surprise"
    (tmp_path / "bad" / "img3.png").write_bytes(b"")
    settings = {"interpolation": "linear", "landmark_frames": 1}
    faces = faces_of_subject(rows, settings)
    apexes = apexes_of_subject(rows, faces, {}, settings)

    def draw(channels):
        flow, clips = flow_of_subject(rows, faces, apexes, {"channels": channels}, settings)
        found = {"flow": flow, "head_motion": clips["head_motion"], "problem": clips["problem"].fillna("")}
        found["channels"] = channels
        plot_samples(rows, faces, apexes, found, face_settings=settings, unit="px", path=tmp_path / "figure.png")
        return figures[0].axes[:10]

    return draw


@pytest.mark.parametrize(
    ("channels", "said"), [(["strain", "v", "u"], "full colour: 3."), (["strain"], "strain: 0."), (["v"], "v: 0.")]
)
def test_any_channels_are_shown_and_a_problem_says_its_reason(shown, channels, said):
    axes = shown(channels)
    assert axes[3].get_xlabel().startswith(said)
    assert "head moved 3." in axes[3].get_xlabel()
    assert bool(axes[3].child_axes) == (len(channels) == 3), "the wheel explains colours of u and v"
    assert "img3.png is damaged" in axes[5].texts[0].get_text()
