from merba.jobs.clone_flow import run

run(snakemake.params.repository, snakemake.params.commit, snakemake.output[0], log=snakemake.log[0])
