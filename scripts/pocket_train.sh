#!/bin/sh
# Trains the pocket model: its data, then both phases of LLaVA from scratch; the first in two lessons, few things and then
# many. Interrupted, it goes on where it was.
#
#   sh scripts/pocket_train.sh BUILD OUT dense|pyramid
#
# OUT/few, OUT/data: pictures, captions, questions; OUT/few-KIND, OUT/captions-KIND: phase 1; OUT/KIND: phase 2, the pair.
# What can be changed by the environment: FEW_STEPS, CAPTION_STEPS, QUESTION_STEPS, BATCH, RATE, THREADS.
set -euf # no file name is meant by [3,6,9]
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
geometry=$(dirname "$0")/../models/pocket/geometry.json

mkdir -p "$out"
[ -e "$out/few/train-captions.json" ] ||
    "$build/scenes" --kind captions --split train -n 32000 --most 2 --mix objects=50,emoji=25,signs=25 --out "$out/few"
# The captions are of the questions' pictures.
[ -e "$out/data/train-questions.json" ] ||
    "$build/scenes" --kind questions --split train -n 60000 --turns 6 --text-only 0.02 --describe 0.5 --out "$out/data"
[ -e "$out/data/train-captions.json" ] ||
    "$build/scenes" --kind captions --split train -n 60000 --no-images --out "$out/data"

# phase NAME DATA STEPS ARGUMENTS: one lesson, unless its pair is there.
phase() {
    folder=$out/$1 pictures=$out/${2%%/*} json=$out/$2 steps=$3
    shift 3
    [ -e "$folder/mmproj.gguf" ] && return
    # shellcheck disable=SC2086 # the policy is several words
    "$build/pdrop" train "$@" $policy --data_path "$json" --image_folder "$pictures" --unfreeze_mm_vision_tower True \
        --per_device_train_batch_size "${BATCH:-8}" --learning_rate "${RATE:-5e-4}" --weight_decay 0.05 --adam_beta2 0.98 \
        --warmup_ratio 0.03 --max_steps "$steps" --save_steps 200 --save_total_limit 2 --threads "${THREADS:-0}" --resume \
        -o "$folder"
}
phase "few-$kind" few/train-captions.json "${FEW_STEPS:-4000}" --from_scratch "$geometry" --version plain \
    --lr_scheduler_type constant_with_warmup --save_type f32
phase "captions-$kind" data/train-captions.json "${CAPTION_STEPS:-5000}" --version plain --skip_bad_images True \
    -m "$out/few-$kind/model.gguf" --vision_tower "$out/few-$kind/mmproj.gguf" \
    --lr_scheduler_type constant_with_warmup --save_type f32
phase "$kind" data/train-questions.json "${QUESTION_STEPS:-4000}" --version v1 \
    -m "$out/captions-$kind/model.gguf" --vision_tower "$out/captions-$kind/mmproj.gguf" --save_type f16
echo "$out/$kind/model.gguf"
echo "$out/$kind/mmproj.gguf"
