from merba.jobs.apex import run

run(
    snakemake.params.rows,
    snakemake.params.settings,
    snakemake.params.faces,
    faces=snakemake.input.faces,
    output=snakemake.output[0],
    log=snakemake.log[0],
)
