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
PD_TEST_DEVICE=Vulkan0 ctest --test-dir "$build" --output-on-failure --no-tests=error --label-regex device
