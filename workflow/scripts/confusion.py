import pandas as pd

from merba.experiments import honest_name
from merba.files import atomic
from merba.joblog import job_log
from merba.plots import plot_confusion
from merba.tables import confusion_table

experiment = snakemake.params.experiment
with job_log(snakemake.log[0], f"confusion matrix of {snakemake.wildcards.experiment}"):
    predictions = pd.concat([pd.read_parquet(path) for path in snakemake.input], ignore_index=True)
    counts = confusion_table(predictions, honest_name(experiment))
    with atomic(snakemake.output.table) as draft:
        counts.to_csv(draft)
    with atomic(snakemake.output.figure) as draft:
        plot_confusion(counts, title=f"{experiment['method']}, data: {snakemake.params.data}", path=draft)
