"""Preprocessing: clips per second of each stage on one and two cores, peak memory, and what start-up costs.

Run: python bench/preprocess.py. Clips are the demo's face at the frame sizes of CASME II and SAMM. As in the workflow,
a job is one subject and one stage in a process of its own with one thread; rates and CPU times include its start-up
and imports. Two cores are compared with one on the same jobs in the same run, so the machine must be otherwise idle.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SIZES = {"casme2 640×480": (640, 480), "samm 2040×1088": (2040, 1088)}
SUBJECTS, CLIPS, FRAMES = 4, 8, 20
STAGES = ("faces", "apex", "flow")


def main() -> None:
    # Before anything imports NumPy, here and in the jobs that inherit it.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from machine import machine, write

    figures = {
        "machine": machine("opencv-contrib-python-headless", "dlib-bin"),
        "load_before": os.getloadavg()[0],
        "subjects": SUBJECTS,
        "clips_a_subject": CLIPS,
        "frames_a_clip": FRAMES,
        "sizes": {name: _measure(size) for name, size in SIZES.items()},
    }
    write("preprocess.json", figures)
    print(f"{'':16} {'stage':6} {'1 core':>9} {'2 cores':>9} {'speed-up':>9} {'memory':>8} {'start-up':>9}")
    for name, stages in figures["sizes"].items():
        for stage, found in stages.items():
            print(
                f"{name:16} {stage:6} {found['clips_per_s'][0]:7.2f}/s {found['clips_per_s'][1]:7.2f}/s "
                f"{found['speed_up']:8.2f}× {found['peak_mb']:5.0f} MB {found['start_up_share']:8.0%}"
            )


def _measure(size: tuple[int, int]) -> dict[str, dict]:
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(rows, {}) for rows in _subjects(Path(folder), size)]
        figures = {}
        for stage in STAGES:
            one, results = _run(stage, jobs, 1)
            two, _ = _run(stage, jobs, 2)
            figures[stage] = {
                "clips_per_s": [SUBJECTS * CLIPS / one, SUBJECTS * CLIPS / two],
                "speed_up": one / two,
                "peak_mb": max(result["peak_mb"] for result in results),
                "start_up_share": sum(r["start_up_s"] for r in results) / sum(r["cpu_s"] for r in results),
            }
            jobs = [(rows, {**made, stage: r["made"]}) for (rows, made), r in zip(jobs, results, strict=True)]
        return figures


def _subjects(root: Path, size: tuple[int, int]) -> list:
    """The rows of each subject; its clips, with no apex annotated, are links to one rendered clip of this size."""
    import cv2
    import pandas as pd

    from merba.datasets.demo.planning import plan
    from merba.datasets.demo.rendering import render

    settings = {"seed": 0, "datasets": ["smic_hs"], "subjects": 1, "clips": 1, "frames": FRAMES}
    render(settings, "smic_hs", root)
    rendered = plan(settings, root).iloc[0]
    frames = root / "frames"
    frames.mkdir()
    for number in range(rendered["onset"], rendered["offset"] + 1):
        image = cv2.imread(str(Path(rendered["source"]) / f"image{number}.bmp"))
        height = round(image.shape[0] * size[0] / image.shape[1])
        image = cv2.resize(image, (size[0], height), interpolation=cv2.INTER_CUBIC)
        top = (height - size[1]) // 2
        cv2.imwrite(str(frames / f"{number:05d}.jpg"), image[top : top + size[1]])
    return [
        pd.DataFrame([{**rendered, "subject": f"s{s}", "clip": f"c{c}", "source": str(frames)} for c in range(CLIPS)])
        for s in range(SUBJECTS)
    ]


def _run(stage: str, jobs: list, cores: int) -> tuple[float, list[dict]]:
    """Seconds for all jobs on so many cores, and what each returned."""
    context = multiprocessing.get_context("spawn")
    begin = time.perf_counter()
    with ProcessPoolExecutor(cores, mp_context=context, max_tasks_per_child=1) as pool:
        results = list(pool.map(_job, [stage] * len(jobs), *zip(*jobs, strict=True)))
    return time.perf_counter() - begin, results


def _peak_mb() -> float:
    """This process's largest resident memory; getrusage would give the parent's where that was larger (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _job(stage: str, rows, made: dict) -> dict:
    from merba.apex import apexes_of_subject
    from merba.faces import faces_of_subject
    from merba.flow import flow_of_subject

    start_up = time.process_time()
    if stage == "faces":
        result = faces_of_subject(rows, {})
    elif stage == "apex":
        result = apexes_of_subject(rows, made["faces"], {}, {})
    else:
        _, result = flow_of_subject(rows, made["faces"], made["apex"], {}, {})
    if result["problem"].notna().any():
        sys.exit(f"{stage}: {result['problem'].dropna().iloc[0]}")
    return {
        "made": result,
        "start_up_s": start_up,
        "cpu_s": time.process_time(),
        "peak_mb": _peak_mb(),
    }


if __name__ == "__main__":
    main()
