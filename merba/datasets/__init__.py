"""Datasets as sample sheets: one adapter a layout on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path

import pandas as pd

from merba.datasets import casme2, casme3, clips, dfme, flow_images, samm, smic_hs
from merba.datasets.layout import nearest
from merba.errors import MerbaError

ADAPTERS: dict[str, Callable[..., pd.DataFrame]] = {
    module.ADAPTER: module.read for module in (smic_hs, casme2, samm, dfme, casme3, flow_images, clips)
}


def load_dataset(name: str, settings: Mapping[str, object]) -> pd.DataFrame:
    """The sample sheet of the dataset `name`; settings: `adapter`, `root`, and what the adapter's `read` takes.

    Raises MerbaError for an unknown adapter or setting, and for files that aren't as the adapter expects them.
    """
    options = dict(settings)
    adapter = options.pop("adapter")
    if adapter not in ADAPTERS:
        raise MerbaError(f"datasets.{name}: adapter {adapter!r} is none of {', '.join(ADAPTERS)}{nearest(adapter, ADAPTERS)}")
    read = ADAPTERS[adapter]
    known = [key for key in signature(read).parameters if key not in ("root", "name")]
    root = options.pop("root", None)
    if root is None and adapter != flow_images.ADAPTER:
        raise MerbaError(f"datasets.{name}: set `root` to the folder of the release")
    for key in options:
        if key not in known:
            hint = f"{nearest(key, known)}; adapter {adapter} takes root, {', '.join(known)}"
            raise MerbaError(f"datasets.{name}: unknown key {key!r}{hint}")
    return read(None if root is None else Path(root), name=name, **options)
