from merba.files import atomic
from merba.joblog import job_log
from merba.sheet import from_plain_rows
from merba.training.experiments import check_experiment

with job_log(snakemake.log[0], f"labels of {snakemake.wildcards.experiment}"):
    rows = from_plain_rows(snakemake.params.rows)
    check_experiment(snakemake.params.experiment, rows["label"].nunique())
    with atomic(snakemake.output[0]) as draft:
        rows.to_parquet(draft, index=False)
