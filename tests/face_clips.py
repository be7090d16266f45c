"""Clips of given frames, and their rows of the sample sheet."""

import cv2
import pandas as pd


def clip_of(folder, frames, **changes):
    folder.mkdir()
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(folder / f"img{number}.png"), frame)
    row = {"dataset": "d", "subject": "s", "clip": folder.name, "source": str(folder), "kind": "frames", "bits": None}
    return row | {"onset": 1, "apex": None, "offset": len(frames)} | changes


def rows_of(*rows):
    return pd.DataFrame(rows).astype({"onset": "Int64", "apex": "Int64", "offset": "Int64"})
