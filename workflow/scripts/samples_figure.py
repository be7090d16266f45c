import numpy as np
import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.apex import UNITS
from merba.preprocessing.figures import plot_samples
from merba.sheet import subject_rows

dataset, subject = snakemake.wildcards.dataset, snakemake.params.subject
with job_log(snakemake.log[0], f"sample figure of {dataset}"):
    rows = subject_rows(pd.read_parquet(snakemake.input.samples), dataset, subject)
    # One clip of each class.
    chosen = rows.drop_duplicates("label").index
    with np.load(snakemake.input.flow) as file, atomic(snakemake.output[0]) as draft:
        found = {name: file[name][chosen] for name in ("flow", "head_motion", "problem")}
        plot_samples(
            rows.loc[chosen],
            pd.read_parquet(snakemake.input.faces).loc[chosen],
            pd.read_parquet(snakemake.input.apex).loc[chosen],
            found | {"channels": file["channels"]},
            face_settings=snakemake.params.faces,
            unit=UNITS[snakemake.params.curve],
            path=draft,
        )
