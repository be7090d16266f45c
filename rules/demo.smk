# Data that the workflow makes or fetches itself: the rendered demo, the public flow.

# The configured dataset whose files a rule clones: public flow without a path of the user's.
CLONED = next(
    (
        name
        for name, settings in config["datasets"].items()
        if settings["adapter"] == "flow_images" and not settings.get("root")
    ),
    None,
)

# What a dataset's clips wait for: rendered or cloned files, or nothing of ours.
if config["data"] == "demo":
    FRAMES = "results/demo/{dataset}.rendered"
else:
    FRAMES = f"results/public_flow/{CLONED}.cloned" if CLONED else []


rule render:
    output:
        "results/demo/{dataset}.rendered",
    log:
        "logs/render/{dataset}.log",
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        demo=config.get("demo"),
    message:
        "render the demo's {wildcards.dataset}"
    script:
        "../workflow/scripts/render.py"


rule clone_flow:
    output:
        "results/public_flow/{name}.cloned",
    log:
        "logs/clone_flow/{name}.log",
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=30,
    params:
        source=lambda wildcards: config["datasets"][wildcards.name],
    message:
        "clone ready-made flow: {wildcards.name}"
    script:
        "../workflow/scripts/clone_flow.py"
