# Data that the workflow makes or fetches itself: the rendered demo, the public flow.


rule render:
    output:
        directory(f"{DEMO_ROOT}/{{dataset}}"),
    log:
        "logs/render/{dataset}.log",
    benchmark:
        "results/times/render/{dataset}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(1000),
        runtime=retried(10),
    params:
        code=plan.code("render"),
        demo=config.get("demo"),
    message:
        "render the demo's {wildcards.dataset}"
    script:
        "../workflow/scripts/render.py"


rule clone_flow:
    output:
        directory(f"{CLONES}/{{name}}"),
    log:
        "logs/clone_flow/{name}.log",
    benchmark:
        "results/times/clone_flow/{name}.tsv"
    localrule: True
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(500),
        runtime=retried(30),
    params:
        code=plan.code("clone_flow"),
        repository=lambda wildcards: config["datasets"][wildcards.name]["repository"],
        commit=lambda wildcards: config["datasets"][wildcards.name]["commit"],
    message:
        "clone ready-made flow: {wildcards.name}"
    script:
        "../workflow/scripts/clone_flow.py"
