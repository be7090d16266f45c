"""The two errors that users of merba meet."""


class MerbaError(Exception):
    """The run can't go on; the message says what was found where, and what to do about it."""


class ClipProblem(Exception):
    """One clip can't be used (no face, a damaged frame, onset at or after its apex); the message is the reason.

    Stages catch it and write it to the clip's `problem` column, so that one bad clip never hides the others.
    """
