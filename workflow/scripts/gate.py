from merba.jobs.gate import run

run(snakemake.input.array, snakemake.input.index, snakemake.config["on_problem"], snakemake.output[0], log=snakemake.log[0])
