"""Long clips and videos, for searching and predicting."""

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


def video(path, count=4, fps=50):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    for _ in range(count):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    return path
