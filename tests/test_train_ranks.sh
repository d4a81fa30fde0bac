#!/bin/sh
# Training with two ranks: the losses of one rank with twice the batch, within 1e-4; one rank's failure, or its death,
# ends all, and the last checkpoint is whole.
#
#   sh tests/test_train_ranks.sh PDROP MPIRUN
# shellcheck disable=SC2086  # $train is a list of words
set -u
pdrop=$1 mpirun=$2
golden=$(cd "$(dirname "$0")/golden" && pwd)
helpers=$(cd "$(dirname "$0")" && pwd)/train_helpers.sh
scratch=$(mktemp -d "${TMPDIR:-/tmp}/pd_test_ranks_XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
cd "$scratch" || exit 1
# shellcheck source=tests/train_helpers.sh
. "$helpers"
# Open MPI: also as root, and on a machine of one core
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
records 22 >data.json # the last step of an epoch is a rest, with nothing in it for the second rank
train="train -m $model --vision_tower $mmproj --data_path data.json --image_folder $golden/parity
    --learning_rate 1e-3 --compute f32 -q"

two() { timeout 100 "$mpirun" -n 2 "$pdrop" "$@" >out 2>err </dev/null; }

# near NAME ONE TWO: the logs have the same steps, samples and, within 1e-4, losses and norms.
near() {
    checks=$((checks + 1))
    paste -d ' ' "$2/log.jsonl" "$3/log.jsonl" | sed 's/[{}"]//g; s/[:,]/ /g' | awk '
        function far(a, b) { return a - b > 1e-4 * b || b - a > 1e-4 * b }
        {
            half = NF / 2
            for (i = 1; i < half; i += 2) {
                if ($i ~ /_ms$|per_second/) continue
                exact = $i !~ /^(loss|grad_norm)$/
                if ($i != $(half + i) || (exact ? $(i + 1) != $(half + i + 1) : far($(i + 1), $(half + i + 1)))) {
                    print "step " NR ": " $i " " $(i + 1) " and " $(half + i + 1)
                    failed = 1
                }
                if (!exact) compared++
            }
        }
        END { exit failed || compared < 2 * NR || NR < 6 }' >differences || {
        head -n 5 differences >&2
        fail "$1: two ranks are not one with twice the batch"
    }
}

"$pdrop" $train --max_steps 9 -o one --per_device_train_batch_size 4 -t 2 >out 2>err </dev/null || fail 'one rank'
two $train --max_steps 9 -o two --per_device_train_batch_size 2 || fail 'two ranks: expected success'
near 'shuffled' one two
[ "$(find . -name log.jsonl | wc -l)" = 2 ] || fail 'expected one log a run'
[ "$(grep -c 'saved two/checkpoint-9' err)" = 1 ] || fail 'expected one rank to save'
grouped="$train --max_steps 8 --gradient_accumulation_steps 2 --group_by_modality_length True --lora_enable --lora_r 4 --lora_dropout 0"
"$pdrop" $grouped -o one.grouped --per_device_train_batch_size 2 -t 2 >out 2>err </dev/null || fail 'one rank, grouped'
two $grouped -o two.grouped --per_device_train_batch_size 1 || fail 'two ranks, grouped: expected success'
near 'grouped' one.grouped two.grouped

# ---- a rank that fails ------------------------------------------------------------------------------------------

# The seed decides which rank meets the record whose picture is not there.
checks=$((checks + 1))
records 22 1 >bad.json
for seed in 3 4 5 6 7 8 9; do
    two $train --data_path bad.json --seed $seed --max_steps 6 -o bad.$seed --per_device_train_batch_size 2 &&
        fail 'a picture that is not there: expected a failure'
    grep -q '^pdrop: rank 1: ' err && break
done
[ "$(grep -c '^pdrop: ' err)" = 1 ] || fail 'a rank that fails: expected one line from all ranks'
grep -q '^pdrop: rank 1: bad.json: record 1 (id "r1"): .*nowhere.png: cannot open' err ||
    fail 'a rank that fails: expected a line that names it'

# ---- a rank that dies -------------------------------------------------------------------------------------------

checks=$((checks + 1))
dying="$train --max_steps 24 --save_steps 3 --save_total_limit 2 --per_device_train_batch_size 1"
two $dying -o lives || fail 'two ranks: expected success'
# shellcheck disable=SC2016  # for the inner shell
timeout 100 "$mpirun" -n 2 sh -c 'echo $$ >pid.$OMPI_COMM_WORLD_RANK; exec "$@"' - "$pdrop" $dying -o dies \
    >out 2>err </dev/null &
launcher=$!
while kill -0 $launcher 2>/dev/null; do
    step=$(last_step dies/log.jsonl)
    [ "${step:-0}" -lt 5 ] || break
    sleep 0.02
done
kill -KILL "$(cat pid.1)" || fail 'a rank that dies: it was over before'
wait $launcher && fail 'a rank that dies: expected a failure'
tries=0
while kill -0 "$(cat pid.0)" 2>/dev/null && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -0 "$(cat pid.0)" 2>/dev/null && fail 'a rank that dies: the other goes on'
for checkpoint in dies/checkpoint-*; do
    for file in state model mmproj; do
        "$pdrop" info "$checkpoint/$file.gguf" >out 2>err || fail "a rank that died: $checkpoint/$file.gguf"
    done
done
two $dying -o dies --resume || fail 'a rank that died: expected to go on'
lasting lives/log.jsonl >expected.log
lasting dies/log.jsonl >found.log
cmp -s expected.log found.log || fail 'a rank that died: not the losses of the uninterrupted run'
cmp -s lives/checkpoint-24/state.gguf dies/checkpoint-24/state.gguf || fail 'a rank that died: not its weights'

echo "test_train_ranks: $checks checks, $failures failed"
[ $failures = 0 ]
