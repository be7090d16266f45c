from merba.datasets import read_sheet
from merba.files import atomic
from merba.joblog import job_log

with job_log(snakemake.log[0], "sample sheet"):
    sheet = read_sheet(snakemake.config)
    with atomic(snakemake.output[0]) as draft:
        sheet.to_parquet(draft, index=False)
