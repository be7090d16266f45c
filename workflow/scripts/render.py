from merba.jobs.render import run

run(snakemake.params.demo, snakemake.output[0], log=snakemake.log[0])
