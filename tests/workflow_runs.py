"""Running the workflow in a folder, for tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MICRO = ROOT / "tests" / "micro.yaml"


def snakemake(folder, *arguments, config=MICRO, fails=False, root=ROOT):
    """Run the workflow of the checkout `root` in `folder` on two cores; returns its output. Fails unless it ends as expected."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", root / "Snakefile", "--directory", folder]
    if config:
        command += ["--configfile", config]
    run = subprocess.run(
        [*map(str, command), "--cores", "2", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=3000,
    )
    assert (run.returncode != 0) == fails, run.stdout
    return run.stdout


def planned(output):
    """Job counts by rule of a dry run's output."""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", output, re.M)}


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if ".snakemake" not in path.parts)


def configured(folder, base=MICRO, **changes):
    """The configuration `base` with top-level keys replaced, as a file in `folder`; a key of None is left out."""
    path = folder / "config.yaml"
    document = yaml.safe_load(base.read_text()) | changes
    path.write_text(yaml.safe_dump({k: v for k, v in document.items() if v is not None}, sort_keys=False))
    return path


def pretend(folder, config=MICRO, root=ROOT):
    """Make Snakemake believe that the workflow of a checkout has run in `folder`: its outputs are empty files."""
    made = re.findall(r"^(results/\S+)\t", snakemake(folder, "--summary", config=config, root=root), re.M)
    for path in (folder / name for name in made):
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()
    snakemake(folder, "--touch", "--forceall", config=config, root=root)
