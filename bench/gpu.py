"""Everything that MERba does on a CUDA GPU: checked against the reference, then timed.

    python bench/gpu.py [--only smoke compile check training scan launch mixer loso] [--results FOLDER] [--dry]

`bench/gpu_all.sh` runs all parts, each within a time limit. It needs only PyTorch for CUDA (with its Triton), NumPy and this
package; whole folds (loso) also need pandas, pyarrow, scikit-learn and safetensors. If mamba-ssm is installed with its Mamba-1
kernel (`bench/build_mamba_ssm.sh`), that is checked and timed too.

Each part runs in its own process, because a process can't be used after a CUDA error. What fails is named, and the rest
continues. gpu.json is written after every call, to bench/results or the given folder; the exit code is 1 if anything failed.
With --dry everything runs on the CPU at a small size: this shows that the program works, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from gpu_checks import CHECKED_MODELS, check_model, check_scan, checks
from gpu_scan import best_launch, launches, mixers, scans
from gpu_setup import DRY, GPU, STATES, TYPES, WINDOW, Calls, Setup
from gpu_training import loso, time_training, train_small, train_whole, trainings, whole_loso
from machine import RESULTS, machine, write

from merba.scan import backends

GOALS = {"mixer_times_as_fast": 2, "merba_base_flops_utilisation": 0.2, "loso_minutes_in_one_process": 30}  # on one H100
SPOILED = 3
"""Exit code of a child that can't use CUDA any more after a failed call: the other calls need a new process."""
MARK = "figures: "
"""The beginning of the lines that a child writes for its parent."""


def smoke(setup: Setup) -> Calls:
    """The device, one scan and one small training without compilation: shows whether anything works at all."""
    return {
        "device": partial(device_facts, setup.device),
        "scan": scans(replace(setup, batch=2, repeats=1))[f"stage 4, bf16, {setup.backends[0]}"],
        "training": partial(train_small, setup.device),
    }


def device_facts(device: str) -> dict:
    if device == "cpu":
        return {"name": "cpu"}
    free, memory = torch.cuda.mem_get_info()
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    return {"name": torch.cuda.get_device_name(), "capability": capability, "memory_gb": memory / 1e9, "free_gb": free / 1e9}


def compilations(setup: Setup) -> Calls:
    """Calls that compile, in parallel processes with shared caches, what later parts would compile one by one; slowest first."""
    calls = {"a fold": partial(train_whole, setup, 0, 1)}
    calls |= {f"{name}, step": partial(time_training, name, setup, True) for name in setup.models}
    for backend in setup.usable():
        for model in CHECKED_MODELS:
            calls[f"{backend}, {model}"] = partial(check_model, model, backend, setup.device, setup.compiler)
        for kind in TYPES:
            for side, channels, window in {sizes[1] % 16: sizes for sizes in setup.maps.values()}.values():
                label = f"{backend}, {channels} channels, {kind}"
                calls[label] = partial(check_scan, backend, side, channels, 2, kind, setup.device, window)
    calls |= {f"backward, {label}": call for label, call in launches(setup).items()}
    return {label: partial(seconds, call) for label, call in calls.items()}


def seconds(call: Callable[[], object]) -> dict[str, float]:
    begin = perf_counter()
    call()
    return {"seconds": perf_counter() - begin}


PARTS: dict[str, Callable[[Setup], Calls]] = {
    "smoke": smoke,
    "compile": compilations,
    "check": checks,
    "training": trainings,
    "scan": scans,
    "launch": launches,
    "mixer": mixers,
    "loso": loso,
}
SUMMARIES = {"launch": best_launch, "loso": whole_loso}


def run_calls(calls: Calls, labels: Sequence[str], device: str) -> None:
    """A child's work: print the figures of each call, or why it failed; exit with SPOILED after a lasting CUDA error."""
    for label in labels:
        spoiled = False
        try:
            figures = calls[label]()
        except Exception as problem:  # a kernel that doesn't compile, too little memory, a wrong result
            figures = {"failed": f"{type(problem).__name__}: {problem}"}
            spoiled = device == "cuda" and is_spoiled()
        print(MARK + json.dumps([label, figures]), flush=True)
        if spoiled:
            sys.exit(SPOILED)
        if device == "cuda":
            torch.cuda.empty_cache()


def is_spoiled() -> bool:
    try:
        torch.cuda.synchronize()
    except Exception:
        return True
    return False


def by_child(command: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """Labels and figures of calls, as a process of `command` with the labels prints them; if it ends, a new one continues."""
    left = list(labels)
    while left:
        with subprocess.Popen([*command, *left], stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout:
                if line.startswith(MARK):
                    label, figures = json.loads(line.removeprefix(MARK))
                    left.remove(label)
                    yield label, figures
        if left and child.returncode != SPOILED:
            yield left.pop(0), {"failed": f"its process ended with {child.returncode}"}


def side_by_side(command: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """As `by_child`, with a process for each call, as many at a time as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for finished in as_completed([pool.submit(list, by_child(command, [label])) for label in labels]):
            yield from finished.result()


def measure(part: str, setup: Setup, options: Sequence[str] = ()) -> Iterator[tuple[str, dict]]:
    """Labels and figures of a part's calls."""
    command = [sys.executable, __file__, *options, "--only", part, "--calls"]
    run = side_by_side if part == "compile" else by_child
    yield from run(command, list(PARTS[part](setup)))


def show(label: str, figures: dict) -> None:
    cells = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items())
    print(f"  {label:40}", ", ".join(cells), flush=True)


def kept(figures: dict, folder: Path) -> dict:
    """What an earlier run of this script, with --only, has measured on the same machine with the same versions."""
    written = folder / "gpu.json"
    before = json.loads(written.read_text()) if written.exists() else {"machine": {}}
    same = ("processor", "gpu", "python", "versions")
    return before if all(before["machine"].get(key) == figures["machine"][key] for key in same) else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where gpu.json goes (default: bench/results)")
    parser.add_argument("--dry", action="store_true", help="run all of it in little on the CPU, to see that it works")
    parser.add_argument("--calls", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    setup = DRY if options.dry else GPU
    if options.dry:
        os.environ["TRITON_INTERPRET"] = "1"  # its kernels run on the CPU
    if options.calls:
        run_calls(PARTS[options.only[0]](setup), options.calls, setup.device)
        return
    if options.dry and options.results.resolve() == RESULTS.resolve():
        parser.error("--dry measures nothing that belongs into bench/results: name another folder with --results")
    if setup is GPU and not torch.cuda.is_available():
        sys.exit("bench/gpu.py measures CUDA kernels, but PyTorch sees no CUDA device here; nothing was measured")

    about = {"machine": machine("triton", "mamba-ssm"), "goals": GOALS} | ({"dry": True} if options.dry else {})
    figures = kept(about, options.results) | about | {"batch": setup.batch, "states": STATES, "window": WINDOW}
    print(figures["machine"]["gpu"] or "no GPU")
    for name, (usable, reason) in backends().items():
        print(f"  {name:9} {'usable' if usable else 'not usable'}: {reason}")
    failed = []
    for part in options.only:
        print(part, flush=True)
        figures[part] = {}
        for label, row in measure(part, setup, ["--dry"] if options.dry else []):
            figures[part][label] = row
            failed += [f"{part}, {label}"] if "failed" in row else []
            show(label, row)
            if part in SUMMARIES and (summary := SUMMARIES[part](figures[part])):
                figures[part]["in all"] = summary
            write("gpu.json", figures, options.results)
        if "in all" in figures[part]:
            show("in all", figures[part]["in all"])
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
