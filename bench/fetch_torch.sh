#!/bin/sh
# Makes a virtual environment with PyTorch and transformers, from the package index that pip is set up for.
#
#   sh bench/fetch_torch.sh DIRECTORY     makes DIRECTORY/bin/python
#
# PyPI's PyTorch for x86-64 is a CUDA build: it wants two gigabytes of CUDA libraries to be there even when it
# computes on the CPU. They are not fetched. Libraries of the same names stand in for them, in which every function
# returns CUDA's code for "no device"; no CPU computation calls one.
set -eu
fail() {
    echo "fetch_torch: $*" >&2
    exit 1
}
[ $# = 1 ] || fail 'usage: sh bench/fetch_torch.sh DIRECTORY'
venv=$1
[ ! -e "$venv/ready" ] || exit 0
rm -rf "$venv"
mkdir -p "$(dirname "$venv")"
python3 -m venv "$venv" || fail "python3 makes no virtual environment (sh scripts/setup.sh --peers installs what it needs)"
venv=$(cd "$venv" && pwd)
python=$venv/bin/python
echo 'fetch_torch: fetching PyTorch and transformers (about 0.7 GB; 2 GB unpacked) ...'
pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }
# What torch imports apart from CUDA's packages and triton, and transformers with all it needs.
pip install filelock typing-extensions sympy networkx jinja2 fsspec 'setuptools>=77' numpy transformers
pip install --no-deps torch

libraries=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/torch/lib
stand_in_for_cuda() {
    cuda_names='lib\(cu\|nv\|nccl\)[^]]*' cuda_symbols='^(cu|nv|nccl|__cuda)'
    work=$venv/stand-ins
    mkdir -p "$work"
    for library in "$libraries"/*.so*; do readelf -d "$library"; done |
        sed -n "s/.*(NEEDED).*\[\($cuda_names\)\]/\1/p" | sort -u >"$work/names"
    [ -s "$work/names" ] || return 0
    nm -D --undefined-only "$libraries"/*.so* | awk 'NF == 2 { sub(/@.*/, "", $2); print $2 }' | sort -u >"$work/wanted"
    nm -D --defined-only "$libraries"/*.so* | awk 'NF == 3 { sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/there"
    comm -23 "$work/wanted" "$work/there" | grep -E "$cuda_symbols" |
        sed 's/.*/int &(void) { return 100; }/' >"$work/none.c" # cudaErrorNoDevice
    "${CC:-cc}" -shared -fPIC -w -o "$work/none.so" "$work/none.c"
    while read -r name; do
        [ -e "$libraries/$name" ] || cp "$work/none.so" "$libraries/$name"
    done <"$work/names"
    rm -r "$work"
}
if ! "$python" -c 'import torch' 2>/dev/null; then stand_in_for_cuda; fi
"$python" -c '
import torch, transformers
from transformers.models.llama.modeling_llama import LlamaForCausalLM
assert torch.equal(torch.eye(64) @ torch.ones(64, 64), torch.ones(64, 64))
print(f"fetch_torch: torch {torch.__version__}, transformers {transformers.__version__}")' ||
    fail "PyTorch does not start; PD_PEER_PYTHON may name a Python that has torch and transformers"
: >"$venv/ready"
