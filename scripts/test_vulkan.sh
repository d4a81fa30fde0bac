#!/bin/sh
# make test-vulkan: the tests that compute, on ggml's first Vulkan device instead of the CPU.
#
#   sh scripts/test_vulkan.sh BUILD
set -eu
build=$1
cd "$(dirname "$0")/.."
# ggml leaves software drivers alone unless a device is asked for by number.
GGML_VK_VISIBLE_DEVICES=${GGML_VK_VISIBLE_DEVICES:-0}
export GGML_VK_VISIBLE_DEVICES
"$build/pdrop" run --list-devices | grep Vulkan0 || { echo 'test_vulkan: ggml finds no Vulkan device' >&2; exit 1; }

# Whole-model parity to 2e-4 of the logit range asks for f32 arithmetic, which ggml's Vulkan leaves where it can.
# A process for each attention kernel (sdpa is flash here): Mesa's software driver corrupts its heap after some
# 140 devices made and freed in one.
for kernel in parity_eager parity_flash; do
    PD_TEST_ONLY=$kernel GGML_VK_DISABLE_F16=1 PD_TEST_DEVICE=Vulkan0 ctest --test-dir "$build" --output-on-failure \
        --no-tests=error --label-regex device
done

# The same commands: the same answer and the same kept tokens as on the CPU. Random weights rank by a hair, so both
# sides compute in f32.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
"$build/pdrop" synth tiny -o "$work/tiny" --type f32 --mmproj-type f32 --quiet
answer() { # DEVICE
    GGML_VK_DISABLE_F16=1 "$build/pdrop" run --device "$1" --compute f32 -m "$work/tiny.gguf" --mmproj "$work/tiny-mmproj.gguf" \
        --image tests/golden/parity/wide.png -p 'What is this?' -n 8 --cache-type f32 --json --quiet |
        sed 's/.*"answer":\("[^"]*"\).*"kept":\(\[\[.*\]\]\),"image_ms".*/\1 \2/'
}
answer CPU >"$work/cpu"
answer Vulkan0 >"$work/vulkan"
grep -q '^"' "$work/cpu" || { echo 'test_vulkan: pdrop gave no answer' >&2; exit 1; }
cmp "$work/cpu" "$work/vulkan" || { echo 'test_vulkan: the answers differ' >&2; exit 1; }
echo 'test_vulkan: Vulkan0 and the CPU give the same answer and keep the same tokens'
