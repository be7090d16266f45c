# Optical flow from onset to apex, one file a subject, packed into one array a dataset.


rule flow:
    input:
        FRAMES,
        unpack(faces_and_apex),
    output:
        "results/flow/{dataset}/{subject}.npz",
    log:
        "logs/flow/{dataset}/{subject}.log",
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=1500,
        runtime=60,
    params:
        rows=clips_of,
        files=files_of,
        settings=config["flow"],
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
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
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
        summary=report(
            "results/preprocessing.csv",
            category="Data",
            caption="../workflow/report/preprocessing.rst",
        ),
    log:
        "logs/problems.log",
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    message:
        "problems of all clips"
    script:
        "../workflow/scripts/problems.py"


# A rule of its own: Snakemake deletes what a failed job wrote, and the list must stay readable.
rule gate:
    input:
        "results/problems.csv",
    output:
        touch("results/problems.checked"),
    log:
        "logs/gate.log",
    retries: 0  # its refusal is final, whatever a cluster's profile allows
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        on_problem=config["on_problem"],
    message:
        "gate before training"
    script:
        "../workflow/scripts/gate.py"
