"""Renders the demo's clips: a subject's face at rest, the frames of its movements, and the truth about them.

Frame t shows at pixel y what the face at rest has at y − drift(t) − rise(t) · movement(y). Drift and rise are 0 at the
onset, so the displacement d(x) of a point x from onset to apex solves d(x) = drift + movement(x + d(x)).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from merba.datasets.demo import face
from merba.datasets.demo.layouts import LAYOUTS, ClipPlan
from merba.datasets.demo.planning import DemoSettings, clip_plans, generator

ALIGNED_SIZE = 224
MIXED = (0.5, 1.0)  # size of another class's movement in a mixed one, relative to the clip's own
ENCODING = {".bmp": [], ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 98]}  # both survive this quality
MOVEMENT_SIGMA = 0.11  # of a moved region, in widths of the landmark box
IDENTITY_SIGMA = 0.2
IDENTITY_SHIFT = 0.025
FEATURES = ("inner brow", "outer brow", "lower lid", "nostril", "lip corner", "chin", "jaw")


class Rest(NamedTuple):
    """A subject's face at rest: float32 image (H, W, 3) or (H, W) in grey levels, and its landmarks (68, 2) in px."""

    image: np.ndarray
    landmarks: np.ndarray

    @property
    def width(self) -> float:
        return float(np.ptp(self.landmarks[:, 0]))


class Motion(NamedTuple):
    """A clip's motion: movement at the apex, float32 (2, H, W), and global drift a frame from the onset, (n, 2); px."""

    movement: np.ndarray
    drift: np.ndarray


def render(settings: Mapping[str, object], dataset: str, root: Path) -> None:
    """Writes one dataset of the demo to `root/dataset`; a failed write leaves nothing.

    Beside frames and tables it holds `truth/<clip>.npz`: `displacement` float16 (2, H, W), u and v in source px from
    onset to apex, on the onset frame's pixels; `drift` float32 (2,), its global part; `landmarks` float32 (68, 2) in
    px of the onset frame; `onset`, `apex` and `offset`, frame numbers.
    """
    made = DemoSettings.of(settings)
    target, partial = root / dataset, root / f".{dataset}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "truth").mkdir(parents=True)
    plans = clip_plans(made, dataset)
    for subject, of_subject in groupby(plans, key=lambda plan: plan.subject_index):
        rest = rest_face(made, dataset, subject)
        for plan in of_subject:
            _write_clip(made, dataset, plan, rest, partial)
    LAYOUTS[dataset].annotate(partial, plans)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def rest_face(settings: DemoSettings, dataset: str, subject: int) -> Rest:
    """The photograph with a subject's head pose, features and light."""
    layout = LAYOUTS[dataset]
    random = generator(settings, dataset, subject, "subject")
    width, height = (round(side * settings.size) for side in layout.size)
    face_width = layout.face_width * settings.size * random.uniform(0.95, 1.05)
    angle = np.deg2rad(random.uniform(-5, 5))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pose = face_width / face.FACE_WIDTH * turn
    centre = (width / 2, 0.53 * height) + 0.04 * face_width * random.uniform(-1, 1, 2)
    posed = (face.LANDMARKS - face.FACE_CENTRE) @ pose.T + centre

    shifts = {feature: tuple(IDENTITY_SHIFT * face_width * random.uniform(-1, 1, 2)) for feature in FEATURES}
    identity = face.region_bumps(shifts, posed, IDENTITY_SIGMA * face_width)
    x, y = _grid(width, height)
    shifted = np.stack(face.field(identity, x, y) + np.broadcast_arrays(x, y), axis=-1)
    in_photograph = (shifted - centre) @ np.linalg.inv(pose).T + face.FACE_CENTRE
    image = _remap(face.photograph(), *np.moveaxis(in_photograph, -1, 0))
    image = _light(image, random)
    landmarks = posed
    for _ in range(10):  # a landmark l comes from where l + identity(l) is its place before the identity warp
        landmarks = posed - face.field(identity, *landmarks.T).T
    return Rest(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if layout.grey else image, landmarks)


def _light(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The image (H, W, 3) under a light of its own strength, contrast, colour and direction."""
    height, width = image.shape[:2]
    x, y = _grid(width, height)
    slope = random.uniform(-0.12, 0.12, 2)
    shade = 1 + slope[0] * (2 * x / width - 1) + slope[1] * (2 * y / height - 1)
    colour = random.uniform(0.8, 0.98) * random.uniform(0.95, 1.05, 3)
    gamma = random.uniform(0.9, 1.15)
    lit = 255 * (np.clip(image, 0, 255) / 255) ** gamma * shade[..., None] * colour
    return lit.astype(np.float32)


def clip_motion(settings: DemoSettings, dataset: str, plan: ClipPlan, rest: Rest) -> Motion:
    """The clip's movement, of its own size and asymmetry, and the head's slow drift."""
    random = generator(settings, dataset, plan.subject_index, plan.index, "motion")
    height, width = rest.image.shape[:2]
    weights = {(region, side): random.uniform(0.85, 1.15) for region in face.REGIONS for side in face.SIDES}
    x, y = _grid(width, height)
    shape = sum(
        part * face.field(face.region_bumps(face.MOVEMENTS[label], rest.landmarks, MOVEMENT_SIGMA * rest.width, weights), x, y)
        for label, part in _parts(settings, dataset, plan).items()
    )
    source_px = face.CROP_WIDTHS * rest.width / ALIGNED_SIZE  # of one pixel of the aligned face
    peak = random.uniform(*settings.movement) * source_px
    time = (np.array(plan.numbers) - plan.onset) / len(plan.numbers)
    speed, bend = random.uniform(-settings.head, settings.head, (2, 2)) * source_px
    drift = np.outer(time, speed) + np.outer(time**2, bend)
    return Motion((peak / np.hypot(*shape).max() * shape).astype(np.float32), drift)


def _parts(settings: DemoSettings, dataset: str, plan: ClipPlan) -> dict[str, float]:
    """The classes that a clip moves as, each with its relative size: its own, and in a mixed clip another one."""
    random = generator(settings, dataset, plan.subject_index, plan.index, "mixed")
    others = [label for label in LAYOUTS[dataset].emotions if label != plan.label]
    mixed = random.random() < settings.mixed
    return {plan.label: 1.0} | ({str(random.choice(others)): random.uniform(*MIXED)} if mixed else {})


def rise(plan: ClipPlan) -> np.ndarray:
    """Size of the movement in each frame (n,): from 0 at the onset over 1 at the apex to 0 at the offset."""
    numbers = np.array(plan.numbers)
    rising = (numbers - plan.onset) / (plan.apex - plan.onset)
    falling = (plan.offset - numbers) / (plan.offset - plan.apex)
    way = np.minimum(rising, falling).clip(0, 1)
    return (way + np.sin(np.pi / 2 * way) ** 2) / 2


def true_displacement(movement: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """The displacement that a movement (2, H, W), sampled at its target, and a drift (2,) give each pixel; px."""
    x, y = _grid(movement.shape[2], movement.shape[1])
    displacement = np.zeros_like(movement)
    for _ in range(10):
        u, v = (_remap(part, x + displacement[0], y + displacement[1], cv2.INTER_LINEAR) for part in movement)
        displacement = np.stack([u + drift[0], v + drift[1]]).astype(np.float32)
    return displacement


def _write_clip(settings: DemoSettings, dataset: str, plan: ClipPlan, rest: Rest, root: Path) -> None:
    motion = clip_motion(settings, dataset, plan, rest)
    drift = motion.drift[plan.apex - plan.first]
    np.savez_compressed(
        root / "truth" / f"{plan.clip}.npz",
        displacement=true_displacement(motion.movement, drift).astype(np.float16),
        drift=drift.astype(np.float32),
        landmarks=rest.landmarks.astype(np.float32),
        **{name: getattr(plan, name) for name in ("onset", "apex", "offset")},
    )
    folder = root / plan.folder
    folder.mkdir(parents=True)
    x, y = _grid(rest.image.shape[1], rest.image.shape[0])
    noise = np.empty(rest.image.shape[:2], np.float32)
    channels = rest.image.shape[2] if rest.image.ndim == 3 else 1
    cv2.setRNGSeed(int(generator(settings, dataset, plan.subject_index, plan.index, "noise").integers(2**31)))
    for number, (u, v), size in zip(plan.numbers, motion.drift, rise(plan), strict=True):
        moved = _remap(rest.image, x - u - size * motion.movement[0], y - v - size * motion.movement[1])
        cv2.randn(noise, 0, settings.noise)  # three times as fast as NumPy's
        path = folder / LAYOUTS[dataset].frame_name(plan.subject, number)
        # The same in every channel, so that neither JPEG's coarser colour nor conversion to grey averages it out.
        frame = cv2.add(moved, cv2.merge([noise] * channels), dtype=cv2.CV_8U)
        encoded = cv2.imencode(path.suffix, frame, ENCODING[path.suffix])[1]
        path.write_bytes(encoded.tobytes())


def _grid(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates, shapes (1, width) and (height, 1)."""
    return np.arange(width)[None], np.arange(height)[:, None]


def _remap(image: np.ndarray, x: np.ndarray, y: np.ndarray, interpolation: int = cv2.INTER_CUBIC) -> np.ndarray:
    """The image at points (x, y), mirrored beyond its edges."""
    x, y = x.astype(np.float32), y.astype(np.float32)
    return cv2.remap(image, x, y, interpolation, borderMode=cv2.BORDER_REFLECT_101)
