import pandas as pd

from merba.evaluation import paper_tables
from merba.evaluation.runs import runs_of
from merba.files import atomic
from merba.joblog import job_log

name = snakemake.wildcards.table
with job_log(snakemake.log[0], name):
    make = getattr(paper_tables, name[:7])
    table = make(runs_of(snakemake.params.experiments), pd.read_parquet(snakemake.input.samples), snakemake.params.data)
    with atomic(snakemake.output[0]) as draft:
        table.to_csv(draft, index=False)
