"""The package's two exceptions, and the message for an unknown name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MerbaError(Exception):
    """The run can't continue; the message says what is wrong, where, and what to do about it."""


class ClipProblem(Exception):
    """One clip can't be used (no face, a damaged frame, onset at or after its apex); the message is the reason.

    Stages catch it and write it to the clip's `problem` column, so that one bad clip never hides the others.
    """


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """` (did you mean …?)` if a known name is close to `name`, ignoring case; otherwise an empty string."""
    by_case = {str(other).casefold(): str(other) for other in known}
    close = get_close_matches(str(name).casefold(), by_case, n=1)
    return f" (did you mean {by_case[close[0]]!r}?)" if close else ""


def unknown(name: object, known: Iterable[object]) -> str:
    """The message for a name that is not among the known ones: the closest one, and the list of all."""
    known = list(known)
    return f"{name!r} is unknown{did_you_mean(name, known)}; choose one of {', '.join(map(str, known))}"
