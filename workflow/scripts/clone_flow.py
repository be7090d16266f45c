from pathlib import Path

from merba.datasets.flow_images import clone
from merba.joblog import job_log

source = snakemake.params.source
with job_log(snakemake.log[0], f"clone {source['repository']} at {source['commit']}"):
    clone(source["repository"], source["commit"], Path(snakemake.output[0]).with_suffix(""))
    Path(snakemake.output[0]).touch()
