"""Digests of code: what changes a stage's digest and what doesn't, on a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from merba import code
from merba.code import code_digest, modules_of

ROOT = Path(__file__).parents[1]
JOBS = sorted(path.stem for path in (ROOT / "merba" / "jobs").glob("*.py") if path.stem != "__init__")
CACHES = (code._tree, code._imports, code._registry, code._syntax)
EVERY_MODULE = """
import hashlib, json, sys
from pathlib import Path
from merba.code import PACKAGE, canonical
import ast
text = "".join(canonical(ast.parse(path.read_bytes()).body) for path in sorted(PACKAGE.rglob("*.py")))
print(json.dumps([sys.version_info[:2], hashlib.sha256(text.encode()).hexdigest()]))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package, for a test to change; the digests are of its code."""
    folder = Path(shutil.copytree(ROOT / "merba", tmp_path / "merba", ignore=shutil.ignore_patterns("__pycache__")))
    monkeypatch.setattr(code, "PACKAGE", folder)
    forget()
    yield folder
    forget()


def forget():
    for cached in CACHES:
        cached.cache_clear()


def digests(models=("merba_nano",)):
    """The digest of every rule's code, with those models if the rule has any."""
    forget()
    return {job: code_digest(f"merba.jobs.{job}", models if job in ("fold", "labels", "table_1") else ()) for job in JOBS}


def changed(package, module, models=("merba_nano",), text="\nCHANGED = 1\n"):
    """The rules that get another digest from a line at the end of a module."""
    before = digests(models)
    with (package / module).open("a") as file:
        file.write(text)
    after = digests(models)
    return {job for job in JOBS if before[job] != after[job]}


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("preprocessing/faces.py", {"faces", "apex", "flow", "view", "samples_figure", "view_figure"}),
        ("preprocessing/apex.py", {"apex"}),
        ("preprocessing/flow.py", {"flow", "view", "view_figure"}),
        ("preprocessing/tv_l1.py", {"flow", "view", "view_figure"}),
        ("preprocessing/packs.py", {"flow", "pack", "problems", "gate", "fold", "samples_figure", "view", "view_figure"}),
        # No stage of flow depends on views.
        ("preprocessing/views/clips.py", {"view", "view_figure"}),
        ("preprocessing/views/selection.py", {"view", "view_figure"}),
        ("preprocessing/views/figures.py", {"view_figure"}),
        ("jobs/view.py", {"view"}),
        ("datasets/demo/rendering.py", {"render"}),
        ("datasets/smic_hs.py", {"samples"}),
        ("training/loop.py", {"fold"}),
        ("training/resume.py", {"fold"}),
        ("evaluation/clip_counts.py", {"counts"}),
        ("evaluation/report_cells.py", {"summary"}),
        ("evaluation/paper_tables.py", {"table_1", "results_table", "confusion"}),
        ("jobs/gate.py", {"gate"}),
        ("errors.py", set(JOBS)),
        # The command line, the plan and how a configuration is read compute nothing: their results are in parameters.
        ("cli.py", set()),
        ("plan.py", set()),
        ("__init__.py", set()),
        ("config/__init__.py", set()),
        ("commands/train.py", set()),
        ("training/export.py", set()),
        ("prediction/predict.py", set()),
    ],
)
def test_a_change_of_code_changes_the_rules_that_import_it(package, module, rules):
    assert changed(package, module) == rules


def test_a_model_concerns_its_own_folds_alone(package):
    assert changed(package, "models/htnet.py") == set()
    assert changed(package, "models/htnet.py", models=("htnet",), text="\nMORE = 2\n") == {"fold", "labels", "table_1"}
    # MambaVision is built from MERba's blocks; the scan has backends that are imported by name.
    assert changed(package, "models/merba.py", models=("mambavision_tiny",)) == {"fold", "labels", "table_1"}
    assert "fold" in changed(package, "scan/numba_lanes.py")
    assert "fold" not in changed(package, "scan/numba_lanes.py", models=("ststnet",))


def test_a_new_model_and_its_line_in_the_registry_change_nobodys_digest(package):
    before = digests(), digests(("ststnet",))
    (package / "models" / "new.py").write_text("SIZES = {}\n")
    registry = package / "models" / "__init__.py"
    line = '    "ststnet": ("ststnet", "STSTNet"),\n'
    text = registry.read_text()
    assert line in text
    registry.write_text(text.replace(line, line + '    "new": ("new", "New"),\n'))
    assert (digests(), digests(("ststnet",))) == before
    assert digests(("new",)) != before[0]
    registry.write_text(text.replace(line, '    "ststnet": ("ststnet", "Another"),\n'))
    assert (digests() == before[0], digests(("ststnet",)) == before[1]) == (True, False)


def test_comments_docstrings_and_formatting_change_nothing(package):
    before = digests()
    for path in package.rglob("*.py"):
        lines = path.read_text().replace("    ", "  ").splitlines()
        path.write_text("# A comment.\n" + "\n\n".join(f"{line}  " if not line.endswith("\\") else line for line in lines))
        if not lines or not lines[0].startswith('"""'):
            path.write_text(f'"""A docstring."""\n{path.read_text()}')
    assert digests() == before


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x = f'a{b}' 'c'", "x = f'a{b}c'", True),
        ("x = (1)", "x = 1", True),
        ("x = 'a'", 'x = "a"', True),
        ("def f():\n    'Says.'\n    return 1", "def f(): return 1", True),
        ("x = 1", "x = 1.0", False),
        ("x = 1", "x = True", False),
        ("x = None", "x = ...", False),
        ("def f():\n    return", "def f():\n    return None", False),
        ("x = {**a, 'b': 1}", "x = {'b': 1, **a}", False),
        ("x = f'{a}b'", "x = f'b{a}'", False),
        ("x = f'{a:.1f}'", "x = f'{a:.2f}'", False),
        ("x = f'{a!r}'", "x = f'{a}'", False),
        ("def f(a, /): pass", "def f(a): pass", False),
    ],
)
def test_what_syntax_says_the_same(one, other, same):
    read = [code.canonical(code.ast.parse(text).body) for text in (one, other)]
    assert (read[0] == read[1]) == same


def interpreters():
    """Other Pythons of this machine that the package could run on, as their own files."""
    found = [path for minor in range(11, 15) if (path := shutil.which(f"python3.{minor}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return [*found, *sorted(pyenv.glob("versions/3.1[1-4]*/bin/python"))]


def test_digests_are_the_same_under_every_python():
    versions, texts = set(), set()
    for python in [sys.executable, *interpreters()]:
        run = subprocess.run([python, "-c", EVERY_MODULE], cwd=ROOT, capture_output=True, text=True)
        if not run.returncode:  # a name on the path may be a launcher that has no version chosen
            version, digest = json.loads(run.stdout)
            versions.add(tuple(version))
            texts.add(digest)
    if len(versions) < 2:
        pytest.skip("there is only one Python of 3.11 or later")
    assert len(texts) == 1, versions


def test_what_a_training_imports_is_in_its_digest():
    """Imports at run time, compared with those found in the source."""
    train = """
import sys, torch, merba.jobs.fold
from merba.models import create_model
create_model("merba_nano", 3, image_size=28, dropout=0.1)(torch.zeros(2, 2, 28, 28))
print(*(name for name in sys.modules if name.startswith("merba.") and sys.modules[name].__file__))
"""
    run = subprocess.run([sys.executable, "-c", train], cwd=ROOT, capture_output=True, text=True, check=True)
    packages = {"merba.jobs", "merba.training", "merba.evaluation", "merba.preprocessing", "merba.config", "merba.models.cpu"}
    assert set(run.stdout.split()) - packages <= modules_of("merba.jobs.fold", ["merba_nano"])


@pytest.mark.parametrize("job", JOBS)
def test_a_rules_script_is_one_import_and_one_call(job):
    script = (ROOT / "workflow" / "scripts" / f"{job}.py").read_text()
    assert re.fullmatch(rf"from merba\.jobs\.{job} import run\n\nrun\([^()]*(?:\([^()]*\)[^()]*)*\)\n", script)
    assert len(JOBS) == len(list((ROOT / "workflow" / "scripts").glob("*.py")))
