# The locked environment with the workflow; docs/cluster.md says how to run it and how to make an Apptainer image of it.
FROM python:3.13-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/merba
COPY envs/torch.txt envs/cpu.txt envs/
RUN pip install --no-cache-dir -r envs/torch.txt && pip install --no-cache-dir --no-deps -r envs/cpu.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .

# Any user may run it: caches are where every user can write.
ENV HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba XDG_CACHE_HOME=/tmp/cache
WORKDIR /data
ENTRYPOINT ["snakemake", "--snakefile", "/opt/merba/Snakefile"]
CMD ["--cores", "all", "--resources", "gpu=1"]
