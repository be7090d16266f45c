"""SAMM (Davison et al. 2016): a table of FACS codes under some prose, and frames in folders, `SAMM/006/006_1_2/`."""

from __future__ import annotations

from merba.datasets.annotated import Annotated

ADAPTER = "samm"
RELEASE = Annotated(
    adapter=ADAPTER,
    tables=("SAMM_Micro_FACS_Codes_v2.xlsx", "SAMM_Micro_FACS_Codes_v2.csv"),
    columns={
        "subject": "Subject",
        "clip": "Filename",
        "onset": "Onset Frame",
        "apex": "Apex Frame",
        "offset": "Offset Frame",
        "emotion": "Estimated Emotion",
    },
    frames={"raw": ("SAMM", ""), "cropped": ("SAMM_CROP", "SAMM_cropped")},
    fps=200.0,
    subjects=(r"\d+", "006"),
    subject=lambda names: names.str.zfill(3),
)
read = RELEASE.read
