from merba.jobs.samples_figure import run

run(
    snakemake.wildcards.dataset,
    snakemake.params.subject,
    snakemake.params.faces,
    snakemake.params.curve,
    samples=snakemake.input.samples,
    faces=snakemake.input.faces,
    apexes=snakemake.input.apex,
    flow=snakemake.input.flow,
    output=snakemake.output[0],
    log=snakemake.log[0],
)
