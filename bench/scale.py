"""What planning costs: time and memory of `snakemake -n` over the number of clips, with the jobs and files planned.

    python bench/scale.py [--clips 1000 10000 100000]

The sample sheet is the demo's, planned from its settings: no pixel is rendered and nothing but the plan is made. Three
datasets, 20 clips a subject (so 5,000 subjects at 10⁵ clips), one LOSO experiment, preprocessing by subject. Writes
bench/results/scale.json.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import yaml
from machine import machine, write

ROOT = Path(__file__).parents[1]
CLIPS_OF_A_SUBJECT = 20
GOALS = {"clips": 100_000, "seconds": 60, "gigabytes": 2}


def configuration(clips: int) -> dict:
    """The demo's configuration with that many clips."""
    datasets = ("smic_hs", "casme2", "samm")
    return {
        "data": "demo",
        "demo": {"subjects": round(clips / CLIPS_OF_A_SUBJECT / len(datasets)), "clips": CLIPS_OF_A_SUBJECT},
        "datasets": {name: {"adapter": name, "root": f"results/demo/{name}"} for name in datasets},
        "experiments": {"merba": {"inherit": "merba", "model": {"name": "merba_nano"}}},
    }


def plan(clips: int) -> dict:
    """Seconds and peak memory of one dry run, and what it planned."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(yaml.safe_dump(configuration(clips)))
        command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--cores", "1"]
        command += ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", file]
        # The peak of the child alone: this process would count the benchmark's earlier children too.
        watch = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
        watch += "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        watch += "print('used', used.ru_maxrss, used.ru_utime + used.ru_stime); sys.exit(code)"
        start = perf_counter()
        run = subprocess.run([sys.executable, "-c", watch, *map(str, command)], capture_output=True, text=True, check=True)
        seconds = perf_counter() - start
    jobs = {rule: int(number) for rule, number in re.findall(r"^(\w+) +(\d+)$", run.stdout, re.M)}
    memory, cpu = re.search(r"used (\d+) ([\d.]+)", run.stdout).groups()
    return {
        "clips": clips,
        "subjects": jobs["faces"],
        "jobs": jobs["total"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(float(cpu), 1),  # tells more than the other where the machine has other work
        "gigabytes": round(int(memory) / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    rows = []
    for clips in parser.parse_args().clips:
        rows.append(plan(clips))
        print(rows[-1], flush=True)
    print("written:", write("scale.json", {"machine": machine("snakemake"), "goals": GOALS, "plans": rows}).name)


if __name__ == "__main__":
    main()
