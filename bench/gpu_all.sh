#!/usr/bin/env bash
# All of bench/gpu.py on a machine with a GPU and a checkout of this repository, for about 8 minutes of an H100 by estimate and
# 10 at the most: first whether anything works, then all compilations side by side, then part after part within its time limit.
#
#     bench/gpu_all.sh [FOLDER [OPTION OF bench/gpu.py ...]]
#
# FOLDER (default: bench/results) gets gpu.json, written after every measurement, its tables, and gpu.log.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/results}
case $folder in -*) echo "usage: bench/gpu_all.sh [FOLDER [OPTION OF bench/gpu.py ...]]" >&2; exit 2 ;; esac
shift || true
mkdir -p "$folder"
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
export TORCHINDUCTOR_CACHE_DIR=$cache/inductor TRITON_CACHE_DIR=$cache/triton PYTHONUNBUFFERED=1

failed=0
part() { # its name and its time limit in seconds
    local limit=$(($2 * ${SLOWER:-1})) # tests, on a CPU, want more
    timeout --kill-after=5 "$limit" "${PYTHON:-python3}" "$here/gpu.py" --only "$1" --results "$folder" "${@:3}" && return
    echo "$1: ended with $? (124: its $limit s were over)"
    failed=1
}

all() {
    part smoke 60 "$@"
    [ $failed = 0 ] || return 1
    part compile 130 "$@"
    part check 75 "$@"
    part training 75 "$@"
    part scan 25 "$@"
    part launch 40 "$@"
    part mixer 25 "$@"
    part loso 170 "$@"
    return $failed
}

all "$@" 2>&1 | tee "$folder/gpu.log"
