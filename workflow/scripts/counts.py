import pandas as pd

from merba.evaluation import clip_counts
from merba.files import atomic
from merba.joblog import job_log

with job_log(snakemake.log[0], snakemake.rule.replace("_", " ")):
    sheet = pd.read_parquet(snakemake.input.samples)
    rows = sheet[sheet["dataset"].isin(snakemake.params.datasets)]
    problems = pd.read_csv(snakemake.input.problems, dtype=str, keep_default_na=False)
    table = getattr(clip_counts, snakemake.rule)  # table_2 or table_3
    with atomic(snakemake.output[0]) as draft:
        table(rows, snakemake.params.data, problems).to_csv(draft, index=False)
