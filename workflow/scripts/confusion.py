from merba.jobs.confusion import run

run(
    snakemake.input,
    snakemake.params.experiment,
    snakemake.params.split,
    snakemake.params.data,
    matrix=snakemake.wildcards.matrix,
    table=snakemake.output.table,
    figure=snakemake.output.figure,
    log=snakemake.log[0],
)
