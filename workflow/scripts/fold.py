from pathlib import Path

import pandas as pd

from merba.joblog import job_log
from merba.training.devices import keep_compiled
from merba.training.fold import load_fold, run_fold

dataset, subject, name = (snakemake.wildcards[key] for key in ("dataset", "subject", "experiment"))
with job_log(snakemake.log[0], f"fold {dataset} {subject} of {name}"):
    config, experiment = snakemake.config, snakemake.params.experiment
    keep_compiled(Path("results", "compiled"))
    fold = load_fold(
        config,
        experiment,
        dataset=dataset,
        subject_id=subject,
        sheet=pd.read_parquet(snakemake.input.labels),
        packs=[(Path(array), Path(array).with_suffix(".parquet")) for array in snakemake.input.arrays],
    )
    # Snakemake deletes the outputs of a failed job: what an interrupted one goes on from lies elsewhere.
    progress = Path("results", "progress", name, dataset, subject)
    run_fold(config, experiment, fold, Path(snakemake.output.predictions).parent, progress=progress)
