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
include: "rules/report.smk"


report: "workflow/report/workflow.rst"


# A second each: not worth a submission on a cluster. And what needs the internet, which its nodes often lack.
localrules:
    clone_flow,
    samples,
    problems,
    gate,
    labels,


if LEFT_OUT and workflow.is_main_process:
    for name, reason in LEFT_OUT.items():
        logger.info(f"Experiment {name} is left out: {reason}.")


rule all:
    default_target: True
    input:
        tables(config["ablations"]),
        figures(config["ablations"]),
        # Named here, so that a deleted one is made again although the tables exist.
        every_prediction(config["ablations"]),
        "results/samples.parquet",
        "results/problems.csv",
        "results/summary.html",


rule tables:
    input:
        tables(config["ablations"]),


rule figures:
    input:
        figures(config["ablations"]),


rule report:
    input:
        "results/summary.html",
        tables(config["ablations"]),
        figures(config["ablations"]),


rule ablations:
    input:
        tables(True),
        figures(True),
        every_prediction(True),
        "results/summary_ablations.html",


rule packed:
    input:
        "results/problems.checked",
        "results/samples.parquet",
        expand("results/packed/{dataset}.npy", dataset=DATASETS),
        sample_figures(),


rule demo:
    input:
        rendered(),


# Each table IV to VII and each experiment is a target too: `snakemake table_5 experiment_merba`.
for name in result_tables(True):

    rule:
        name:
            "_".join(name.split("_")[:2])
        input:
            f"results/{name}.csv",


for name in EXPERIMENTS:

    rule:
        name:
            f"experiment_{name}"
        input:
            predictions(name),
