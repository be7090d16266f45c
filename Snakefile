# From raw micro-expression clips to the tables of the MERba paper.
from snakemake.utils import min_version

min_version("9.0")

# A --configfile with datasets replaces the demo's configuration; otherwise Snakemake would merge the two.
if "datasets" not in config:

    configfile: workflow.source_path("config/config.yaml")


include: "rules/common.smk"
include: "rules/demo.smk"
include: "rules/faces.smk"
include: "rules/apex.smk"
include: "rules/flow.smk"
include: "rules/views.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"


report: "workflow/report/workflow.rst"


if workflow.is_main_process:
    for name, reason in plan.left_out.items():
        logger.info(f"Experiment {name} is left out: {reason}.")
    for warning in plan.warnings(ablations=config["ablations"]):
        logger.warning(warning)
    if warning := others_results(plan.results, plan.origin["file"]):
        logger.warning(warning)


onstart:
    if workflow.is_main_process:
        sign(plan.results, plan.origin["file"])


# Snakemake says more after this; the reason is to be the last thing on the screen.
onerror:
    if workflow.is_main_process:
        for failure in reversed(failures(Path("logs"), since=started)):
            atexit.register(print, failure, file=sys.stderr)


rule all:
    default_target: True
    input:
        plan.tables(ablations=config["ablations"]),
        plan.figures(ablations=config["ablations"]),
        # Named here, so that deleted predictions are made again although the tables exist.
        plan.every_prediction(ablations=config["ablations"]),
        "results/samples.parquet",
        "results/problems.csv",
        "results/summary.html",


rule tables:
    input:
        plan.tables(ablations=config["ablations"]),


rule figures:
    input:
        plan.figures(ablations=config["ablations"]),


rule report:
    input:
        "results/summary.html",
        plan.tables(ablations=config["ablations"]),
        plan.figures(ablations=config["ablations"]),


rule ablations:
    input:
        plan.tables(ablations=True),
        plan.figures(ablations=True),
        plan.every_prediction(ablations=True),
        "results/summary_ablations.html",


rule packed:
    input:
        expand("results/packed/{dataset}.checked", dataset=plan.datasets),
        "results/samples.parquet",
        expand("results/packed/{dataset}.npy", dataset=plan.datasets),
        plan.contact_sheets.files(),


rule demo:
    input:
        plan.demo,


# Table V with every method, and what `all` makes. config/methods.yaml has every method, at a small size, on the demo's clips.
rule methods:
    input:
        lambda wildcards: or_exit(plan.every_method),
        rules.all.input,


# Each of Tables IV to VII (with every method), each experiment and each view is also a target:
# `snakemake table_5 experiment_merba packed_tim10`.
for name in plan.result_tables(ablations=True):

    rule:
        name:
            "_".join(name.split("_")[:2])
        input:
            plan.whole_table(name),


for name in plan.experiments:

    rule:
        name:
            f"experiment_{name}"
        input:
            plan.predictions(name),


for name, datasets in plan.views.taken_by(plan.experiments).items():

    rule:
        name:
            f"packed_{name}"
        input:
            expand(
                "results/views/{view}/{dataset}.{kind}",
                view=name,
                dataset=datasets,
                kind=["npy", "checked"],
            ),
            expand(
                "results/figures/views/{view}/{dataset}.png",
                view=name,
                dataset=datasets,
            ),
