from merba.jobs.results_table import run

run(
    snakemake.wildcards.table,
    snakemake.params.data,
    snakemake.params.experiments,
    samples=snakemake.input.samples,
    output=snakemake.output[0],
    log=snakemake.log[0],
)
