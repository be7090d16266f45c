from merba.files import atomic
from merba.joblog import job_log
from merba.sheet import read_sheet

with job_log(snakemake.log[0], "sample sheet"):
    sheet = read_sheet(snakemake.config)
    with atomic(snakemake.output[0]) as draft:
        sheet.to_parquet(draft, index=False)
