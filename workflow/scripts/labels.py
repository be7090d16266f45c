from merba.jobs.labels import run

run(snakemake.params.rows, snakemake.params.experiment, snakemake.output[0], log=snakemake.log[0])
