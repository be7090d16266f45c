"""Every figure shows the user's names as they are written, whatever matplotlib would make of `$`, `_`, `^` and `\\`."""

import warnings
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from merba.evaluation.figures import plot_confusion, plot_curves, plot_scores, plot_subjects
from merba.prediction.figures import plot_prediction, plot_search
from merba.prediction.predict import Prediction
from merba.prediction.spotting import Search, Window
from merba.preprocessing.figures import Tile, plot_contact_sheet


def contact_sheet(name, path):
    plot_contact_sheet([Tile(name, None, "", name)], title=name, path=path)
    return {name}


def prediction(name, path):
    clip = Prediction(
        name,
        name,
        onset=1,
        apex=2,
        predicted=name,
        probabilities={name: 0.7, "other": 0.3},
        warnings=(name,),
        flow=np.zeros((2, 64, 64), np.float16),
        images=np.zeros((2, 64, 64, 3), np.uint8),
        saliency=np.zeros((64, 64), np.float32),
    )
    plot_prediction(clip, SimpleNamespace(trained_on=name, measured="error unknown"), path)
    return {
        name,
        f"{name}: {name}",
        f"trained on {name} · error unknown",
        f"fall of the log-odds of “{name}”",
    }


def search(name, path):
    windows = [Window(0, 0.0, 1, 9, 0.2, 0.2)]
    plot_search(Search(windows, windows), moving=[], title=name, path=path)
    return {f"{name}: candidates, to be checked by a person"}


def scores(name, path):
    plot_scores(pd.DataFrame([{"label": name, "uf1": 0.5, "low": 0.4, "high": 0.6, "leaks": "no"}]), path=path)
    return {name}


def confusion(name, path):
    plot_confusion(pd.DataFrame([[1, 2], [3, 4]], index=[name, "b"], columns=[name, "b"]), title=name, path=path)
    return {name, f"{name} (n = 10)"}


def subjects(name, path):
    row = {"dataset": name, "split": name, "subject": name, "n": 3, "honest": 0.5, "oracle": 0.6}
    plot_subjects(pd.DataFrame([row]), title=name, path=path)
    return {name, f"{name} {name}", f"{name} (3)"}


def curves(name, path):
    history = pd.DataFrame({"fold": name, "seed": 0, "epoch": [1, 2], "train_loss": [0.5, 0.4]})
    plot_curves(history, title=name, path=path)
    return {f"{name}: thin lines are trainings (n = 1), the thick line is their median"}


@pytest.mark.parametrize("draw", [contact_sheet, prediction, search, scores, confusion, subjects, curves])
@pytest.mark.parametrize("name", ["take$1_$2", "_happy", "a^b", r"\frac$x", r"$\alpha$", "50%"])
def test_names_are_drawn_as_they_are(tmp_path, draw, name):
    path = tmp_path / "figure.svg"
    drawn = draw(name, path)
    assert drawn <= {"".join(text.itertext()).strip() for text in ElementTree.parse(path).iter() if text.tag.endswith("}text")}
    draw(name, path.with_suffix(".png"))


def font(path, family, character):
    """A TrueType font with one character, a triangle."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((500, 1000), (1000, 0)):
        pen.lineTo(point)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "triangle"])
    builder.setupCharacterMap({ord(character): "triangle"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "triangle": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "triangle": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def test_chinese_names_are_drawn_with_an_installed_chinese_font(tmp_path, monkeypatch):
    with pytest.warns(UserWarning, match="missing from font"):
        prediction("表", tmp_path / "without.png")
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    fontManager.addfont(font(tmp_path / "chinese.ttf", "WenQuanYi Zen Hei", "表"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prediction("表", tmp_path / "with.png")
