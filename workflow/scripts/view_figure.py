from merba.jobs.view_figure import run

run(
    snakemake.wildcards.dataset,
    snakemake.params.subject,
    snakemake.params.settings,
    snakemake.params.faces,
    snakemake.params.flow,
    samples=snakemake.input.samples,
    faces=snakemake.input.faces,
    apexes=snakemake.input.apex,
    output=snakemake.output[0],
    log=snakemake.log[0],
)
