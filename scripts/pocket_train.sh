#!/bin/sh
# Trains the pocket model: its data, then both phases of LLaVA from scratch. Interrupted, it goes on where it was.
#
#   sh scripts/pocket_train.sh BUILD OUT dense|pyramid
#
# OUT/data: pictures, captions and questions; OUT/captions-KIND: phase 1; OUT/KIND: phase 2 and the trained pair.
# What can be changed by the environment: PICTURES, CAPTION_STEPS, QUESTION_STEPS, BATCH, RATE, THREADS.
set -eu
if [ $# -ne 3 ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0" >&2
    exit 2
fi
build=$1 out=$2 kind=$3
case $kind in
dense) policy=--no-drop ;;
pyramid) policy='--layer_list [3,6,9] --image_token_ratio_list [0.5,0.25,0.125]' ;;
*)
    echo "pocket_train: expected dense or pyramid, found $kind" >&2
    exit 2
    ;;
esac
pictures=${PICTURES:-60000}
batch=${BATCH:-8}
rate=${RATE:-1e-3}
geometry=$(dirname "$0")/../models/pocket/geometry.json
data=$out/data

mkdir -p "$out"
# The captions are of the same pictures; a few questions have none.
[ -e "$data/train-questions.json" ] ||
    "$build/scenes" --kind questions --split train -n "$pictures" --turns 6 --text-only 0.02 --describe 0.5 --out "$data"
[ -e "$data/train-captions.json" ] ||
    "$build/scenes" --kind captions --split train -n "$pictures" --no-images --out "$data"

# phase NAME ARGUMENTS: one phase, unless its pair is there.
phase() {
    folder=$out/$1
    shift
    [ -e "$folder/mmproj.gguf" ] && return
    # shellcheck disable=SC2086 # the policy is several words
    "$build/pdrop" train "$@" $policy --image_folder "$data" --unfreeze_mm_vision_tower True \
        --per_device_train_batch_size "$batch" --learning_rate "$rate" --weight_decay 0.05 --adam_beta2 0.98 \
        --save_steps 200 --save_total_limit 2 --threads "${THREADS:-0}" --resume -o "$folder"
}
phase "captions-$kind" --from_scratch "$geometry" --version plain --skip_bad_images True --data_path "$data/train-captions.json" \
    --lr_scheduler_type constant_with_warmup --warmup_ratio 0.03 --max_steps "${CAPTION_STEPS:-2400}" --save_type f32
phase "$kind" -m "$out/captions-$kind/model.gguf" --vision_tower "$out/captions-$kind/mmproj.gguf" --version v1 \
    --data_path "$data/train-questions.json" --warmup_ratio 0.02 --max_steps "${QUESTION_STEPS:-3500}" --save_type f16
echo "$out/$kind/model.gguf"
echo "$out/$kind/mmproj.gguf"
