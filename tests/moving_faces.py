"""Long clips and videos, for searching and predicting."""

import struct

import cv2
import numpy as np

from merba.frames import open_clip

FPS = 60
STILL = 36  # frames before and after the movement


def opened_clip(folder, images):
    folder.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.bmp"), image)
    return open_clip(folder, "frames")


CODECS = {".avi": "MJPG", ".flv": "FLV1", ".mxf": "MPG2", ".ogv": "VP80", ".ts": "MPG2", ".webm": "VP80"}
"""A codec that OpenCV can write for each container that can't hold MPEG-4."""


def video(path, count=4, fps=50):
    codec = cv2.VideoWriter_fourcc(*CODECS.get(path.suffix, "mp4v"))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, fps, (64, 48))
    assert writer.isOpened()
    for _ in range(count):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    return path


def varied(path, *parts):
    """Give an MP4 file of constant rate a varying one: parts (number of frames, how many times as long each lasts)."""
    data = bytearray(path.read_bytes())
    times = data.index(b"stts")
    entries, count, duration = struct.unpack_from(">3I", data, times + 8)
    assert (entries, count) == (1, sum(count for count, _ in parts))
    listed = [value for count, factor in parts for value in (count, round(duration * factor))]
    data[times + 8 : times + 20] = struct.pack(f">{1 + len(listed)}I", len(parts), *listed)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        size = data.index(box) - 4
        struct.pack_into(">I", data, size, struct.unpack_from(">I", data, size)[0] + 8 * (len(parts) - 1))
    path.write_bytes(data)
    return path
