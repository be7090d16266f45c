from merba.jobs.view_problems import run

run(snakemake.input, snakemake.output[0], log=snakemake.log[0])
