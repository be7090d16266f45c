"""What an installed package needs and brings, and what a job loads of it."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from merba.config import LIBRARY

ROOT = Path(__file__).parents[1]
# numba, torch and dlib-bin bring the first three; the others are used where somebody has installed them.
BROUGHT = {"llvmlite", "triton", "dlib", "mamba_ssm", "face_alignment"}


@pytest.fixture(scope="module")
def started():
    """Modules that a training job has loaded before its first step, but for its model."""
    code = "import sys, merba.commands.train, merba.training.fold; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def imported(path, *, everywhere):
    """Top-level names of the other packages that a module imports, those within functions too if `everywhere`."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree) if everywhere else tree.body)
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names} - {"merba", *sys.stdlib_module_names}


def distributions(requirements):
    return {re.match(r"[\w-]+", one)[0].casefold() for one in requirements}


def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for extra in project["optional-dependencies"].values() for one in extra]
    return distributions(project["dependencies"]), distributions(extras)


def undeclared(names, known):
    by_name = packages_distributions()
    return {name for name in names - BROUGHT if not known & {one.casefold() for one in by_name.get(name, [name])}}


def test_every_import_is_declared():
    core, extras = declared()
    names = set().union(*(imported(path, everywhere=True) for path in (ROOT / "merba").rglob("*.py")))
    assert undeclared(names, core | extras) == set()


def test_training_needs_no_extra(started):
    files = [ROOT / f"{name.replace('.', '/')}.py" for name in started if name.startswith("merba.")]
    names = set().union(*(imported(path, everywhere=False) for path in files if path.exists()))
    assert {"torch", "pandas"} <= names
    assert undeclared(names, declared()[0]) == set()


def test_a_training_job_loads_nothing_of_other_stages(started):
    assert not {"cv2", "dlib", "matplotlib", "sklearn", "openpyxl", "jinja2", "snakemake"} & set(started)
    assert not {"merba.preprocessing.faces", "merba.preprocessing.flow", "merba.datasets", "merba.models.merba", "merba.models.htnet"} & set(started)


def test_the_package_brings_the_shipped_experiments():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["merba"]
    assert LIBRARY.relative_to(ROOT / "merba").name in patterns
    assert not LIBRARY.is_symlink(), "some checkouts have no links"
