# Tables and figures from predictions.


rule table_1:
    input:
        [local(path) for path in plan.model_files(plan.trained(ablations=False))],
    output:
        report(
            "results/table_1_architecture.csv",
            category="Tables",
            caption="../workflow/report/table_1.rst",
        ),
    log:
        "logs/table_1.log",
    benchmark:
        "results/times/table/table_1_architecture.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(2000),
        runtime=retried(10),
    params:
        code=plan.code("table_1", plan.trained(ablations=False)),
        models=plan.models(),
    message:
        "table: I, sizes of the models"
    script:
        "../workflow/scripts/table_1.py"


for number, name, datasets in (
    (2, "table_2_dfme_counts", plan.dfme),
    (
        3,
        "table_3_3db_counts",
        [name for name in plan.datasets if name not in plan.dfme],
    ),
):

    rule:
        name:
            f"table_{number}"
        input:
            samples="results/samples.parquet",
            problems="results/problems.csv",
        output:
            report(
                f"results/{name}.csv",
                category="Tables",
                caption=f"../workflow/report/table_{number}.rst",
            ),
        log:
            f"logs/table_{number}.log",
        benchmark:
            f"results/times/table/{name}.tsv"
        conda:
            "../envs/conda.yaml"
        threads: 1
        resources:
            mem_mb=retried(500),
            runtime=retried(10),
        params:
            code=plan.code("counts"),
            data=config["data"],
            datasets=datasets,
            published=file_digest(f"evaluation/published/{name}.csv"),
        message:
            f"table: {number}, clips by class"
        script:
            "../workflow/scripts/counts.py"


rule results_table:
    input:
        lambda wildcards: [
            path
            for experiment in in_table(wildcards)
            for path in plan.predictions(experiment)
        ],
        samples="results/samples.parquet",
    output:
        report(
            "results/{table}{every}.csv",
            category="Tables",
            caption="../workflow/report/results_table.rst",
            labels={"table": "{table}"},
        ),
    log:
        "logs/{table}{every}.log",
    benchmark:
        "results/times/table/{table}{every}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(1000),
        runtime=retried(10),
    params:
        code=lambda wildcards: plan.code(
            "results_table", in_table(wildcards), PAPER_MODEL
        ),
        data=config["data"],
        experiments=lambda wildcards: plan.runs(in_table(wildcards)),
        published=lambda wildcards: file_digest(
            f"evaluation/published/{wildcards.table}.csv"
        ),
    message:
        "table: {wildcards.table}{wildcards.every}"
    script:
        "../workflow/scripts/results_table.py"


rule confusion:
    input:
        lambda wildcards: plan.predictions(confused(wildcards)),
    output:
        table=report(
            "results/figures/figure_3_confusion_{matrix}.csv",
            category="Confusion matrices",
            labels={"matrix": "{matrix}", "kind": "table"},
        ),
        figure=report(
            "results/figures/figure_3_confusion_{matrix}.png",
            category="Confusion matrices",
            caption="../workflow/report/confusion.rst",
            labels={"matrix": "{matrix}", "kind": "figure"},
        ),
    log:
        "logs/confusion/{matrix}.log",
    benchmark:
        "results/times/confusion/{matrix}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(1000),
        runtime=retried(10),
    params:
        code=plan.code("confusion"),
        data=config["data"],
        experiment=lambda wildcards: plan.experiments[confused(wildcards)],
        split=lambda wildcards: CONFUSIONS[wildcards.matrix]["split"],
    message:
        "confusion matrix: {wildcards.matrix}"
    script:
        "../workflow/scripts/confusion.py"


rule samples_figure:
    input:
        frames_of,
        unpack(shown_subjects),
    output:
        report(
            "results/figures/samples_{dataset}_{page}.jpg",
            category="Data",
            caption="../workflow/report/samples.rst",
            labels={"dataset": "{dataset}", "page": "{page}"},
        ),
    log:
        "logs/samples_figure/{dataset}_{page}.log",
    benchmark:
        "results/times/samples_figure/{dataset}_{page}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(1500),
        runtime=retried(10),
    params:
        code=plan.code("samples_figure"),
        rows=lambda wildcards: plan.contact_sheets.clips(*wildcards),
        title=lambda wildcards: plan.contact_sheets.title(*wildcards),
        faces=config["faces"],
        head_motion=config["head_motion_warning"],
    message:
        "samples: {wildcards.dataset}, page {wildcards.page}"
    script:
        "../workflow/scripts/samples_figure.py"
