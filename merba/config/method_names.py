"""Names of table rows for experiments that don't set one: the model's family and size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FAMILIES = {
    "merba": "MERba",
    "mambavision": "MambaVision",
    "htnet": "HTNet",
    "featref": "FeatRef, our reading",
    "ststnet": "STSTNet",
    "biwoof": "Bi-WOOF",
    "lbp_top": "LBP-TOP",
    "slstt": "SLSTT",
    "meplan": "ME-PLAN, our reading",
    "mfdan": "MFDAN, our reading",
    "mersiamc3d": "MERSiamC3D, our reading",
    "kernel": "Kernel ridge (ours)",
    "lda": "PCA + LDA (ours)",
}
SIZES = {"tiny": "T", "tiny2": "T2", "small": "S", "base": "B", "large": "L", "large2": "L2", "large3": "L3"}
"""Sizes as MambaVision's authors write them (Hatamizadeh & Kautz, CVPR 2025, Table 1); MERba uses the same."""
UNNAMED = ("name", "file", "class", "head", "in_channels", "pretrained")
"""Arguments that don't change the named size, or that the name shows in another way."""


def method_name(model: Mapping[str, Any]) -> str:
    """The name of an experiment's `model`: family, size, DGCM if it has that head, and in brackets what else is set.

    For example MERba-B for merba_base, and MERba-nano-DGCM (dim 8) for a merba_nano with that head and another width. A
    model of an unknown family keeps its registered name, or the name of its class.
    """
    registered = model.get("name") or model["class"]
    family, _, size = (registered, "", "") if registered in FAMILIES else registered.partition("_")
    title, comma, remark = FAMILIES.get(family, registered).partition(",")
    name = "-".join(filter(None, (title, SIZES.get(size, size)))) + comma + remark if family in FAMILIES else registered
    if model.get("head") == "dgcm":
        name += "-DGCM"
    changes = ["pretrained"] if model.get("pretrained") else []
    changes += [f"{key.replace('_', ' ')} {_text(value)}" for key, value in model.items() if key not in UNNAMED]
    return f"{name} ({', '.join(changes)})" if changes else name


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else "none" if value is None else str(value)
