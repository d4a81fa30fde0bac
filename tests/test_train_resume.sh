#!/bin/sh
# Training that is killed, or stopped by Ctrl-C, and resumed: the log and the weights are those of a run that was left
# alone, no checkpoint is ever half-written, and nothing is left behind.
#
#   sh tests/test_train_resume.sh PDROP [SEED]      (SEED: of the moments to kill at; default: the time)
# shellcheck disable=SC2086  # $what is a list of words
set -u
pdrop=$1
seed=${2:-$(date +%s)}
golden=$(cd "$(dirname "$0")/golden" && pwd)
helpers=$(cd "$(dirname "$0")" && pwd)/train_helpers.sh
scratch=$(mktemp -d "${TMPDIR:-/tmp}/pd_test_train_XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
cd "$scratch" || exit 1
# shellcheck source=tests/train_helpers.sh
. "$helpers"
records 26 7 >data.json
# of the first phase: a picture and its caption
sed 's/, {"from": "human", "value": "and"}, {"from": "gpt", "value": "no more"}//; s/<image>\\n[^"]*/<image>/' data.json |
    grep -v '"id": "r[0-9]*[49]"' >captions.json
train="train -m $model --vision_tower $mmproj --data_path data.json --image_folder $golden/parity --skip_bad_images
    --per_device_train_batch_size 2 --learning_rate 1e-3 --compute f32 -t 2 -q"

# random N: 0 … N-1, another one each time.
drawn=0
random() {
    drawn=$((drawn + 1))
    awk -v seed=$((seed % 100000 * 1000 + drawn)) -v n="$1" 'BEGIN { srand(seed); rand(); print int(rand() * n) }'
}

# Every checkpoint of the folder holds all its files, whole.
check_folders() { # FOLDER FILES
    for checkpoint in "$1"/checkpoint-*; do
        [ -e "$checkpoint" ] || continue
        for file in $2; do
            checks=$((checks + 1))
            "$pdrop" info "$checkpoint/$file" >/dev/null 2>err || fail "$checkpoint/$file: not a whole GGUF file"
        done
    done
}

# start_and_wait FOLDER STEPS: starts resuming in the background as $pid and waits until it has logged so many more
# steps, or is over.
start_and_wait() {
    newest=$(find "$1" -name 'checkpoint-*' -prune 2>/dev/null | sed 's/.*-//' | sort -n | tail -n 1)
    until=$((${newest:-0} + $2))
    "$pdrop" $what -o "$1" --resume >out 2>err </dev/null &
    pid=$!
    while kill -0 $pid 2>/dev/null; do
        step=$(last_step "$1/log.jsonl")
        # lines of before are there until the run has started
        grep -q ' from [0-9]* on;' err && [ "${step:-0}" -ge $until ] && break
        sleep 0.01
    done
}

# wait_for_saving FOLDER: until $pid writes a checkpoint there, or is over.
wait_for_saving() {
    until [ -e "$(echo "$1"/.checkpoint-*.tmp)" ] || ! kill -0 $pid 2>/dev/null; do :; done
}

# same_as FOLDER REFERENCE: log, newest checkpoint and weights are the same; nothing is left behind.
same_as() {
    checks=$((checks + 1))
    lasting "$2/log.jsonl" >expected.log
    lasting "$1/log.jsonl" >found.log
    cmp -s expected.log found.log || {
        diff expected.log found.log | head -n 6 >&2
        fail "$1: not the losses of the uninterrupted run"
    }
    for file in "$2"/*.gguf "$2/checkpoint-$steps"/*.gguf; do
        cmp -s "$file" "$1${file#"$2"}" || fail "$1${file#"$2"}: not the file of the uninterrupted run"
    done
    left=$(find "$1" -name '*.tmp')
    [ -z "$left" ] || fail "left behind: $left"
}

# killed NAME STEPS KILLS FILES ARGUMENT...
killed() {
    name=$1 steps=$2 kills=$3 files=$4
    shift 4
    what="$train --max_steps $steps --save_steps 3 --save_total_limit 2 $*"
    "$pdrop" $what -o $name.whole >out 2>err </dev/null || fail "$name: expected success"
    check_folders $name.whole "$files"
    done=0 tries=0 interrupted=0
    while [ $done -lt $kills ] && [ $tries -lt 200 ]; do
        tries=$((tries + 1))
        start_and_wait $name "$((3 + $(random 3)))"
        # at some moment, or while it saves
        if [ $((tries % 2)) = 0 ]; then sleep "0.0$(random 10)"; else wait_for_saving $name; fi
        kill -KILL $pid 2>/dev/null
        wait $pid 2>/dev/null
        [ $? = 137 ] && done=$((done + 1))
        [ -z "$(find $name -name '*.tmp' 2>/dev/null)" ] || interrupted=$((interrupted + 1))
        check_folders $name "$files"
        # Nearly done: the rest is killed anew, from the start.
        [ $done -lt $kills ] && [ -e $name/checkpoint-$steps ] && rm -rf $name
    done
    [ $done -ge $kills ] || fail "$name: expected $kills kills, found $done"
    "$pdrop" $what -o $name --resume >out 2>err </dev/null || fail "$name: expected success after $done kills"
    same_as $name $name.whole
    echo "test_train_resume: $name: $done kills, $interrupted of them while saving"
}

killed full 54 10 'state.gguf model.gguf mmproj.gguf'
killed lora 18 3 'state.gguf model.gguf mmproj.gguf' --lora_enable True --lora_r 4 --lora_alpha 8
killed projector 18 3 'state.gguf mmproj.gguf' --tune_mm_mlp_adapter True --version plain --data_path captions.json
"$pdrop" run -m full/model.gguf --mmproj full/mmproj.gguf -n 2 -p hi >out 2>err </dev/null || fail "run: expected an answer"

# ---- Ctrl-C -----------------------------------------------------------------------------------------------------

what="$train --max_steps 54 --save_steps 50 --save_total_limit 2" steps=54
for round in 1 2 3; do
    checks=$((checks + 1))
    start_and_wait stopped "$((2 + $(random 8)))"
    kill -INT $pid
    wait $pid
    code=$?
    [ $code = 130 ] || fail "Ctrl-C, round $round: expected exit code 130, found $code"
    step=$(last_step stopped/log.jsonl)
    [ "$(tail -n 1 err)" = "pdrop: stopped after step $step of 54" ] ||
        fail "Ctrl-C, round $round: expected \"pdrop: stopped after step $step of 54\""
    [ -e "stopped/checkpoint-$step/state.gguf" ] || fail "Ctrl-C, round $round: no checkpoint of step $step, the last"
done
"$pdrop" $what -o stopped --resume >out 2>err </dev/null || fail "after Ctrl-C: expected success"
same_as stopped full.whole

# Within the first step there is nothing to save.
checks=$((checks + 1))
records 3000 >many.json
"$pdrop" $train --data_path many.json --gradient_accumulation_steps 1500 --max_steps 1 -o first >out 2>err </dev/null &
pid=$!
until grep -q ' from 0 on;' err || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done
kill -INT $pid
wait $pid
code=$?
[ $code = 130 ] || fail "Ctrl-C in the first step: expected exit code 130, found $code"
[ "$(tail -n 1 err)" = 'pdrop: stopped after step 0 of 1' ] || fail 'Ctrl-C in the first step: expected it to be said'
[ -z "$(ls -A first)" ] || fail "Ctrl-C in the first step: left $(ls -A first)"

# ---- more steps than it was to have -----------------------------------------------------------------------------

what="$train --lr_scheduler_type constant --save_steps 6 --save_total_limit 2" steps=12
"$pdrop" $what --max_steps 12 -o longer.whole >out 2>err </dev/null || fail 'twelve steps: expected success'
"$pdrop" $what --max_steps 6 -o longer >out 2>err </dev/null || fail 'six steps: expected success'
"$pdrop" $what --max_steps 12 -o longer --resume >out 2>err </dev/null || fail 'six more: expected success'
grep -q 'longer/checkpoint-6 was to have 6 steps, warm-up 1; this run has 12 steps' err || fail "six more: expected a warning: $(cat err)"
same_as longer longer.whole

echo "test_train_resume: $checks checks, $failures failed (seed $seed)"
[ $failures = 0 ]
