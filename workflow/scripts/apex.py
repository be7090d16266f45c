import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.apex import apexes_of_subject
from merba.sheet import from_plain_rows

dataset, subject = snakemake.wildcards.dataset, snakemake.wildcards.subject
with job_log(snakemake.log[0], f"apexes of {dataset} {subject}"):
    rows = from_plain_rows(snakemake.params.rows)
    apexes = apexes_of_subject(rows, pd.read_parquet(snakemake.input.faces), snakemake.params.settings, snakemake.params.faces)
    with atomic(snakemake.output[0]) as draft:
        apexes.to_parquet(draft, index=False)
