# One training a fold: an experiment, and the subject that it leaves out, or `holdout`.


rule fold:
    input:
        "results/problems.checked",
        samples=ancient("results/samples.parquet"),
        arrays=lambda wildcards: expand(
            "results/packed/{dataset}.npy",
            dataset=EXPERIMENTS[wildcards.experiment]["datasets"],
        ),
        indexes=lambda wildcards: expand(
            "results/packed/{dataset}.parquet",
            dataset=EXPERIMENTS[wildcards.experiment]["datasets"],
        ),
    output:
        **fold_outputs(),
    log:
        "logs/fold/{experiment}/{dataset}/{subject}.log",
    conda:
        "../envs/conda.yaml"
    threads: config["threads"]
    resources:
        # Only where training runs on CUDA: `--resources gpu=1` must not serialise folds on the CPU.
        gpu=1 if ON_GPU else 0,
        mem_mb=4000,
        runtime=240,
    params:
        experiment=lambda wildcards: EXPERIMENTS[wildcards.experiment],
        labels=lambda wildcards: digest(
            sheet[
                sheet["dataset"].isin(EXPERIMENTS[wildcards.experiment]["datasets"])
            ],
            [*KEY, "label", "split"],
        ),
        seed=config["seed"],
        deterministic=config["deterministic"],
    message:
        "training: {wildcards.experiment}, fold {wildcards.dataset} {wildcards.subject}"
    script:
        "../workflow/scripts/fold.py"
