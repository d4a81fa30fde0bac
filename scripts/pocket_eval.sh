#!/bin/sh
# make pocket-eval: both pocket models on a fresh held-out set, dense and with the pyramid. Prints the table, and
# writes BUILD/pocket-eval.json.
#
#   sh scripts/pocket_eval.sh BUILD SEED N          N questions a task
set -eu
build=$1 seed=$2 n=$3
cd "$(dirname "$0")/.."
for part in dense dense-mmproj pyramid pyramid-mmproj; do
    [ -f "${POCKET_MODELS:-models/pocket}/$part.gguf" ] || {
        echo "make pocket-eval: ${POCKET_MODELS:-models/pocket}/$part.gguf is not there; docs/pocket.md says how it is trained" >&2
        exit 1
    }
done
data=$build/pocket-eval
rm -rf "$data"
mkdir -p "$data"
"$build/scenes" --kind eval --split test --seed "$seed" -n "$n" --out "$data" --report --json >"$data/summary.json"
"$build/pocket_eval" --models "${POCKET_MODELS:-models/pocket}" --data "$data" --summary "$data/summary.json" \
    --layer_list '[3,6,9]' --image_token_ratio_list '[0.5,0.25,0.125]' -o "$build/pocket-eval.json"
echo "seed $seed; $build/pocket-eval.json"
