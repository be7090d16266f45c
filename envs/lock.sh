#!/usr/bin/env bash
# Resolve requirements.in and dev.in in a fresh environment and write the exact versions to cpu.txt and dev.txt.
set -euo pipefail
cd "$(dirname "$0")"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
"${1:-python3.11}" -m venv "$scratch"
frozen() {
    "$scratch/bin/pip" freeze --exclude opencv-python --exclude torch --exclude setuptools | sort -f |
        sed 's/^triton==.*/&; sys_platform == "linux"/' # there are no wheels for others
}
lock() { { grep '^#' "$1"; cat; } >"$scratch/lock" && mv "$scratch/lock" "$1"; }
"$scratch/bin/pip" install -q -r torch.txt
"$scratch/bin/pip" install -q -r requirements.in
frozen >"$scratch/cpu"
"$scratch/bin/pip" install -q -r dev.in
frozen | comm -13 "$scratch/cpu" - >"$scratch/dev"
lock cpu.txt <"$scratch/cpu"
lock dev.txt <"$scratch/dev"
pinned() { sed '/^  - pip:/q' conda.yaml; grep -hv '^#\|^face_alignment' torch.txt cpu.txt | sed 's/^/    - /'; }
pinned >"$scratch/conda" && mv "$scratch/conda" conda.yaml
