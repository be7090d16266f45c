from merba.jobs.problems import run

run(snakemake.input, snakemake.output.problems, snakemake.output.summary, log=snakemake.log[0])
