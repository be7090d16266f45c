from merba.jobs.samples_figure import run

run(
    snakemake.params.rows,
    snakemake.params.title,
    snakemake.params.faces,
    snakemake.params.head_motion,
    faces=snakemake.input.faces,
    apexes=snakemake.input.apex,
    flow=snakemake.input.flow,
    output=snakemake.output[0],
    log=snakemake.log[0],
)
