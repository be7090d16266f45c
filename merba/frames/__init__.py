"""Frames of a clip, from a folder of images or a video: in natural order, decoded only when asked."""

from __future__ import annotations

import hashlib
import math
import os
import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import pandas as pd

from merba.errors import ClipProblem
from merba.frames.avi import frames_there
from merba.frames.mp4 import edited_seconds, is_mirrored
from merba.frames.names import frame_names, say_once

ISO_SUFFIXES = frozenset({".3g2", ".3gp", ".f4v", ".m4v", ".mov", ".mp4", ".qt"})
"""Videos of one file format, ISO/IEC 14496-12."""
VIDEO_SUFFIXES = (
    ISO_SUFFIXES
    | {".asf", ".avi", ".dv", ".flv", ".mkv", ".mxf", ".ogm", ".ogv", ".webm", ".wmv", ".y4m"}
    | {".m2t", ".m2ts", ".mpeg", ".mpg", ".mts", ".ts", ".vob"}
)
COUNTED = ISO_SUFFIXES | {".avi"}
"""Videos with the number of frames in the header; for others, FFmpeg estimates it from the duration and the rate."""
FAST = 200
"""If the header of a video that isn't COUNTED gives this many frames a second, it may be a time scale: browsers write 1000."""
FIRST = 30
"""The number of frames whose time stamps then give the rate."""
GAP = 4
"""The log reports gaps between time stamps longer than this many frames at the mean rate: a camera's rate varies less."""
AVI_GAP = 1.5
"""The same for AVI, whose rate is constant: frames that were dropped while recording leave gaps."""


def read_image(path: Path, white: Callable[[], int] = lambda: 65535) -> np.ndarray:
    """An image file as uint8 BGR (H, W, 3), upright; grey is repeated in every channel.

    16-bit values from 0 to `white()` are scaled to 8 bits; a PGM or PPM file says itself which value is white. Raises
    ClipProblem if the file is missing, cut short, or not an image.
    """
    image, own = _decoded(path)
    if image.dtype == np.uint16 or own:
        image = np.rint(image * (255 / (own or white()))).clip(max=255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ClipProblem(f"image {path} holds {image.dtype} values; only images with 8 or 16 bits per channel can be read")
    return image


def _decoded(path: Path) -> tuple[np.ndarray, int | None]:
    """The image as stored, BGR, and the value of white if the file says it (PGM, PPM) and OpenCV doesn't apply it, else None."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ClipProblem(f"image {path} can't be read: {error.strerror}") from error
    # From memory, because imdecode refuses a file that is cut short, but imread fills the missing part with grey.
    encoded = np.frombuffer(data, np.uint8)
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data else None
    except cv2.error as error:  # for example, if the header says more than 10⁹ pixels
        raise ClipProblem(f"image {path} can't be decoded: {error.err}") from error
    if image is None:
        raise ClipProblem(f"image {path} is damaged ({len(data)} bytes)")
    if path.suffix.lower() in (".tif", ".tiff") and (pages := cv2.imcount(str(path))) > 1:
        raise ClipProblem(f"image {path} holds {pages} pages, of which one would be read; save each as an image of its own")
    heeded = image.dtype == np.uint8 and data[:2] in (b"P2", b"P3")
    header = None if heeded else re.match(rb"P[2356]\s(?:\s*(?:#[^\n]*\n)?)*\d+\s+\d+\s+(\d+)\s", data)
    return image, int(header[1]) if header else None


class Clip(ABC):
    """One clip: `source` (path), `fps` (NaN if unknown), `read(number)`, and `frames(onset, offset)` in order.

    `expected` is the number of frames; for a video, the number that its header says, or 0 if it says none.
    """

    source: Path
    fps: float = math.nan
    expected: int

    def __init__(self, source: Path) -> None:
        self.source = source
        self._shape: tuple[int, ...] | None = None

    def time(self, number: int, fps: float) -> float:
        """The time, s, at which frame `number` is shown, at `fps` frames per second."""
        return number / fps

    @abstractmethod
    def _first(self) -> int:
        """Number of the first frame: the lowest in the file names, or 0 in a video."""

    @abstractmethod
    def _after(self, number: int) -> int | None:
        """Number of the frame after `number`; None after the last one."""

    @abstractmethod
    def _decode(self, number: int) -> np.ndarray: ...

    def read(self, number: int) -> np.ndarray:
        """Frame `number`, uint8 BGR (H, W, 3). Raises ClipProblem if it is missing, damaged or of another size."""
        image = self._decode(int(number))
        self._shape = self._shape or image.shape
        if image.shape != self._shape:
            raise ClipProblem(
                f"frame {number} of {self.source} is {image.shape[1]}×{image.shape[0]}, "
                f"the others are {self._shape[1]}×{self._shape[0]}"
            )
        return image

    def frames(self, onset: int | None = None, offset: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Number and image (see `read`) of each frame from onset to offset, both included, decoded when asked for.

        None means the first or the last frame. Raises ClipProblem if the onset or offset is missing, or a frame can't be read.
        """
        number = self._first() if onset is None else onset
        while number is not None and (offset is None or number < offset):
            yield number, self.read(number)
            number = self._after(number)
        if offset is not None:
            yield offset, self.read(offset)  # raises ClipProblem that says what is missing


class FrameFolder(Clip):
    """A clip stored as a folder of images. `bits` is how many bits the values of 16-bit images use; None to find out."""

    def __init__(self, source: Path, bits: int | None = None) -> None:
        super().__init__(source)
        self._names = frame_names(source)
        self.numbers = list(self._names)
        self.expected = len(self.numbers)
        self._bits = bits

    def _first(self) -> int:
        return self.numbers[0]

    def _after(self, number: int) -> int | None:
        following = bisect_right(self.numbers, number)
        return self.numbers[following] if following < len(self.numbers) else None

    def _decode(self, number: int) -> np.ndarray:
        if number not in self._names:
            held = f"{len(self.numbers)} frames from {self.numbers[0]} to {self.numbers[-1]}"
            raise ClipProblem(f"frame {number} is missing in {self.source} ({held})")
        return read_image(self.source / self._names[number], lambda: self._white)

    @cached_property
    def _white(self) -> int:
        """The largest value of the bits that a 16-bit clip's pixels use: 4095 if the camera had 12 bits.

        Unless `bits` is given, every frame is read, because a single one may be dark.
        """
        if self._bits is not None:
            return 2**self._bits - 1
        highest = max(int(_decoded(self.source / name)[0].max()) for name in self._names.values())
        bits = next(bits for bits in (8, 10, 12, 14, 16) if highest < 2**bits)
        if bits < 16:
            say_once(
                f"{self.source}: 16-bit images with values up to {highest} of 65535; {2**bits - 1} is taken as white; "
                "if that is wrong, set `bits` in the table of clips"
            )
        return 2**bits - 1


class Video(Clip):
    """A clip stored as a video file, decoded forward only.

    If the frame rate varies, seeking by frame number and the frame count of the header are guesses; counting
    decoded frames is exact. Reading in ascending order decodes each frame once. Pixels that aren't square are made square by
    enlarging the image along their longer side. Images that the header turns or mirrors come out upright.
    """

    def __init__(self, source: Path) -> None:
        super().__init__(source)
        self._is_avi = source.suffix.lower() == ".avi"
        self._open()
        said, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = self._measured_rate(said) if said >= FAST and source.suffix.lower() not in COUNTED else said or math.nan
        self.expected = max(round(count * self.fps / said) if said else int(count), 0)
        self._mirrored = is_mirrored(source)

    def _measured_rate(self, said: float) -> float:
        """Frames a second by the first time stamps if the header says more than twice as many; otherwise what it says."""
        times = []
        while len(times) < FIRST and self._capture.grab():
            times.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        self._open()
        step = median(after - before for before, after in pairwise(times)) if len(times) > 1 else 0
        return 1 / step if step * said > 2 else said

    def time(self, number: int, fps: float) -> float:
        """The time, s, of frame `number` by the video's time stamps, because the rate may vary.

        If `fps` isn't the video's own mean rate, the time is scaled to it. Raises ClipProblem if the frame is missing.
        """
        self._require(number)
        return number / fps if math.isnan(self.fps) else self._time * self.fps / fps

    def _open(self) -> None:
        if not self.source.is_file():
            raise ClipProblem(f"video {self.source} is missing")
        # An absolute path, because FFmpeg takes the text before the colon in `22:57.mp4` for a protocol.
        options = [cv2.CAP_PROP_N_THREADS, 1]
        self._capture = cv2.VideoCapture(str(self.source.absolute()), cv2.CAP_FFMPEG, options)
        if not self._capture.isOpened():
            raise ClipProblem(f"video {self.source} can't be decoded: it is damaged, or not a video that FFmpeg reads")
        self._position, self._time = -1, 0.0  # number and time, s, of the frame decoded last
        self._there = frames_there(self.source) if self._is_avi else iter(())

    def _reach(self, number: int) -> bool:
        """Decode forward to a frame, from the start if it has passed. Returns False if the video ends before it."""
        if number < self._position:
            self._open()
        while self._position < number:
            if not self._capture.grab():
                self._count = self._position + 1
                self._check_whole()
                self._open()
                return False
            self._position += 1
            if not next(self._there, True):
                lost = 1 + sum(not there for there in self._there)
                self._open()
                raise self._damaged(self.expected - lost)
            stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if self._position and (gap := stamp - self._time) > (AVI_GAP if self._is_avi else GAP) / self.fps:
                say_once(
                    f"{self.source}: {gap:.2f} s between frames {self._position - 1} and {self._position}, the time of "
                    f"{gap * self.fps:.0f} frames; if some are missing there, the later numbers are wrong: copy the file again"
                )
            # Some containers have no stamps, or not for every frame.
            self._time = stamp if stamp > self._time or not self._position else self._time + 1 / self.fps
        return True

    def _require(self, number: int) -> None:
        if number < 0:
            raise ClipProblem(f"frame {number} is missing in {self.source}; its first frame is 0")
        if not self._reach(number):
            raise ClipProblem(f"frame {number} is missing in {self.source} ({self._count} frames)")

    def _check_whole(self) -> None:
        """Raise ClipProblem if fewer frames could be read than the header says: the file is cut, or has a hole.

        An edit list may leave frames out, as lossless trimming does: then the duration of the list must be reached. If the
        number is a guess, which a longer sound track makes too high, a twentieth or half a second (the longer) may be missing.
        """
        frame = 1 / self.fps
        seconds, slack = self.expected * frame, max(self.expected * frame / 20, 0.5)
        if self.source.suffix.lower() in COUNTED:
            seconds, slack = edited_seconds(self.source) or seconds, frame
        if self._count < self.expected - 1 and self._time + frame + slack < seconds:
            raise self._damaged(self._count)

    def _damaged(self, count: int) -> ClipProblem:
        return ClipProblem(
            f"video {self.source} is cut or damaged: its header says {self.expected} frames, {count} could be read; copy it again"
        )

    def _first(self) -> int:
        return 0

    def _after(self, number: int) -> int | None:
        return number + 1 if self._reach(number + 1) else None

    def _decode(self, number: int) -> np.ndarray:
        self._require(number)
        decoded, image = self._capture.retrieve()
        if not decoded:
            raise ClipProblem(f"frame {number} of {self.source} is damaged")
        return self._as_shown(image)

    def _as_shown(self, image: np.ndarray) -> np.ndarray:
        """The image, already turned by OpenCV, mirrored if the header says so, and with square pixels.

        The header's matrix mirrors the picture from top to bottom before it turns it. The ratio of the pixels' sides also refers
        to the picture before the turn.
        """
        sideways = bool(self._capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180)
        if self._mirrored:
            image = cv2.flip(image, int(sideways))
        ratio = [self._capture.get(key) for key in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN)]
        if min(ratio) <= 0 or ratio[0] == ratio[1]:
            return image
        x, y = reversed(ratio) if sideways else ratio
        return cv2.resize(image, None, fx=max(x / y, 1), fy=max(y / x, 1), interpolation=cv2.INTER_CUBIC)


def open_clip(source: Path | str, kind: str, bits: int | None = None) -> Clip:
    """The clip at `source`; kind: `frames` (a folder of images, see `FrameFolder` for `bits`) or `video`.

    Raises ClipProblem if it can't be opened, ValueError for another kind.
    """
    if kind == "frames":
        return FrameFolder(Path(source), bits)
    if kind == "video":
        return Video(Path(source))
    raise ValueError(f"clip kind {kind!r}: frames or video")


def clip_of(row: Any) -> Clip:
    """The clip of a row of the sample sheet, as `itertuples` gives it (see `open_clip`)."""
    return open_clip(row.source, row.kind, None if pd.isna(row.bits) else int(row.bits))


def file_state(rows: Iterable[Mapping[str, Any]]) -> str:
    """A short hash of the names, sizes and modification times of the files that rows of the sheet are read from.

    These are the frames from onset to offset (null: the first, the last), a video, or a flow image. No file is opened. A missing
    file is left out, so that the hash changes when it appears.
    """
    paths = cache(frame_paths)  # the clips of one long video share its folder
    state = hashlib.sha256()
    for row in rows:
        first, last = (end if row[key] is None else row[key] for key, end in (("onset", 0), ("offset", math.inf)))
        files = paths(row["source"]) if row["kind"] == "frames" else {first: row["source"]}
        for path in (path for number, path in files.items() if first <= number <= last):
            state.update(_state(path).encode())
    return state.hexdigest()[:16]


def frame_paths(folder: str) -> dict[int, str]:
    """Paths of a folder's frames by number, ascending; empty if the folder can't be used, which its own job will report."""
    try:
        return {number: f"{folder}/{name}" for number, name in frame_names(Path(folder)).items()}
    except ClipProblem:
        return {}


def _state(path: str) -> str:
    try:
        file = os.stat(path)  # noqa: PTH116 - a Path for every frame would triple the time
    except OSError:
        return ""
    return f"{path} {file.st_size} {file.st_mtime_ns}\n"
