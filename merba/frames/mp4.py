"""What OpenCV doesn't say about an MP4 or MOV file: how long it plays, and whether it is mirrored (ISO/IEC 14496-12)."""

from __future__ import annotations

import os
import struct
from pathlib import Path


def edited_seconds(path: Path) -> float | None:
    """Duration of the video's edit list in seconds; None if it has none, or if the file is damaged or of another kind.

    An edit (8.6.6) has a duration, in units of the film's time scale (8.2.2), and a start, which is −1 if nothing is shown.
    """
    try:
        film, track = _film_and_video(path)
        header = film[b"mvhd"][0]
        (scale,) = struct.unpack_from(">I", header, 20 if header[0] else 12)
        edits = _boxes(track[b"edts"][0])[b"elst"][0]
        entry, (count,) = ">QqI" if edits[0] else ">IiI", struct.unpack_from(">I", edits, 4)
        listed = struct.iter_unpack(entry, edits[8 : 8 + count * struct.calcsize(entry)])
        return sum(duration for duration, start, _ in listed if start >= 0) / scale or None
    except (struct.error, LookupError, ZeroDivisionError):
        return None


def is_mirrored(path: Path) -> bool:
    """Whether the video's matrix (8.3.2), after the film's (8.2.2), mirrors it; False if the file is damaged or of another kind.

    A matrix that mirrors has a negative determinant.
    """
    try:
        film, track = _film_and_video(path)
        matrices = ((film[b"mvhd"][0], 36, 48), (track[b"tkhd"][0], 40, 52))
        of_film, of_track = (_determinant(header, late if header[0] else early) for header, early, late in matrices)
        return of_film * of_track < 0
    except (struct.error, LookupError):
        return False


def _determinant(header: bytes, place: int) -> int:
    a, b, _, c, d = struct.unpack_from(">5i", header, place)
    return a * d - b * c


def _film_and_video(path: Path) -> tuple[dict[bytes, list[bytes]], dict[bytes, list[bytes]]]:
    """The boxes that describe the film, and those of its first video track. Raises LookupError if there is none."""
    film = _film(path)
    for track in map(_boxes, film[b"trak"]):
        if _boxes(track[b"mdia"][0])[b"hdlr"][0][8:12] == b"vide":
            return film, track
    raise LookupError


def _film(path: Path) -> dict[bytes, list[bytes]]:
    """The boxes in the box `moov`, which describes the film; empty if there is no such box."""
    with path.open("rb") as file:
        while len(start := file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", start)
            if size == 1:  # the size is in the next eight bytes
                size = struct.unpack(">Q", file.read(8))[0] - 8
            if size < 8:  # 0 for the last box, which reaches to the end of the file
                break
            if kind == b"moov":
                return _boxes(file.read(size - 8))
            file.seek(size - 8, os.SEEK_CUR)
    return {}


def _boxes(data: bytes) -> dict[bytes, list[bytes]]:
    """Contents of the boxes that follow each other in `data`, by kind, up to anything that is not a box."""
    boxes: dict[bytes, list[bytes]] = {}
    while len(data) >= 8:
        size, kind = struct.unpack_from(">I4s", data)
        if size < 8:
            break
        boxes.setdefault(kind, []).append(data[8:size])
        data = data[size:]
    return boxes
