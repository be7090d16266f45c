from merba.files import atomic
from merba.joblog import job_log
from merba.sheet import from_plain_rows

with job_log(snakemake.log[0], f"labels of {snakemake.wildcards.experiment}"), atomic(snakemake.output[0]) as draft:
    from_plain_rows(snakemake.params.rows).to_parquet(draft, index=False)
