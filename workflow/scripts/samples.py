from merba.jobs.samples import run

run(snakemake.config, snakemake.output[0], log=snakemake.log[0])
