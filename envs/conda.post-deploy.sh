#!/usr/bin/env bash
# Snakemake runs this after it made the environment of conda.yaml; pip's --no-deps can't be said inside that file.
set -euo pipefail
repository="$(git rev-parse --show-toplevel)"
pip install -r "$repository/envs/torch.txt"
pip install --no-deps -r "$repository/envs/cpu.txt"
pip install --no-deps --no-build-isolation "$repository"
