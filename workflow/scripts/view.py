from merba.jobs.view import run

run(
    snakemake.params.rows,
    snakemake.params.settings,
    snakemake.params.faces,
    snakemake.params.flow,
    device=snakemake.config["device"],
    faces=snakemake.input.faces,
    apexes=snakemake.input.apex,
    output=snakemake.output[0],
    log=snakemake.log[0],
)
