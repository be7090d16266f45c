"""What OpenCV doesn't tell about an AVI file: which frames its index lists (RIFF `AVI `, chunks `movi` and `idx1`)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

FRAME = re.compile(rb"\d\d(dc|db)", re.IGNORECASE)
"""Names of chunks with a frame: the stream's number, and whether it is compressed."""


def frames_there(path: Path) -> Iterator[bool]:
    """For each frame in the index, in order, whether its chunk is where the index says; empty without an index.

    The file has no time stamps, and behind a hole the decoder continues with the next chunk: the numbers of later frames would be
    too low. Entries of size 0 stand for frames that were dropped while recording; the decoder skips them, and so does this. In a
    file of more than a gigabyte, the index covers only the first one.
    """
    with path.open("rb") as file:
        start, entries = _index(file)
        frames = [(name, size, offset) for name, _, offset, size in entries if size and FRAME.fullmatch(name)]
        stream = min((name[:2] for name, *_ in frames), default=b"")
        frames = [frame for frame in frames if frame[0][:2] == stream]
        # Offsets count from the list of chunks, or from the start of the file.
        base = next((base for frame in frames for base in (start, 0) if _is_at(file, base, *frame)), None)
        for frame in frames if base is not None else ():
            yield _is_at(file, base, *frame)


def _is_at(file: BinaryIO, base: int, name: bytes, size: int, offset: int) -> bool:
    file.seek(base + offset)
    return file.read(8) == struct.pack("<4sI", name, size)


def _index(file: BinaryIO) -> tuple[int, list[tuple[bytes, int, int, int]]]:
    """Where the list of chunks begins, and the entries of the index: name, flags, offset and size of each chunk."""
    start, place = 0, 12  # behind `RIFF`, the size and `AVI `
    while True:
        file.seek(place)
        if len(header := file.read(12)) < 8:
            return start, []
        name, size = struct.unpack_from("<4sI", header)
        if name == b"LIST" and header[8:] == b"movi":
            start = place + 8
        if name == b"idx1":
            file.seek(place + 8)
            data = file.read(size)
            return start, list(struct.iter_unpack("<4sIII", data[: len(data) // 16 * 16]))
        place += 8 + size + size % 2
