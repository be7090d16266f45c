# The sample sheet on disk, and a face, its landmarks and its alignment for every clip.


rule samples:
    input:
        plan.demo,
    output:
        "results/samples.parquet",
    log:
        "logs/samples.log",
    benchmark:
        "results/times/samples.tsv"
    localrule: True
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(1000),
        runtime=retried(10),
    params:
        code=plan.code("samples"),
        planned=digest(plan.sheet, plan.sheet.columns),
    message:
        "sample sheet"
    script:
        "../workflow/scripts/samples.py"


rule faces:
    input:
        frames_of,
    output:
        "results/faces/{dataset}/{subject}.parquet",
    log:
        "logs/faces/{dataset}/{subject}.log",
    benchmark:
        "results/times/faces/{dataset}/{subject}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(2000),
        runtime=retried(5),
    params:
        code=plan.code("faces"),
        rows=clips_of,
        files=files_of,
        settings=config["faces"],
    message:
        "faces: {wildcards.dataset} {wildcards.subject}"
    script:
        "../workflow/scripts/faces.py"
