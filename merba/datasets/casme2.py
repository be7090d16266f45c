"""CASME II (Yan et al. 2014): a coding table, and frames of each clip in a folder, `CASME2-RAW/sub01/EP02_01f/`."""

from __future__ import annotations

from merba.datasets.annotated import Annotated

ADAPTER = "casme2"
RELEASE = Annotated(
    adapter=ADAPTER,
    tables=("CASME2-coding-20140508.xlsx", "CASME2-coding-updated.xlsx", "CASME2-coding-20140508.csv"),
    columns={
        "subject": "Subject",
        "clip": "Filename",
        "onset": "OnsetFrame",
        "apex": "ApexFrame",
        "offset": "OffsetFrame",
        "emotion": "Estimated Emotion",
    },
    frames={
        "raw": ("CASME2-RAW", "CASME2_RAW", "CASME2_RAW_selected"),
        "cropped": ("Cropped", "Cropped-updated", "CASME2_Cropped"),
    },
    fps=200.0,
    subjects=(r"sub\d+", "sub01"),
    subject=lambda names: "sub" + names.str.removeprefix("sub").str.zfill(2),
)
read = RELEASE.read
