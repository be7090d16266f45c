from merba.jobs.flow import run

run(
    snakemake.params.rows,
    snakemake.params.settings,
    snakemake.params.faces,
    faces=snakemake.input.get("faces"),
    apexes=snakemake.input.get("apex"),
    output=snakemake.output[0],
    threads=snakemake.threads,
    log=snakemake.log[0],
)
