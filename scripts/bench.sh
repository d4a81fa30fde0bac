#!/bin/sh
# make bench: prefill and decoding, dense and with PyramidDrop, of a model in LLaVA-1.5-7B's shape with random weights
# (eight of its 32 layers, which take under 2 GB of disk).
#
#   sh scripts/bench.sh BUILD
set -eu
build=$1
cd "$(dirname "$0")/.."
mkdir -p "$build/bench"
model=$build/bench/llava-1.5-7b-8-layers
if ! [ -e "$model.done" ]; then
    "$build/pdrop" synth llava-1.5-7b -o "$model" --layers 8 --type q4_K
    touch "$model.done"
fi
"$build/pdrop" bench -m "$model.gguf" --mmproj "$model-mmproj.gguf" -r 3
