import pandas as pd

from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.packs import preprocessing_summary
from merba.sheet import KEY

with job_log(snakemake.log[0], "problems and head motion of all clips"):
    clips = pd.concat([pd.read_parquet(path) for path in snakemake.input], ignore_index=True)
    with atomic(snakemake.output.problems) as draft:
        clips.loc[clips["problem"].notna(), [*KEY, "problem"]].to_csv(draft, index=False)
    with atomic(snakemake.output.summary) as draft:
        preprocessing_summary(clips).to_csv(draft, index=False)
