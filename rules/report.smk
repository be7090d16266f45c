# The report of a run: one HTML page, which `snakemake --report` embeds beside tables and figures.


rule summary:
    input:
        lambda wildcards: every_prediction(bool(wildcards.ablations)),
        tables=lambda wildcards: tables(bool(wildcards.ablations)),
        matrices=lambda wildcards: matrices(bool(wildcards.ablations)),
        figures=sample_figures(),
        problems="results/problems.csv",
        preprocessing="results/preprocessing.csv",
        samples=ancient("results/samples.parquet"),
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
        mem_mb=2000,
        runtime=20,
    params:
        data=config["data"],
        experiments=lambda wildcards: {
            name: {"settings": EXPERIMENTS[name], "predictions": predictions(name)}
            for name in trained(bool(wildcards.ablations))
        },
        matrices=lambda wildcards: [
            (EXPERIMENTS[matrix["experiment"]]["method"], matrix["split"])
            for matrix in confusions(trained(bool(wildcards.ablations))).values()
        ],
    message:
        "summary of the run"
    script:
        "../workflow/scripts/summary.py"
