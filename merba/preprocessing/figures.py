"""Contact sheets: every clip of a dataset at a glance, from its aligned face to its flow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import cv2
import numpy as np

from merba.figures import DPI, GREY, ORANGE, flow_colours, pyplot, save
from merba.frames import clip_of
from merba.preprocessing.alignment import align
from merba.preprocessing.faces import FaceSettings, aligned_grey, aligned_landmarks, degrees, transform_of
from merba.preprocessing.head_warning import head_warning

SIDE = 112
"""Side of each of a clip's three pictures, px."""
TEXT, GAP = 62, 12
"""Height of the lines under a clip's pictures, and the space between clips, px."""
COLUMNS = 4
HEAD = 64
"""Height of the page's head, px."""
FONT = 11
"""Size of the letters, px."""
LETTERS = 52
"""Letters in a line as wide as a clip's pictures."""
CONTRAST, LARGEST_GAIN = 100, 20
"""The largest differences are amplified to this many grey levels, at most by this factor: more would show noise."""


@dataclass(frozen=True)
class Tile:
    """A clip of a contact sheet: its pictures, uint8 RGB (SIDE, 3 · SIDE, 3), None if it has a problem, and its text.

    `warning` is the problem, or what should be checked.
    """

    name: str
    pictures: np.ndarray | None
    about: str
    warning: str


def clip_tile(
    row: Any,
    face: Mapping[str, Any],
    apex: Mapping[str, Any],
    flow: Mapping[str, np.ndarray],
    head_motion: float,
    problem: str,
    settings: FaceSettings,
    limit: float,
) -> Tile:
    """The tile of a clip: aligned onset with landmarks, apex minus onset (amplified), and flow.

    `row` is the sheet's, `face` and `apex` are rows of `faces_of_subject` and `apexes_of_subject`, `flow` has arrays (H, W) by
    channel; head_motion (px of the aligned face) and problem ("" for none) come from the flow stage. `limit` is the share of the
    aligned face that the head may move without a warning.
    """
    name = f"{row.subject}  {row.clip}  {row.label}"
    if problem:
        return Tile(name, None, "", problem)
    clip, transform = clip_of(row), transform_of(face)
    onset, top = (clip.read(apex[key]) for key in ("onset", "apex"))
    first = cv2.cvtColor(align(onset, transform, settings.size, settings.interpolation), cv2.COLOR_BGR2RGB)
    for x, y in aligned_landmarks(face).round().astype(int):
        cv2.circle(first, (int(x), int(y)), max(settings.size // 150, 1), (255, 255, 0), -1)
    difference, gain = _amplified(aligned_grey(onset, transform, settings), aligned_grey(top, transform, settings))
    colours, scale = _coloured(flow)
    pictures = np.hstack(
        [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in (first, difference, colours)]
    )
    how = "annotated" if apex["source"] == "annotation" else "found"
    about = f"apex {apex['apex']} {how}, ×{gain:.0f}, {scale}, head {head_motion:.1f} px"
    return Tile(name, pictures, about, "; ".join(_warnings(face, head_motion, settings, limit)))


def _amplified(onset: np.ndarray, apex: np.ndarray) -> tuple[np.ndarray, float]:
    """The difference of two grey images (H, W) around mid-grey, RGB, and the factor that amplifies it."""
    difference = apex.astype(np.float32) - onset
    gain = min(CONTRAST / max(float(np.quantile(np.abs(difference), 0.99)), 1), LARGEST_GAIN)
    return cv2.cvtColor(np.clip(128 + gain * difference, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2RGB), gain


def _coloured(flow: Mapping[str, np.ndarray]) -> tuple[np.ndarray, str]:
    """u and v as colours, RGB, and what full colour means; if either is missing, the first channel in one colour scale."""
    name, values = next(iter(flow.items()))
    if {"u", "v"} <= flow.keys():
        motion = np.stack([flow["u"], flow["v"]]).astype(np.float32)
        full = float(np.quantile(np.hypot(*motion), 0.99)) or 1.0
        return flow_colours(motion, full), f"flow {full:.1f} px"
    full = float(np.quantile(np.abs(values), 0.99)) or 1.0
    low, shades, unit = (-full, "coolwarm", " px") if name in ("u", "v") else (0.0, "Greys", "")
    part = (values.astype(np.float32) - low) / (full - low)
    return pyplot().colormaps[shades](part, bytes=True)[..., :3], f"{name} {full:.2g}{unit}"


def _warnings(face: Mapping[str, Any], head_motion: float, settings: FaceSettings, limit: float) -> list[str]:
    said = []
    if face["faces"] > 1:
        said.append(f"of {face['faces']} faces, the {face['choice']} one")
    if settings.backend == "auto" and face["backend"] != "dlib":
        said.append(f"face found by {face['backend']}")
    if face["turn"]:
        said.append(f"turned by {degrees(face['turn'])}")
    if head_warning(head_motion, settings.size, limit):
        said.append(f"the head moves {head_motion:.1f} px")
    return said


def plot_contact_sheet(tiles: Sequence[Tile], *, title: str, path: Path) -> None:
    """Draw one page of tiles; clips with a warning or a problem are framed."""
    wide, high = 3 * SIDE + GAP, SIDE + TEXT + GAP
    rows = math.ceil(len(tiles) / COLUMNS)
    canvas = np.full((HEAD + rows * high, GAP + COLUMNS * wide, 3), 255, np.uint8)
    figure = pyplot().figure(figsize=(canvas.shape[1] / DPI, canvas.shape[0] / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    points = {"fontsize": FONT * 72 / DPI, "va": "top"}
    for place, tile in enumerate(tiles):
        x, y = GAP + place % COLUMNS * wide, HEAD + place // COLUMNS * high
        if tile.pictures is not None:
            canvas[y : y + SIDE, x : x + 3 * SIDE] = tile.pictures
        name = tile.name if len(tile.name) <= LETTERS else f"{tile.name[: LETTERS - 1]}…"
        axes.text(x, y + SIDE + 3, name, **points)
        axes.text(x, y + SIDE + 3 + 1.3 * FONT, tile.about, color=GREY, **points)
        if tile.warning:
            below = SIDE + 3 + 2.6 * FONT if tile.pictures is not None else FONT
            room = 2 if tile.pictures is not None else 7
            warning = "\n".join(wrap(tile.warning, LETTERS, max_lines=room, placeholder="…"))
            axes.text(x, y + below, warning, color=ORANGE, **points)
            cv2.rectangle(canvas, (x - 3, y - 3), (x + 3 * SIDE + 2, y + SIDE + TEXT), (213, 94, 0), 2)
    _plot_head(axes, canvas, title, points)
    axes.imshow(canvas, interpolation="none")
    axes.set_axis_off()
    save(figure, path)


def _plot_head(axes: Any, canvas: np.ndarray, title: str, points: Mapping[str, Any]) -> None:
    """Draw the title, what the pictures are, and the colours of flow: each point has the colour of its vector from the centre."""
    axes.text(GAP, 10, title, weight="bold", **points)
    about = (
        "aligned onset with landmarks; apex minus onset, amplified (×); flow from onset to apex: hue is the direction, as on "
        "the wheel; full colour is the length given below"
    )
    axes.text(GAP, 10 + 1.6 * FONT, about, color=GREY, **points)
    side = HEAD - 16
    place = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j][::-1]
    wheel = np.where((np.hypot(*place) <= 1)[..., None], flow_colours(place, 1.0), 255)
    canvas[6 : 6 + side, -GAP - side : -GAP] = wheel
