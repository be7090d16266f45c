from merba.jobs.faces import run

run(snakemake.params.rows, snakemake.params.settings, snakemake.output[0], log=snakemake.log[0])
