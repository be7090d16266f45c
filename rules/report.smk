# The report of a run: one HTML page. `snakemake --report` embeds it with the tables and figures.


rule summary:
    input:
        lambda wildcards: plan.every_prediction(ablations=bool(wildcards.ablations)),
        tables=lambda wildcards: plan.tables(ablations=bool(wildcards.ablations)),
        matrices=lambda wildcards: plan.matrices(ablations=bool(wildcards.ablations)),
        figures=plan.contact_sheets.files(),
        problems="results/problems.csv",
        warnings="results/warnings.csv",
        preprocessing="results/preprocessing.csv",
        samples="results/samples.parquet",
    output:
        report(
            "results/summary{ablations}.html",
            category="Summary",
            caption="../workflow/report/summary.rst",
        ),
    log:
        "logs/summary{ablations}.log",
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(2000),
        runtime=retried(20),
    params:
        code=plan.code("summary"),
        template=file_digest("evaluation/report.html.j2"),
        data=config["data"],
        configuration=plan.whose(),
        times=lambda wildcards: [
            placed(path) for path in plan.times(ablations=bool(wildcards.ablations))
        ],
        experiments=lambda wildcards: plan.runs(
            plan.trained(ablations=bool(wildcards.ablations))
        ),
        matrices=lambda wildcards: plan.matrix_titles(
            ablations=bool(wildcards.ablations)
        ),
    message:
        "summary of the run"
    script:
        "../workflow/scripts/summary.py"
