from pathlib import Path

import pandas as pd

from merba.evaluation.report import write_report
from merba.evaluation.report_cells import WORDS
from merba.evaluation.runs import runs_of
from merba.files import atomic
from merba.joblog import job_log

with job_log(snakemake.log[0], "summary of the run"):
    runs = runs_of(snakemake.params.experiments)
    titles = [f"{method}, test set {WORDS[split]}" if split else method for method, split in snakemake.params.matrices]
    figures = [Path(path) for path in snakemake.input.figures]
    with atomic(snakemake.output[0]) as draft:
        write_report(
            draft,
            data=snakemake.params.data,
            tables=[Path(path) for path in snakemake.input.tables],
            runs=runs,
            matrices=dict(zip(map(Path, snakemake.input.matrices), titles, strict=True)),
            samples={path.stem.removeprefix("samples_"): path for path in figures},
            problems=Path(snakemake.input.problems),
            preprocessing=Path(snakemake.input.preprocessing),
            sheet=pd.read_parquet(snakemake.input.samples),
            logs=Path("logs"),
        )
