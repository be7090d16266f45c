from pathlib import Path

from merba.joblog import job_log
from merba.preprocessing.packs import check_problems

with job_log(snakemake.log[0], "gate before training"):
    check_problems(Path(snakemake.input[0]), drop=snakemake.params.on_problem == "drop")
