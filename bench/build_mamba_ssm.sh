#!/usr/bin/env bash
# mamba-ssm with its Mamba-1 kernel for one architecture, so that bench/gpu.py can compare MERba's mixer with it. Minutes of work
# on all cores; needs nvcc of the CUDA version that PyTorch was built with.
#
#     bench/build_mamba_ssm.sh [ARCHITECTURE [SOURCE]]
#
# ARCHITECTURE: compute capability without its point, 90 (H100, H200) by default. SOURCE: the package's .tar.gz, for a machine
# without a network; it is downloaded otherwise.
set -euo pipefail
architecture=${1:-90}
version=2.3.2.post1
python=${PYTHON:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

source=${2:-}
if [ -z "$source" ]; then
    # pip asks the package's setup.py for its name first, which without this wants to compile.
    MAMBA_SKIP_CUDA_BUILD=TRUE "$python" -m pip download -q --no-deps --no-binary :all: --no-build-isolation \
        --dest "$folder" "mamba-ssm==$version"
    source=$folder/mamba_ssm-$version.tar.gz
fi
tar -xzf "$source" -C "$folder"
cd "$folder/mamba_ssm-$version"

# Its setup.py compiles for every GPU there is, up to nine of them.
sed -i -e 's/cc_flag\.append("-gencode")/pass/' -e 's/cc_flag\.append("arch=[^"]*")/pass/' \
    -e "s/^    cc_flag = \[\]/    cc_flag = [\"-gencode\", \"arch=compute_$architecture,code=sm_$architecture\"]/" setup.py
if [ "$(grep -c gencode setup.py)" != 1 ]; then
    echo "mamba-ssm's setup.py has changed: this script does not know where it lists architectures" >&2
    exit 1
fi
MAMBA_FORCE_BUILD=TRUE MAX_JOBS=$(nproc) "$python" -m pip install --no-deps --no-build-isolation .
"$python" -c 'import mamba_ssm, selective_scan_cuda'
