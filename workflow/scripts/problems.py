from merba.jobs.problems import run

run(
    snakemake.input,
    snakemake.params.size,
    snakemake.params.head_motion,
    problems=snakemake.output.problems,
    warnings=snakemake.output.warnings,
    summary=snakemake.output.summary,
    log=snakemake.log[0],
)
