# Views: other frames of a clip than onset and apex, for the methods that name one. Each has its own packs, problems and gates, so
# that other experiments don't wait for it or rerun because of it.


rule view:
    input:
        frames_of,
        encoder_of,
        faces="results/faces/{dataset}/{subject}.parquet",
        apex="results/apex/{dataset}/{subject}.parquet",
    output:
        "results/views/{view}/{dataset}/{subject}.npz",
    log:
        "logs/view/{view}/{dataset}/{subject}.log",
    benchmark:
        "results/times/view/{view}/{dataset}/{subject}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        # A frozen ViT makes tokens of a clip in half a minute on the CPU.
        gpu=lambda wildcards: int(plan.on_gpu and bool(encoder_of(wildcards))),
        mem_mb=lambda wildcards, attempt: attempt
        * (4000 if encoder_of(wildcards) else 1500),
        runtime=lambda wildcards, attempt: attempt
        * (600 if encoder_of(wildcards) else 120),
    params:
        code=lambda wildcards: plan.views.code(wildcards.view),
        rows=clips_of,
        files=files_of,
        settings=view_of,
        faces=config["faces"],
        flow=lambda wildcards: plan.views.flow(wildcards.view),
    message:
        "view {wildcards.view}: {wildcards.dataset} {wildcards.subject}"
    script:
        "../workflow/scripts/view.py"


rule view_pack:
    input:
        lambda wildcards: expand(
            "results/views/{view}/{dataset}/{subject}.npz",
            view=wildcards.view,
            dataset=wildcards.dataset,
            subject=plan.subjects(wildcards.dataset),
        ),
    output:
        array="results/views/{view}/{dataset}.npy",
        index="results/views/{view}/{dataset}.parquet",
    log:
        "logs/view_pack/{view}/{dataset}.log",
    benchmark:
        "results/times/view_pack/{view}/{dataset}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(1000),
        runtime=retried(30),
    params:
        code=plan.code("pack"),
    message:
        "pack view {wildcards.view}: {wildcards.dataset}"
    script:
        "../workflow/scripts/pack.py"


rule view_problems:
    input:
        lambda wildcards: expand(
            "results/views/{view}/{dataset}.parquet",
            view=wildcards.view,
            dataset=plan.views.datasets(wildcards.view),
        ),
    output:
        "results/views/{view}/problems.csv",
    log:
        "logs/view_problems/{view}.log",
    benchmark:
        "results/times/view_problems/{view}.tsv"
    localrule: True
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(500),
        runtime=retried(10),
    params:
        code=plan.code("view_problems"),
    message:
        "problems of view {wildcards.view}"
    script:
        "../workflow/scripts/view_problems.py"


# Like the gate of flow (rules/flow.smk).
rule view_gate:
    input:
        ancient("results/views/{view}/problems.csv"),
        array="results/views/{view}/{dataset}.npy",
        index="results/views/{view}/{dataset}.parquet",
    output:
        "results/views/{view}/{dataset}.checked",
    log:
        "logs/view_gate/{view}/{dataset}.log",
    benchmark:
        "results/times/view_gate/{view}/{dataset}.tsv"
    retries: 0
    localrule: True
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(500),
        runtime=retried(10),
    params:
        refuses=lambda wildcards: plan.gate_refuses(
            f"views/{wildcards.view}/{wildcards.dataset}"
        ),
    message:
        "gate of view {wildcards.view}: {wildcards.dataset}"
    script:
        "../workflow/scripts/gate.py"


rule view_figure:
    input:
        frames_of,
        unpack(first_subject),
        samples="results/samples.parquet",
    output:
        report(
            "results/figures/views/{view}/{dataset}.png",
            category="Data",
            caption="../workflow/report/view.rst",
            labels={"view": "{view}", "dataset": "{dataset}"},
        ),
    log:
        "logs/view_figure/{view}/{dataset}.log",
    benchmark:
        "results/times/view_figure/{view}/{dataset}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(1500),
        runtime=retried(10),
    params:
        code=plan.code("view_figure"),
        subject=lambda wildcards: plan.subjects(wildcards.dataset)[0],
        settings=view_of,
        faces=config["faces"],
        flow=lambda wildcards: plan.views.flow(wildcards.view),
    message:
        "figure of view {wildcards.view}: {wildcards.dataset}"
    script:
        "../workflow/scripts/view_figure.py"
