from merba.files import atomic
from merba.joblog import job_log
from merba.preprocessing.faces import faces_of_subject
from merba.sheet import from_plain_rows

dataset, subject = snakemake.wildcards.dataset, snakemake.wildcards.subject
with job_log(snakemake.log[0], f"faces of {dataset} {subject}"):
    rows = from_plain_rows(snakemake.params.rows)
    faces = faces_of_subject(rows, snakemake.params.settings)
    with atomic(snakemake.output[0]) as draft:
        faces.to_parquet(draft, index=False)
