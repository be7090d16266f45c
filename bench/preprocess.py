"""Preprocessing: CPU time of each stage, peak memory, start-up, both TV-L1 solvers, and planning of a folder.

    python bench/preprocess.py [--clips 33] [--subjects 4] [--folder 2000] [--video VIDEO]

Clips are the demo's face at the frame sizes of CASME II and SAMM, without annotated apex. As in the workflow, a job is
one subject and one stage in its own process with one thread, which also imports what Snakemake puts before a
script; times include its start-up and imports. 33 clips per subject are those of a folder of 2,000 clips of
60 subjects, so that `start_up_share` is that folder's. Memory is also measured for a job of FEW clips, to show whether it
grows with them. All times are CPU times, so that a busy machine can be used; they are still longer on one, most of all
when memory is read at random, as in the search for landmarks. Only `speed_up`, of two cores over one on the same jobs, is
wall-clock time, and is measured only on an idle machine.

The project's TV-L1 solver is compared with OpenCV's in the same run: on a single pair of frames (`pair_ms`, medians of runs
that take turns; also scikit-image's TV-L1, which is another algorithm, and DIS), on the stage, and on all stages of one
subject, also with annotated apex. `demo` has the same for the demo's clips of one subject of each dataset, as the cost of
each further clip in a job. `compilation` is the cost of the very first job, `prediction` that of the whole command
`merba predict` (see prediction.py), for which `--video` names a video of a face.

The cost of an apex is the CPU time of its curve and fit over that of the dense flows that the curve is made of. Planning
is a `snakemake -n` of a folder of `--folder` clips of 60 subjects with the adapter `clips`, which must list every clip's
folder, because only the emotion is annotated. Writes bench/results/preprocess.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
SIZES = {"casme2 640×480": (640, 480), "samm 2040×1088": (2040, 1088)}
FRAMES, FEW, FOLDER_SUBJECTS = 20, 4, 60
STAGES = ("faces", "apex", "flow")
IDLE = 0.5
"""Load of a machine below which it counts as idle."""
GOALS = {"speed_up": 1.7, "peak_mb": 1024, "start_up_share": 0.2, "apex_over_flows": 1.5, "planning_seconds": 15}
GOALS |= {"pair": 12, "flow": 6, "all": 3}  # times as fast as with OpenCV's TV-L1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=33, help="clips of a subject")
    parser.add_argument("--subjects", type=int, default=4, help="subjects, an even number")
    parser.add_argument("--folder", type=int, default=2000, help="clips of the folder that is planned")
    parser.add_argument("--video", type=Path, help="a video of a face, for the times of `merba predict`")
    options = parser.parse_args()
    # Before anything imports NumPy, here and in the jobs that inherit it.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from machine import machine, write

    figures = {"machine": machine("opencv-contrib-python-headless", "dlib-bin", "snakemake"), "goals": GOALS}
    figures |= {"clips": options.clips, "subjects": options.subjects, "folder": options.folder, "frames_a_clip": FRAMES}
    figures["times"] = "CPU time, except speed_up and the seconds of planning"
    figures["compilation"] = _compilation()
    figures["sizes"] = {}
    idle = os.getloadavg()[0] < IDLE
    print(f"{'':16} {'stage':6} {'CPU':>14} {'speed-up':>9} {f'{FEW} clips':>9} {'all':>7} {'start-up':>9}")
    for name, size in SIZES.items():
        figures["sizes"][name] = stages = _measure(size, options.subjects, options.clips, idle)
        for stage in STAGES:
            measured = stages[stage]
            print(
                f"{name:16} {stage:6} {measured['cpu_ms_a_clip']:7.0f} ms/clip {measured['speed_up'] or float('nan'):8.2f}× "
                f"{measured['peak_mb'][0]:6.0f} MB {measured['peak_mb'][1]:4.0f} MB {measured['start_up_share']:8.0%}"
            )
        print(
            f"{name:16} start-up of all stages {stages['start_up_share']:.0%}, apex {stages['apex_over_flows']:.2f} × its flows"
        )
        print(f"{name:16} times OpenCV's TV-L1:", *(f"{of} {times:.1f}×" for of, times in stages["times_opencv"].items()))
    figures["demo"] = _demo()
    print("demo, times OpenCV's TV-L1:", *(f"{of} {times:.1f}×" for of, times in figures["demo"]["times_opencv"].items()))
    if options.video:
        from prediction import prediction_times

        figures["prediction"] = prediction_times(options.video)
    figures["planning"] = _plan(options.folder)
    print("planning {clips} clips: {jobs} jobs, {seconds:.1f} s ({cpu_seconds:.1f} s CPU)".format(**figures["planning"]))
    print("written:", write("preprocess.json", figures).name)


def _measure(size: tuple[int, int], subjects: int, clips: int, idle: bool) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(rows, {}) for rows in _subjects(Path(folder), size, subjects, clips)]
        figures, start_up, cpu = {}, {}, {}
        for stage in STAGES:
            rows, made = jobs[0]
            _, (few,) = _run(stage, [(rows.head(FEW), {name: table.head(FEW) for name, table in made.items()})], 1)
            seconds, results = _run(stage, jobs, 1)
            start_up[stage], cpu[stage] = (sum(result[key] for result in results) for key in ("start_up_s", "cpu_s"))
            figures[stage] = {
                "speed_up": seconds / _run(stage, jobs, 2)[0] if idle else None,
                "cpu_ms_a_clip": 1000 * cpu[stage] / subjects / clips,
                "peak_mb": [few["peak_mb"], max(result["peak_mb"] for result in results)],
                "start_up_share": start_up[stage] / cpu[stage],
            }
            jobs = [(rows, {**made, stage: r["made"]}) for (rows, made), r in zip(jobs, results, strict=True)]
        figures["start_up_share"] = sum(start_up.values()) / sum(cpu.values())
        figures["apex_over_flows"] = _apex_over_flows(*jobs[0])
        figures["pair_ms"] = pair = _pair_times(*jobs[0])
        a_subject = {stage: seconds / subjects for stage, seconds in cpu.items()}
        figures["times_opencv"] = {"pair": pair["opencv"] / pair["numba"]} | _times_opencv(a_subject, *jobs[0])
        return figures


def _times_opencv(cpu: dict, rows, made: dict) -> dict[str, float]:
    """CPU time of a subject with OpenCV's solver over ours: of flow, of all stages, of all stages with annotated apexes."""
    _, (opencv,) = _run("flow_opencv", [(rows, made)], 1)
    _, (annotated,) = _run("apex", [(rows.assign(apex=made["apex"]["apex"]), made)], 1)
    more = opencv["cpu_s"] - cpu["flow"]
    return {
        "flow": 1 + more / cpu["flow"],
        "all": 1 + more / sum(cpu.values()),
        "all_annotated": 1 + more / (cpu["faces"] + annotated["cpu_s"] + cpu["flow"]),
    }


def _demo() -> dict:
    """CPU ms of each further clip of the demo in a job, by stage, and the ratios to OpenCV's solver."""
    from merba.datasets.demo.planning import plan
    from merba.datasets.demo.rendering import render

    with tempfile.TemporaryDirectory() as name:
        settings, made, ms = {"seed": 0, "subjects": 1}, {}, {}
        for dataset in ("smic_hs", "casme2", "samm"):
            render(settings, dataset, Path(name))
        rows = plan(settings, Path(name)).reset_index(drop=True)
        for stage in (*STAGES, "flow_opencv"):
            _, (all_, first) = _run(stage, [(rows, made), (rows.head(1), {key: table.head(1) for key, table in made.items()})], 1)
            made[stage] = all_["made"]
            ms[stage] = 1000 * (all_["cpu_s"] - first["cpu_s"]) / (len(rows) - 1)
    opencv, rest = ms.pop("flow_opencv"), ms["faces"] + ms["apex"]
    times = {"flow": opencv / ms["flow"], "all": (rest + opencv) / (rest + ms["flow"])}
    return {"cpu_ms_a_clip": ms | {"flow by OpenCV": opencv}, "times_opencv": times}


def _compilation() -> dict[str, float]:
    """CPU seconds of loading the solver and one pair, in a first process, which compiles, and in a second one."""
    program = """
import time
from merba.preprocessing.flow import FlowSettings, dense_flow
begin = time.process_time()
import numpy as np
dense_flow(*np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8), FlowSettings.of())
print(time.process_time() - begin)
"""
    with tempfile.TemporaryDirectory() as cache:
        command, environment = [sys.executable, "-c", program], {**os.environ, "NUMBA_CACHE_DIR": cache}
        first, second, _ = (
            float(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout)
            for variables in (environment, environment, os.environ)  # the last fills the usual cache for the jobs
        )
    return {"first_job_s": first, "later_jobs_s": second}


def _subjects(root: Path, size: tuple[int, int], subjects: int, clips: int) -> list:
    """The rows of each subject; its clips, without annotated apex, are links to one rendered clip of this size."""
    import pandas as pd

    rendered = _rendered(root)
    frames = root / "frames"
    frames.mkdir()
    for number, image in _frames(rendered):
        _write(frames / f"{number:05d}.jpg", image, size)
    return [
        pd.DataFrame([{**rendered, "subject": f"s{s}", "clip": f"c{c}", "source": str(frames)} for c in range(clips)])
        for s in range(subjects)
    ]


def _rendered(root: Path):
    """The sheet's row of one clip of the demo."""
    from merba.datasets.demo.planning import plan
    from merba.datasets.demo.rendering import render

    settings = {"seed": 0, "datasets": ["smic_hs"], "subjects": 1, "clips": 1, "frames": FRAMES}
    render(settings, "smic_hs", root)
    return plan(settings, root).iloc[0]


def _frames(row):
    from merba.frames import open_clip

    return open_clip(row["source"], row["kind"]).frames(row["onset"], row["offset"])


def _write(path: Path, image, size: tuple[int, int]) -> None:
    """The image as wide as `size`, its height cut to it from the middle."""
    import cv2

    height = round(image.shape[0] * size[0] / image.shape[1])
    image = cv2.resize(image, (size[0], height), interpolation=cv2.INTER_CUBIC)
    top = (height - size[1]) // 2
    cv2.imwrite(str(path), image[top : top + size[1]])


def _run(stage: str, jobs: list, cores: int) -> tuple[float, list[dict]]:
    """Seconds for all jobs on `cores` cores, and what each job returned."""
    context = multiprocessing.get_context("spawn")
    begin = time.perf_counter()
    with ProcessPoolExecutor(cores, mp_context=context, max_tasks_per_child=1) as pool:
        results = list(pool.map(_job, [stage] * len(jobs), *zip(*jobs, strict=True)))
    return time.perf_counter() - begin, results


def _peak_mb() -> float:
    """This process's largest resident memory, MB; getrusage would give the parent's if that was larger (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _job(stage: str, rows, made: dict) -> dict:
    import snakemake.iocontainers
    import snakemake.logging  # noqa: F401  what Snakemake itself puts before a script

    if stage == "faces":
        from merba.preprocessing.faces import faces_of_subject as work
    elif stage == "apex":
        from merba.preprocessing.apex import apexes_of_subject as work
    else:
        import numpy as np
        import pandas as pd

        from merba.preprocessing.flow import flow_format, flow_of_clips, flow_shape
        from merba.preprocessing.packs import save_subject

    settings = {"solver": "opencv" if stage == "flow_opencv" else "numba"}
    start_up = time.process_time()
    if stage == "faces":
        result = work(rows, {})
    elif stage == "apex":
        result = work(rows, made["faces"], {}, {})
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "flow.npz")
            flows = flow_of_clips(rows, made["faces"], made["apex"], settings, {})
            save_subject(path, rows, flows, flow_shape(rows, {}, {}), flow_format(rows, {}))
            with np.load(path) as file:
                result = pd.DataFrame({"problem": file["problem"]}).replace("", None)
    if result["problem"].notna().any():
        sys.exit(f"{stage}: {result['problem'].dropna().iloc[0]}")
    return {"made": result, "start_up_s": start_up, "cpu_s": time.process_time(), "peak_mb": _peak_mb()}


def _apex_over_flows(rows, made: dict) -> float:
    """CPU time of a clip's curve and fit over that of the dense flows from its onset to each of its frames."""
    import cv2

    from merba.preprocessing.apex import ApexSettings, motion_curve
    from merba.preprocessing.faces import aligned_landmarks
    from merba.preprocessing.unimodal import unimodal

    cv2.setNumThreads(1)
    face, frames = made["faces"].iloc[0], _aligned(rows, made)
    solver = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = _cpu_seconds(lambda: [solver.calc(frames[0], frame, None) for frame in frames[1:]])
    apex = _cpu_seconds(lambda: unimodal(motion_curve(frames, aligned_landmarks(face), ApexSettings.of())))
    return apex / flows


def _pair_times(rows, made: dict) -> dict[str, float]:
    """CPU time in ms of the flow between a clip's onset and apex by each solver, which take turns."""
    import cv2
    from skimage.registration import optical_flow_tvl1

    from merba.preprocessing.flow import FlowSettings, dense_flow

    cv2.setNumThreads(1)
    frames = _aligned(rows, made)
    pair = frames[0], frames[int(made["apex"].iloc[0]["apex"] - rows.iloc[0]["onset"])]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    solvers = {
        "numba": lambda: dense_flow(*pair, FlowSettings.of({"solver": "numba"})),
        "opencv": lambda: dense_flow(*pair, FlowSettings.of({"solver": "opencv"})),
        "scikit-image": lambda: optical_flow_tvl1(*pair),
        "dis": lambda: dis.calc(*pair, None),
    }
    times = {name: [] for name in solvers}
    for _ in range(6):
        for name, solver in solvers.items():
            begin = time.process_time()
            solver()
            times[name].append(1000 * (time.process_time() - begin))
    return {name: median(spent[1:]) for name, spent in times.items()}  # the first call loads


def _aligned(rows, made: dict) -> list:
    """The aligned grey frames of the first clip."""
    from merba.preprocessing.faces import FaceSettings, aligned_grey, transform_of

    transform = transform_of(made["faces"].iloc[0])
    return [aligned_grey(image, transform, FaceSettings.of()) for _, image in _frames(rows.iloc[0])]


def _cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of a call, the mean of five after a first one."""
    work()
    begin = time.process_time()
    for _ in range(5):
        work()
    return (time.process_time() - begin) / 5


def _plan(clips: int) -> dict:
    """Seconds of a dry run of a folder of `clips` clips."""
    import yaml

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        frames = root / "frames"
        frames.mkdir()
        for number, image in _frames(_rendered(root)):
            _write(frames / f"{number}.jpg", image, (64, 48))
        lines = ["subject,clip,source,emotion"]
        for clip in range(clips):
            folder = root / "clips" / f"c{clip}"
            folder.mkdir(parents=True)
            for frame in frames.iterdir():
                (folder / frame.name).hardlink_to(frame)
            emotion = ("disgust", "happiness", "surprise")[clip % 3]
            lines.append(f"s{clip % FOLDER_SUBJECTS},c{clip},clips/c{clip},{emotion}")
        (root / "clips.csv").write_text("\n".join(lines))
        config = {
            "data": "own",
            "datasets": {"mine": {"adapter": "clips", "root": name}},
            "experiments": {"merba": {"model": {"name": "merba_nano"}}},
        }
        (root / "config.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "snakemake", "-n", "--cores", "2", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--directory", name, "--configfile", str(root / "config.yaml")]
        before, begin = os.times(), time.perf_counter()
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, after = time.perf_counter() - begin, os.times()
    return {
        "clips": clips,
        "subjects": FOLDER_SUBJECTS,
        "jobs": int(re.search(r"^total +(\d+)$", run.stdout + run.stderr, re.M)[1]),
        "seconds": seconds,
        "cpu_seconds": after.children_user + after.children_system - before.children_user - before.children_system,
    }


if __name__ == "__main__":
    main()
