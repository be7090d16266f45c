# The labels of an experiment's clips, and one training per fold, named by the subject that is left out, or `holdout`. The job of
# the labels also makes the model, so that a wrong setting stops the run before hours of preprocessing.


rule labels:
    input:
        model_file_of,
    output:
        "results/labels/{experiment}.parquet",
    log:
        "logs/labels/{experiment}.log",
    benchmark:
        "results/times/labels/{experiment}.tsv"
    priority: 1
    localrule: True
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(1000),
        runtime=retried(10),
    params:
        code=lambda wildcards: plan.code("labels", [wildcards.experiment]),
        rows=lambda wildcards: plan.labels(wildcards.experiment),
        experiment=lambda wildcards: {
            key: settings_of(wildcards)[key]
            for key in ("model", "stopping", "view")
            if key in settings_of(wildcards)
        },
    message:
        "labels and model of {wildcards.experiment}"
    script:
        "../workflow/scripts/labels.py"


rule fold:
    input:
        # A gate that runs again doesn't rerun folds: only a changed pack does.
        ancient(gates_of),
        labels="results/labels/{experiment}.parquet",
        arrays=packs_of,
        pretrained=pretrained_of,
        model_file=model_file_of,
    output:
        **{
            kind: f"results/folds/{{experiment}}/{{dataset}}/{{subject}}/{name}"
            for kind, name in plan.fold_files().items()
        },
    log:
        "logs/fold/{experiment}/{dataset}/{subject}.log",
    conda:
        "../envs/conda.yaml"
    threads: config["threads"]
    resources:
        # Only if training runs on CUDA: `--resources gpu=1` must not run folds on the CPU one by one.
        gpu=1 if plan.on_gpu else 0,
        mem_mb=lambda wildcards, attempt: plan.fold_memory(wildcards.experiment)
        * attempt,
        runtime=lambda wildcards, attempt: plan.fold_minutes(wildcards.experiment)
        * attempt,
    params:
        code=lambda wildcards: plan.code("fold", [wildcards.experiment]),
        experiment=lambda wildcards: fold_settings(settings_of(wildcards)),
        seed=config["seed"],
        deterministic=config["deterministic"],
    message:
        "training: {wildcards.experiment}, fold {wildcards.dataset} {wildcards.subject}"
    script:
        "../workflow/scripts/fold.py"
