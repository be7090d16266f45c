"""What an installed package needs and contains, and what a job loads of it."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
import yaml
from checkpoints import CLASSES, checkpoint

from merba.jobs import import_from
from merba.training.checkpoint import save_checkpoint

ROOT = Path(__file__).parents[1]
NOT_BUILT_FROM = shutil.ignore_patterns(".*", "results", "docs", "tests", "bench", "build", "*.egg-info")
# numba, torch and dlib-bin bring the first three; the others are used if they are installed.
BROUGHT = {"llvmlite", "triton", "dlib", "mamba_ssm", "face_alignment"}


@pytest.fixture(scope="module")
def started():
    """Modules that a training job has loaded before its first step, apart from its model."""
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
    assert not {
        "merba.preprocessing.faces",
        "merba.preprocessing.flow",
        "merba.datasets",
        "merba.models.merba",
        "merba.models.htnet",
    } & set(started)


@pytest.mark.long
def test_a_wheel_brings_every_file_that_the_package_reads(tmp_path):
    options = ["-q", "--no-deps", "--no-build-isolation", "-w"]
    shutil.copytree(ROOT, tmp_path / "source", ignore=NOT_BUILT_FROM)
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, tmp_path, tmp_path / "source"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    tracked = {str(path.relative_to(ROOT)) for path in (ROOT / "merba").rglob("*") if path.is_file()}
    tracked = {name for name in tracked if "__pycache__" not in name}
    assert {"merba/config/experiments.yaml", "merba/evaluation/published/table_5_3db.csv"} <= tracked
    assert tracked <= set(ZipFile(wheel).namelist())


@pytest.mark.parametrize("modules", ["merba.plan", "merba.jobs.flow, merba.preprocessing.tv_l1"])
def test_planning_and_a_flow_job_do_not_load_pytorch(modules):
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_command_line_starts_without_numpy():
    code = "import sys, merba.cli; merba.cli.command_parser(); print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_making_models_as_shapes_does_not_load_pytorchs_compiler():
    """Every start of `merba predict`, a labels job and a fold job does this; the compiler would add a second."""
    code = """
import sys
from merba.models import MODELS, check_model
for name in MODELS:
    check_model({"name": name}, 3)
    assert "torch._dynamo" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("preprocessing/faces.py", "from merba.training.loop import predict", "Imports run one way"),
        ("sheet.py", "import torch", "Planning never imports PyTorch"),
        ("models/heads.py", "import merba.models.merba", "No module imports itself by way of others"),
    ],
)
def test_an_import_that_goes_the_wrong_way_is_found(tmp_path, module, line, contract):
    shutil.copytree(ROOT / "merba", tmp_path / "merba")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "merba" / module).open("a") as file:
        file.write(f"{line}\n")
    lint = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run([lint, "--no-cache"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"{contract} BROKEN" in run.stdout


def test_conda_takes_the_locked_versions_without_what_would_bring_another_opencv():
    conda = yaml.safe_load((ROOT / "envs" / "conda.yaml").read_text())
    (pins,) = (part["pip"] for part in conda["dependencies"] if isinstance(part, dict))
    locked = [line for name in ("torch", "cpu") for line in (ROOT / "envs" / f"{name}.txt").read_text().splitlines()]
    assert pins == [line for line in locked if line[0] != "#" and not line.startswith("face_alignment")]


def test_jobs_import_the_package_of_the_checkout_first(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/other")
    for _ in range(2):
        import_from("/checkout")
    assert os.environ["PYTHONPATH"] == f"/checkout{os.pathsep}/other"
    monkeypatch.delenv("PYTHONPATH")
    import_from("/checkout")
    assert os.environ["PYTHONPATH"] == "/checkout"


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_predicts_with_no_file_of_the_checkout(tmp_path, photograph):
    save_checkpoint(tmp_path / "model.safetensors", checkpoint())
    (tmp_path / "clip").mkdir()
    for number in range(1, 7):  # a face that moves by one pixel per frame
        cv2.imwrite(str(tmp_path / "clip" / f"{number:04}.png"), np.roll(photograph, number, 0))
    shutil.copytree(ROOT, tmp_path / "source", ignore=NOT_BUILT_FROM)
    run = partial(subprocess.run, cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": ""})
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", ".", "./source"])
    shutil.rmtree(tmp_path / "source")
    run([sys.executable, "-m", "venv", "empty"])
    (wheel,) = tmp_path.glob("*.whl")
    # In the locked versions, so that nothing is resolved again.
    locks = [f"--constraint={ROOT / 'envs' / name}.txt" for name in ("torch", "cpu")]
    run(["empty/bin/pip", "install", "-q", *locks, f"{wheel}[video,plots]"])
    command = ["empty/bin/merba", "predict", "clip", "--checkpoint", "model.safetensors", "--out", "predictions", "--json"]
    (prediction,) = json.loads(run(command, capture_output=True, text=True).stdout)["predictions"]
    assert prediction["predicted"] in CLASSES
    assert list((tmp_path / "predictions").glob("*.png"))
    where = run(["empty/bin/python", "-c", "import merba; print(merba.__file__)"], capture_output=True, text=True).stdout
    assert Path(where.strip()).is_relative_to(tmp_path / "empty")


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_editors_find_the_schema_of_a_shipped_configuration(path):
    line = path.read_text().splitlines()[0]
    assert line.startswith("# yaml-language-server: $schema=")
    assert yaml.safe_load((path.parent / line.partition("=")[2]).read_text())["title"] == "Configuration of the merba workflow"
