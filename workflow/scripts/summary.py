from merba.jobs.summary import run

run(
    snakemake.params.data,
    snakemake.params.configuration,
    snakemake.params.experiments,
    tables=snakemake.input.tables,
    matrices=snakemake.params.matrices,
    figures=snakemake.input.figures,
    problems=snakemake.input.problems,
    warnings=snakemake.input.warnings,
    preprocessing=snakemake.input.preprocessing,
    samples=snakemake.input.samples,
    times=snakemake.params.times,
    output=snakemake.output[0],
    log=snakemake.log[0],
)
