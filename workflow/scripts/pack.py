from pathlib import Path

from merba.joblog import job_log
from merba.preprocessing.packs import pack

with job_log(snakemake.log[0], f"pack {snakemake.wildcards.dataset}"):
    pack([Path(path) for path in snakemake.input], Path(snakemake.output.array), Path(snakemake.output.index))
