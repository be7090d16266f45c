from pathlib import Path

import pandas as pd

from merba.experiments import run_fold
from merba.joblog import job_log

dataset, subject, experiment = (snakemake.wildcards[key] for key in ("dataset", "subject", "experiment"))
with job_log(snakemake.log[0], f"fold {dataset} {subject} of {experiment}"):
    run_fold(
        snakemake.config,
        snakemake.params.experiment,
        dataset=dataset,
        subject_id=subject,
        sheet=pd.read_parquet(snakemake.input.samples),
        packs=list(zip(map(Path, snakemake.input.arrays), map(Path, snakemake.input.indexes), strict=True)),
        predictions=Path(snakemake.output.predictions),
        history=Path(snakemake.output.history),
        record=Path(snakemake.output.record),
    )
