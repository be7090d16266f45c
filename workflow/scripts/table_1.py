from merba.jobs.table_1 import run

run(snakemake.params.models, snakemake.output[0], log=snakemake.log[0])
