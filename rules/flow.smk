# Optical flow from onset to apex, one file per subject, packed into one array per dataset.


rule flow:
    input:
        frames_of,
        unpack(faces_and_apex),
    output:
        "results/flow/{dataset}/{subject}.npz",
    log:
        "logs/flow/{dataset}/{subject}.log",
    benchmark:
        "results/times/flow/{dataset}/{subject}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1  # more threads give the same bits; docs/scaling.md says when they help
    resources:
        gpu=lambda wildcards: int(plan.flow_on_gpu(wildcards.dataset)),
        mem_mb=lambda wildcards, attempt: attempt
        * (4000 if plan.flow_on_gpu(wildcards.dataset) else 1500),
        runtime=retried(10),
    params:
        code=plan.code("flow"),
        rows=clips_of,
        files=files_of,
        settings=plan.flow,
        faces=config["faces"],
    message:
        "flow: {wildcards.dataset} {wildcards.subject}"
    script:
        "../workflow/scripts/flow.py"


rule pack:
    input:
        lambda wildcards: expand(
            "results/flow/{dataset}/{subject}.npz",
            dataset=wildcards.dataset,
            subject=plan.subjects(wildcards.dataset),
        ),
    output:
        array="results/packed/{dataset}.npy",
        index="results/packed/{dataset}.parquet",
    log:
        "logs/pack/{dataset}.log",
    benchmark:
        "results/times/pack/{dataset}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(1000),
        runtime=retried(30),
    params:
        code=plan.code("pack"),
    message:
        "pack: {wildcards.dataset}"
    script:
        "../workflow/scripts/pack.py"


rule problems:
    input:
        expand("results/packed/{dataset}.parquet", dataset=plan.datasets),
    output:
        problems=report(
            "results/problems.csv",
            category="Data",
            caption="../workflow/report/problems.rst",
        ),
        warnings=report(
            "results/warnings.csv",
            category="Data",
            caption="../workflow/report/warnings.rst",
        ),
        summary=report(
            "results/preprocessing.csv",
            category="Data",
            caption="../workflow/report/preprocessing.rst",
        ),
    log:
        "logs/problems.log",
    benchmark:
        "results/times/problems.tsv"
    localrule: True
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(500),
        runtime=retried(10),
    params:
        code=plan.code("problems"),
        size=config["faces"]["size"],
        head_motion=config["head_motion_warning"],
    message:
        "problems and warnings of all clips"
    script:
        "../workflow/scripts/problems.py"


# Separate from `problems`, because Snakemake deletes what a failed job wrote, and the list of problems must remain. It is an input,
# so that the list of all datasets is complete before the first gate stops the run.
rule gate:
    input:
        ancient("results/problems.csv"),
        array="results/packed/{dataset}.npy",
        index="results/packed/{dataset}.parquet",
    output:
        "results/packed/{dataset}.checked",
    log:
        "logs/gate/{dataset}.log",
    benchmark:
        "results/times/gate/{dataset}.tsv"
    retries: 0  # a retry can't help, whatever a cluster's profile allows
    localrule: True
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(500),
        runtime=retried(10),
    params:
        # Neither code nor `on_problem` is a parameter: if a gate runs but its pack doesn't, Snakemake checks the other reasons to
        # rerun folds only in the next run.
        refuses=lambda wildcards: plan.gate_refuses(f"packed/{wildcards.dataset}"),
    message:
        "gate: {wildcards.dataset}"
    script:
        "../workflow/scripts/gate.py"
