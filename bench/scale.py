"""The cost of planning: time and memory of Snakemake over the number of clips, with the jobs and files planned.

    python bench/scale.py [--clips 1000 10000 100000]

The clips are in three datasets of a user's own videos (adapter `clips`). The videos are empty files: planning looks at names,
sizes and times, never at a pixel. There are 20 clips per subject (so 5,000 subjects at 10⁵ clips) and one LOSO experiment.
`snakemake -n --quiet` ends where a run would start its first job; a dry run that goes through all jobs, as `snakemake -n` does
to list them, is measured too. Writes bench/results/scale.json.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter

import yaml
from machine import machine, write

ROOT = Path(__file__).parents[1]
CLIPS_OF_A_SUBJECT = 20
DATASETS = ("smic_hs", "casme2", "samm")
EMOTIONS = ("disgust", "happiness", "surprise")
GOALS = {"clips": 100_000, "seconds": 60, "gigabytes": 2}


def make_dataset(root: Path, subjects: int) -> None:
    """Write a table of clips and their empty videos, one folder per subject."""
    lines = ["subject,clip,source,emotion"]
    for subject in range(subjects):
        (root / f"s{subject:04d}").mkdir(parents=True)
        for clip in range(CLIPS_OF_A_SUBJECT):
            source = f"s{subject:04d}/{clip:02d}.mp4"
            (root / source).touch()
            lines.append(f"s{subject:04d},{clip:02d},{source},{EMOTIONS[clip % len(EMOTIONS)]}")
    (root / "clips.csv").write_text("\n".join(lines) + "\n")


def make_run(folder: Path, clips: int) -> None:
    """Fill a folder with `clips` clips and a configuration for them."""
    for name in DATASETS:
        make_dataset(folder / name, round(clips / CLIPS_OF_A_SUBJECT / len(DATASETS)))
    configuration = {
        "data": "own",
        "datasets": {name: {"adapter": "clips", "root": name} for name in DATASETS},
        "experiments": {"merba": {"inherit": "merba", "model": {"name": "merba_nano"}}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))


def snakemake(folder: Path, *options: str) -> tuple[str, dict[str, float]]:
    """Snakemake's output, and the seconds, CPU seconds and gigabytes that it took."""
    command = [sys.executable, "-m", "snakemake", *options, "--cores", "1"]
    command += ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", folder / "config.yaml"]
    # Only of the child: this process would also count the benchmark's earlier children.
    watch = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    watch += "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    watch += "print('used', used.ru_maxrss, used.ru_utime + used.ru_stime); sys.exit(code)"
    start = perf_counter()
    command = [sys.executable, "-c", watch, *map(str, command)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds = perf_counter() - start
    memory, cpu = re.search(r"used (\d+) ([\d.]+)", printed).groups()
    # CPU seconds are more reliable than the others if the machine has other work.
    used = {"seconds": seconds, "cpu_seconds": float(cpu), "gigabytes": int(memory) / 2**20}
    return printed, {name: round(value, 2 if name == "gigabytes" else 1) for name, value in used.items()}


def listed(folder: Path) -> tuple[dict[str, int], dict[str, float]]:
    """Jobs by rule of a dry run that goes through all of them, and its cost."""
    printed, used = snakemake(folder, "-n", "--quiet", "rules")
    return {rule: int(number) for rule, number in re.findall(r"^(\w+) +(\d+)$", printed, re.M)}, used


def files_of_jobs() -> dict[str, float]:
    """Outputs and logs of one job of each rule, counted in a small run."""
    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder), 12 * CLIPS_OF_A_SUBJECT)
        jobs, _ = listed(Path(folder))
        summary, _ = snakemake(Path(folder), "--summary")
    rules = [line.split("\t")[2] for line in summary.splitlines()[1:-1]]
    return {rule: number / jobs[rule] + 1 for rule, number in Counter(rules).items()}


def plan(clips: int, files: dict[str, float]) -> dict:
    """The cost of planning `clips` clips, and what is planned."""
    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder), clips)
        _, used = snakemake(Path(folder), "-n", "--quiet")
        jobs, used_by_list = listed(Path(folder))
    return {
        "clips": clips,
        "subjects": jobs["faces"],
        "jobs": jobs["total"],
        "files": round(sum(number * files.get(rule, 0) for rule, number in jobs.items())),
        **used,
        "list": used_by_list,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    sizes = parser.parse_args().clips
    about, rows, files = machine("snakemake"), [], files_of_jobs()
    for clips in sizes:
        rows.append(plan(clips, files))
        print(rows[-1], flush=True)
    print("written:", write("scale.json", {"machine": about, "goals": GOALS, "plans": rows}).name)


if __name__ == "__main__":
    main()
