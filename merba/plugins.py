"""Models and datasets from outside: entry points of installed packages, and a user's own file.

Listing and hashing them imports nothing, so that planning needs no PyTorch.
"""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from merba.errors import MerbaError
from merba.files import checksum

MODELS, DATASETS = "merba.models", "merba.datasets"
"""The groups of entry points: classes of models, and functions that read a dataset."""


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group in all installed packages, by name."""
    return {entry.name: entry for entry in entry_points(group=group)}


def loaded(entry: EntryPoint) -> Any:
    """The class or function of an entry point. Raises MerbaError if its package can't be imported."""
    try:
        return entry.load()
    except Exception as error:  # whatever another package raises
        raise MerbaError(
            f"{entry.group}: {entry.name} ({entry.value}) can't be imported: {type(error).__name__}: {error}; fix or uninstall "
            "the package that provides it"
        ) from error


def entry_digest(entry: EntryPoint) -> str:
    """A short hash of an entry point and of its module's file, which is found without importing it."""
    root, *parts = entry.module.split(".")
    spec = find_spec(root)
    file = Path(spec.origin) if spec and spec.origin else None
    if file and parts:
        place = file.parent.joinpath(*parts)
        file = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
    version = checksum(file) if file and file.is_file() else getattr(entry.dist, "version", "")
    return hashlib.sha256(f"{entry.name} {entry.value} {version}".encode()).hexdigest()[:16]


def class_of_file(path: Path, name: str) -> type:
    """Run a Python file and return its class `name`. Raises MerbaError if the file can't be run or has no such class."""
    if not path.is_file():
        raise MerbaError(f"model.file: {path} doesn't exist; a relative path starts at the folder of the run")
    # The module's name comes from the content: a changed file is a new module, and an unchanged one is run only once.
    module_name = f"merba_own_{checksum(path)[:16]}"
    if module_name not in sys.modules:
        module = sys.modules[module_name] = ModuleType(module_name)
        module.__file__ = str(path)
        try:
            exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
        except Exception as error:  # whatever the user's file raises
            del sys.modules[module_name]
            raise MerbaError(f"model.file: {path} can't be run: {type(error).__name__}: {error}") from error
    model_class = getattr(sys.modules[module_name], name, None)
    if not isinstance(model_class, type):
        known = [key for key, value in vars(sys.modules[module_name]).items() if getattr(value, "__module__", "") == module_name]
        raise MerbaError(f"model.class: {path} has no class {name!r}; it has {', '.join(known) or 'none'}")
    return model_class
