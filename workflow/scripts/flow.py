from pathlib import Path

import pandas as pd

from merba.joblog import job_log
from merba.preprocessing.flow import flow_format, flow_of_clips, flow_shape
from merba.preprocessing.packs import save_subject
from merba.sheet import from_plain_rows

dataset, subject = snakemake.wildcards.dataset, snakemake.wildcards.subject
with job_log(snakemake.log[0], f"flow of {dataset} {subject}"):
    rows = from_plain_rows(snakemake.params.rows)
    # Ready-made flow images have neither.
    paths = [snakemake.input.get(stage) for stage in ("faces", "apex")]
    faces, apexes = (pd.read_parquet(path) if path else None for path in paths)
    settings = snakemake.params.settings, snakemake.params.faces
    flows = flow_of_clips(rows, faces, apexes, *settings)
    save_subject(Path(snakemake.output[0]), rows, flows, flow_shape(rows, *settings), flow_format(rows, settings[0]))
