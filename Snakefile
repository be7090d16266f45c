# From raw micro-expression clips to the tables of the MERba paper.
from snakemake.utils import min_version

min_version("9.0")

# Any --configfile with datasets stands alone: Snakemake would merge it into the demo's otherwise.
if "datasets" not in config:

    configfile: f"{workflow.basedir}/config/config.yaml"


include: "rules/common.smk"
include: "rules/demo.smk"
include: "rules/faces.smk"
include: "rules/apex.smk"
include: "rules/flow.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"


rule all:
    default_target: True
    input:
        tables(),
        figures(),
        # Named here, so that a deleted one is made again although the tables exist.
        every_prediction(),
        "results/samples.parquet",
        "results/problems.csv",


rule tables:
    input:
        tables(),


rule figures:
    input:
        figures(),


rule demo:
    input:
        rendered(),
