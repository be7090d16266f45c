from merba.jobs.pack import run

run(snakemake.input, snakemake.output.array, snakemake.output.index, log=snakemake.log[0])
