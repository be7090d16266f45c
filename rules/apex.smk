# The apex of every clip: annotated, or the peak of the best unimodal fit to its motion curve.


rule apex:
    input:
        frames_of,
        faces="results/faces/{dataset}/{subject}.parquet",
    output:
        "results/apex/{dataset}/{subject}.parquet",
    log:
        "logs/apex/{dataset}/{subject}.log",
    benchmark:
        "results/times/apex/{dataset}/{subject}.tsv"
    conda:
        "../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=retried(1500),
        runtime=retried(15),
    params:
        code=plan.code("apex"),
        rows=clips_of,
        files=files_of,
        settings=config["apex"],
        faces=config["faces"],
    message:
        "apexes: {wildcards.dataset} {wildcards.subject}"
    script:
        "../workflow/scripts/apex.py"
