from merba.evaluation.paper_tables import table_1
from merba.files import atomic
from merba.joblog import job_log

with job_log(snakemake.log[0], "table 1"), atomic(snakemake.output[0]) as draft:
    table_1(snakemake.params.models).to_csv(draft, index=False)
