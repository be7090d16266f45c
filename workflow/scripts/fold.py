from merba.jobs.fold import run

run(
    snakemake.config,
    snakemake.params.experiment,
    name=snakemake.wildcards.experiment,
    dataset=snakemake.wildcards.dataset,
    subject=snakemake.wildcards.subject,
    labels=snakemake.input.labels,
    arrays=snakemake.input.arrays,
    predictions=snakemake.output.predictions,
    origin=snakemake.config["origin"],
    log=snakemake.log[0],
)
