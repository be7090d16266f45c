# Optical flow from onset to apex, one file a subject, packed into one array a dataset.


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
    threads: 1  # more change no bit; docs/scaling.md says when they help
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


# A rule of its own: Snakemake deletes what a failed job wrote, and the list must stay readable. The list of all datasets is there
# before the first of them stops the run.
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
    retries: 0  # its refusal is final, whatever a cluster's profile allows
    localrule: True
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(500),
        runtime=retried(10),
    params:
        # Neither code nor `on_problem` itself: whenever a gate is planned without its pack, Snakemake leaves it until the run
        # after to see what else has changed about folds.
        refuses=lambda wildcards: plan.gate_refuses(f"packed/{wildcards.dataset}"),
    message:
        "gate: {wildcards.dataset}"
    script:
        "../workflow/scripts/gate.py"
