from pathlib import Path

import cv2

from merba.datasets import DEMO_ROOT
from merba.datasets.demo.rendering import render
from merba.joblog import job_log

dataset = snakemake.wildcards.dataset
with job_log(snakemake.log[0], f"render demo {dataset}"):
    cv2.setNumThreads(1)
    render(snakemake.params.demo, dataset, DEMO_ROOT)
    Path(snakemake.output[0]).touch()
