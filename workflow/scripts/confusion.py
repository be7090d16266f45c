import pandas as pd

from merba.evaluation.figures import plot_confusion
from merba.evaluation.paper_tables import confusion_table
from merba.files import atomic
from merba.joblog import job_log
from merba.protocols import honest_name

experiment, split = snakemake.params.experiment, snakemake.params.split
with job_log(snakemake.log[0], f"confusion matrix {snakemake.wildcards.matrix}"):
    predictions = pd.concat([pd.read_parquet(path) for path in snakemake.input], ignore_index=True)
    if split is not None:
        predictions = predictions[predictions["split"] == split]
    counts = confusion_table(predictions, honest_name(experiment))
    with atomic(snakemake.output.table) as draft:
        counts.to_csv(draft)
    about = [experiment["method"], *([split.replace("_", " ")] if split else []), f"data: {snakemake.params.data}"]
    with atomic(snakemake.output.figure) as draft:
        plot_confusion(counts, title=", ".join(about), path=draft)
