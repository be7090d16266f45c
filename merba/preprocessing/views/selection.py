"""Which frames of a clip a view takes, and how a clip is interpolated in time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from merba.errors import ClipProblem
from merba.frames import Clip, FrameFolder


def frame_numbers(clip: Clip, onset: int, offset: int | None) -> list[int]:
    """The numbers of a clip's frames from onset to offset; without an offset, to the last one.

    Raises ClipProblem if a folder lacks the onset or the offset; for a video, this is noticed when it is read.
    """
    if isinstance(clip, FrameFolder):
        for end in {onset, offset} - {None, *clip.numbers}:
            clip.read(end)  # raises ClipProblem
        return [number for number in clip.numbers if onset <= number and (offset is None or number <= offset)]
    if offset is None:  # only decoding tells how long a video is
        return [number for number, _ in clip.frames(onset)]
    return list(range(onset, offset + 1))


def key_frames(numbers: Sequence[int], apex: int, length: int) -> list[int]:
    """Frames in equal steps from onset to apex, and from there to the offset; the apex has the index length // 2.

    `numbers` are the numbers of all frames. The nearest frame is used, so a short phase repeats frames.
    """
    middle = length // 2
    wanted = [*np.linspace(numbers[0], apex, middle + 1), *np.linspace(apex, numbers[-1], length - middle)[1:]]
    known = np.array(numbers)
    return [int(known[np.abs(known - number).argmin()]) for number in wanted]


def around_apex(numbers: Sequence[int], apex: int, length: int) -> list[int]:
    """At most `length` frames in a row with the apex in the middle, none of them the onset and none after the offset.

    If the apex is near the onset, they begin with the frame after the onset. As in SLSTT's code (preprocess/data_init.py).
    """
    if len(numbers) < 2:
        raise ClipProblem(f"it has too few frames from onset to offset ({len(numbers)}); at least 2 are needed")
    place = int(np.abs(np.array(numbers) - apex).argmin())
    first = max(place - length // 2, 1)
    return list(numbers[first : first + length])


def spread(count: int, length: int) -> np.ndarray:
    """The places of `length` frames among `count` ≤ length frames: 1.5 is half-way between frames 1 and 2.

    Every frame is kept. The missing frames are divided equally among the gaps; the remainder goes to the gaps in the middle, as
    in SLSTT's code. A single frame is repeated.
    """
    if count == 1:
        return np.zeros(length)
    each, left = divmod(length - count, count - 1)
    start = count // 2 - left // 2
    places: list[float] = []
    for gap in range(count - 1):
        parts = each + 1 + (start <= gap < start + left)
        places += [gap + part / parts for part in range(parts)]
    return np.array([*places, count - 1])


def between(frames: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The frames, uint8 (n, H, W), at `places` among them (see `spread`): linear between neighbours, rounded."""
    before = np.floor(places).astype(int)
    after, share = np.minimum(before + 1, len(frames) - 1), (places - before)[:, None, None]
    return np.rint((1 - share) * frames[before] + share * frames[after]).astype(np.uint8)


def tim_matrix(count: int, length: int) -> np.ndarray:
    """Temporal interpolation by the curves of a path graph, as a matrix on time, float64 (length, count); rows sum to 1.

    Zhou, Zhao & Pietikäinen, CVPR 2011: frames are embedded by the path graph's Laplacian. Its curves
    sin(πkt + π(n − k)/2n) are read at `length` equal steps of t from 1/n to 1, and mapped back. At the frames, the curves are
    the DCT-II basis, which is orthogonal, so the same matrix works for every pixel:

        W[j, i] = 1/n + 2/n Σ cos(πk(n t_j − ½)/n) cos(πk(i − ½)/n),   k = 1 … n − 1,   i = 1 … n
    """
    n, k = count, np.arange(1, count)
    steps, frames = n * np.linspace(1 / n, 1, length) - 0.5, np.arange(1, n + 1) - 0.5
    return 1 / n + 2 / n * np.cos(np.pi / n * np.outer(steps, k)) @ np.cos(np.pi / n * np.outer(k, frames))


def interpolated(frames: Iterable[np.ndarray], count: int, length: int) -> np.ndarray:
    """`length` frames, uint8 (length, H, W), that `tim_matrix` makes of `count` ≥ 2 frames uint8 (H, W), one at a time."""
    if count < 2:
        raise ClipProblem(f"it has too few frames from onset to offset ({count}); interpolating in time takes at least 2")
    total = 0.0
    for weights, frame in zip(tim_matrix(count, length).T, frames, strict=True):
        total = total + weights[:, None, None] * frame
    return np.rint(total).clip(0, 255).astype(np.uint8)
