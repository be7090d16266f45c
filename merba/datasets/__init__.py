"""Datasets as sample sheets: one adapter per layout on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pandas as pd

from merba.datasets import casme2, casme3, clips, dfme, flow_images, samm, smic_hs
from merba.errors import MerbaError, did_you_mean, unknown
from merba.plugins import DATASETS, loaded, plugins
from merba.sheet import make_sheet

ADAPTERS: dict[str, Callable[..., pd.DataFrame]] = {
    module.ADAPTER: module.read for module in (smic_hs, casme2, samm, dfme, casme3, flow_images, clips)
}

RESULTS = Path("results")
DEMO_ROOT = RESULTS / "demo"
"""Where the workflow renders the demo's datasets, one folder each."""

_TYPES = {str: "text", float: "a number", int: "a whole number", bool: "true or false", Mapping: "names with values"}


def plan_sheet(config: Mapping[str, Any], results: Path = RESULTS) -> pd.DataFrame:
    """The sample sheet of a complete configuration, before any job has run: the demo's follows from its settings.

    `results` is the folder of results, which has the data that the workflow renders or clones.
    """
    if config["data"] != "demo":
        return read_sheet(config, results)
    from merba.datasets.demo.planning import plan

    return make_sheet(plan({**config["demo"], "datasets": list(config["datasets"])}, results / DEMO_ROOT.name))


def read_sheet(config: Mapping[str, Any], results: Path = RESULTS) -> pd.DataFrame:
    """The sample sheet of a complete configuration, as its datasets' adapters read it from disk."""
    datasets = config["datasets"]
    if config["data"] == "demo":
        datasets = {name: {**own, "root": results / DEMO_ROOT.name / name} for name, own in datasets.items()}
    return make_sheet(pd.concat([load_dataset(name, settings, results) for name, settings in datasets.items()]))


def load_dataset(name: str, settings: Mapping[str, object], results: Path = RESULTS) -> pd.DataFrame:
    """The sample sheet of the dataset `name`; settings: `adapter`, `root`, and what the adapter's `read` takes.

    Ready-made flow without a root is read from its clone in the folder `results`. Raises MerbaError for an unknown adapter or
    setting, and for files that differ from what the adapter expects.
    """
    options = dict(settings)
    adapter = options.pop("adapter")
    if adapter not in (known_adapters := {**plugins(DATASETS), **ADAPTERS}):
        raise MerbaError(f"datasets.{name}: adapter {unknown(adapter, known_adapters)}")
    read = ADAPTERS[adapter] if adapter in ADAPTERS else loaded(plugins(DATASETS)[adapter])
    known = [key for key in signature(read).parameters if key not in ("root", "name", "clones")]
    root, hints = options.pop("root", None), get_type_hints(read)
    if root is None and adapter != flow_images.ADAPTER:
        raise MerbaError(f"datasets.{name}: set `root` to the folder of the release")
    for key in options:
        if key not in known:
            hint = f"{did_you_mean(key, known)}; adapter {adapter} takes root, {', '.join(known)}"
            raise MerbaError(f"datasets.{name}: unknown key {key!r}{hint}")
        if key in hints and not _fits(options[key], hints[key]):
            raise MerbaError(f"datasets.{name}.{key}: {options[key]!r} doesn't fit; {_TYPES[_kinds(hints[key])[0]]} would")
    if adapter == flow_images.ADAPTER:
        options["clones"] = results / flow_images.CLONES.name
    return read(None if root is None else Path(root), name=name, **options)


def _kinds(hint: Any) -> list[type]:
    """The types that a parameter's annotation allows, without their type arguments; the main one first."""
    return [get_origin(kind) or kind for kind in (get_args(hint) if isinstance(hint, UnionType) else (hint,))]


def _fits(value: object, hint: Any) -> bool:
    kinds = _kinds(hint)
    return isinstance(value, (*kinds, int) if float in kinds else tuple(kinds))
