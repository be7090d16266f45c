"""Names of the images in a frame folder: which number in them counts the frames, and what else the folder holds."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median

from merba.errors import ClipProblem

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"})
UNFINISHED = re.compile(rf"\d.*({'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))})[.~]", re.IGNORECASE)
"""How cloud drives, browsers and copying programs name an incomplete image: with something after its suffix."""
OF_THE_SYSTEM = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

log = logging.getLogger(__name__)


def frame_names(folder: Path) -> dict[int, str]:
    """Names of the images in a frame folder by frame number, ascending; other files are left out, with a line in the log.

    Names differ only in their numbers, and the frame number is the one in which all of them differ: 46 for
    `006_reg_img46.jpg` (see `_counting`). Raises ClipProblem if the folder is missing or has no numbered image, and for
    an image named unlike the others (a copy, a thumbnail), two images with one number, numbers that disagree about the order,
    and an incomplete image (`.image100.png.icloud`, `image100.png.part`).
    """
    try:
        with os.scandir(folder) as entries:  # names only: planning lists thousands of folders
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        raise ClipProblem(f"frame folder {folder} can't be read: {error.strerror}") from error
    numbers: dict[str, list[str]] = {}
    alike: dict[tuple[str, ...], list[str]] = {}
    others = []
    for name in names:
        stem, _, suffix = name.rpartition(".")
        if name.startswith(".") or f".{suffix.lower()}" not in IMAGE_SUFFIXES:
            if UNFINISHED.search(name):
                raise ClipProblem(
                    f"{folder}: {name} is an image that isn't complete yet; wait until it is copied or downloaded, or delete it"
                )
            others += [name] if name not in OF_THE_SYSTEM else []
        elif digits := re.findall(r"\d+", stem):
            numbers[name] = digits
            alike.setdefault(tuple(re.split(r"\d+", stem.casefold())), []).append(name)
        else:
            say_once(f"{folder}: {name} has no number, and is left out")
    if not numbers:
        raise ClipProblem(f"{folder} holds no numbered image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    if len(alike) > 1:
        *_, fewer, most = sorted(alike.values(), key=len)
        raise ClipProblem(
            f"{folder}: {fewer[0]} differs from {most[0]} in more than its number; if it is a copy, a thumbnail or of another "
            "recording, move it elsewhere"
        )
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        say_once(f"{folder}: {others[0]}{more} can't be read as images ({', '.join(sorted(IMAGE_SUFFIXES))}), and are left out")
    place = _counting(folder, numbers, next(iter(alike)))
    by_number = dict(sorted((int(digits[place]), name) for name, digits in numbers.items()))
    _say_gap(folder, list(by_number))
    return by_number


def _say_gap(folder: Path, numbers: Sequence[int]) -> None:
    """Log the first gap of more than twice the usual step in ascending frame numbers; an unfinished copy leaves such gaps."""
    steps = [after - before for before, after in pairwise(numbers)]
    usual = median(steps) if steps else 0
    if wide := [place for place, step in enumerate(steps) if step > 2 * usual]:
        before, after = numbers[wide[0] : wide[0] + 2]
        say_once(
            f"{folder}: there is no image between frames {before} and {after}, but most are {usual:g} apart; if some are "
            "missing, copy the folder again"
        )


def _counting(folder: Path, names: Mapping[str, Sequence[str]], texts: Sequence[str]) -> int:
    """The position of the number that counts the frames: it differs in all names, and in its order the others never fall.

    `names` gives each name's numbers, `texts` the texts before, between and after them. The others are compared as a whole,
    left to right, like the seconds and fractions of a time stamp: `0.1` is later than `0.033`, though 1 is less than 33. If
    several numbers could be meant, the one with the smallest range is taken, and among equal ones the last.
    """
    numbers = {name: list(map(int, digits)) for name, digits in names.items()}
    columns = list(zip(*numbers.values(), strict=True))
    fractions = [place for place, text in enumerate(texts[:-1]) if place and text in (".", ",")]
    if not any(len(set(column)) == len(column) for column in columns):
        changing = [place for place, column in enumerate(columns) if len(set(column)) > 1] or [len(columns) - 1]
        seen: dict[int, str] = {}
        for name, counted in numbers.items():
            if (other := seen.setdefault(counted[changing[-1]], name)) != name:
                raise ClipProblem(f"{folder} holds two images of frame {counted[changing[-1]]}: {other} and {name}")
    rising = []
    for place, column in enumerate(columns):
        if len(set(column)) == len(column):
            others = [
                [
                    float(f"0.{digits}") if at in fractions else int(digits)
                    for at, digits in enumerate(names[name])
                    if at != place or at in fractions
                ]
                for name in sorted(numbers, key=lambda name: numbers[name][place])
            ]
            if all(a <= b for a, b in pairwise(others)):
                rising.append((max(column) - min(column), -place))
    if not rising:
        first, *_, last = numbers
        raise ClipProblem(
            f"{folder}: names such as {first} and {last} hold several numbers, which put the frames in different orders; rename "
            "them so that only the frame number differs"
        )
    place = -min(rising)[1]
    if len(numbers) > 1 and any(columns[-other] != columns[place] for _, other in rising):
        first = next(iter(names))
        say_once(
            f"{folder}: several numbers in names such as {first} count the frames; it is read as frame {numbers[first][place]}"
        )
    return place


@cache
def say_once(message: str) -> None:
    """Log a warning, but only once per process: every stage opens a clip again."""
    log.warning("%s", message)
