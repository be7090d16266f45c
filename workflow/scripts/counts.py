from merba.jobs.counts import run

run(
    snakemake.rule,
    snakemake.params.data,
    snakemake.params.datasets,
    samples=snakemake.input.samples,
    problems=snakemake.input.problems,
    output=snakemake.output[0],
    log=snakemake.log[0],
)
