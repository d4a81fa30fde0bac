#!/bin/sh
# Trains the pocket model: its data, then both phases of LLaVA from scratch, in lessons: captions of few things, then of
# many; questions; then comparisons of what is asked with what is seen, of one thing, of up to three, of all; all
# once more, with letters; counting; and all a last time.
# Interrupted, it goes on where it was.
#
#   sh scripts/pocket_train.sh BUILD OUT dense|pyramid
#
# OUT/few, …, OUT/last: pictures, captions, questions; OUT/few-KIND, OUT/captions-KIND: phase 1; OUT/questions-KIND,
# OUT/one-KIND, OUT/three-KIND, OUT/all-KIND, OUT/letters-KIND, OUT/count-KIND, OUT/KIND: phase 2, the last one the pair.
# What can be changed by the environment: FEW_STEPS, CAPTION_STEPS, QUESTION_STEPS, ONE_STEPS, THREE_STEPS, ALL_STEPS, LETTERS_STEPS,
# COUNT_STEPS, LAST_STEPS, BATCH, THREADS.
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

# data NAME FILE ARGUMENT...: renders a data set, unless it is there.
data() {
    folder=$out/$1 json=$2
    shift 2
    [ -e "$folder/$json" ] || "$build/scenes" --split train --out "$folder" "$@"
}
mkdir -p "$out"
data few train-captions.json --kind captions -n 32000 --most 2 --mix objects=50,emoji=25,signs=25
# The captions are of the questions' pictures.
data data train-questions.json --kind questions -n 60000 --turns 6 --text-only 0.02 --describe 0.5
data data train-captions.json --kind captions -n 60000 --no-images
data one train-questions.json --kind questions --seed 41 -n 5000 --most 1 --turns 6 --told 1 \
    --mix objects=80,emoji=20 --ask existence=8
data three train-questions.json --kind questions --seed 42 -n 13000 --most 3 --turns 8 --told 0.5 \
    --mix objects=70,emoji=16,signs=14 --ask existence=20,relations=20,shapes=3,colors=3,counting=2
data all train-questions.json --kind questions --seed 43 -n 40000 --turns 8 --told 0.25 --text-only 0.01 --describe 0.05 \
    --mix objects=54,emoji=14,signs=12,document=6,chart=14 \
    --ask existence=18,relations=16,positions=8,counting=4,shapes=4,colors=4
data letters train-questions.json --kind questions --seed 60 -n 52000 --turns 8 --told 0.15 --text-only 0.01 --describe 0.06 \
    --mix objects=44,emoji=10,signs=16,document=8,chart=12,letters=10 \
    --ask existence=12,relations=12,positions=7,counting=9,shapes=5,colors=6,sizes=2
data count train-questions.json --kind questions --seed 70 -n 8000 --most 5 --turns 10 --told 0.5 \
    --mix objects=90,emoji=10 --ask counting=24,existence=5,relations=4,colors=3,positions=3,shapes=2
data last train-questions.json --kind questions --seed 80 -n 37000 --turns 8 --told 0.15 --text-only 0.01 --describe 0.05 \
    --mix objects=54,emoji=9,signs=14,document=7,chart=14,letters=2 \
    --ask existence=12,relations=12,positions=7,counting=12,shapes=4,colors=9,sizes=3

# phase NAME FROM DATA STEPS ARGUMENT...: one lesson, unless its pair is there; FROM: the lesson before, or "".
phase() {
    folder=$out/$1 from=$out/$2 pictures=$out/${3%%/*} json=$out/$3 steps=$4
    [ -e "$folder/mmproj.gguf" ] && return
    [ -z "$2" ] || set -- "$@" -m "$from/model.gguf" --vision_tower "$from/mmproj.gguf"
    shift 4
    # shellcheck disable=SC2086 # the policy is several words
    "$build/pdrop" train $policy --data_path "$json" --image_folder "$pictures" --unfreeze_mm_vision_tower True \
        --per_device_train_batch_size "${BATCH:-8}" --weight_decay 0.05 --adam_beta2 0.98 --warmup_ratio 0.03 \
        --max_steps "$steps" --save_steps 200 --save_total_limit 2 --threads "${THREADS:-0}" --resume -o "$folder" "$@"
}
constant='--lr_scheduler_type constant_with_warmup --save_type f32'
# shellcheck disable=SC2086 # and so are the constant rate's arguments
{
    phase "few-$kind" '' few/train-captions.json "${FEW_STEPS:-4000}" --from_scratch "$geometry" --version plain \
        --learning_rate 5e-4 $constant
    phase "captions-$kind" "few-$kind" data/train-captions.json "${CAPTION_STEPS:-5000}" --version plain \
        --skip_bad_images True --learning_rate 5e-4 $constant
    phase "questions-$kind" "captions-$kind" data/train-questions.json "${QUESTION_STEPS:-4000}" --version v1 \
        --learning_rate 5e-4 --save_type f16
    phase "one-$kind" "questions-$kind" one/train-questions.json "${ONE_STEPS:-600}" --version v1 \
        --learning_rate 4e-4 $constant
    phase "three-$kind" "one-$kind" three/train-questions.json "${THREE_STEPS:-1600}" --version v1 \
        --learning_rate 4e-4 $constant
    phase "all-$kind" "three-$kind" all/train-questions.json "${ALL_STEPS:-5000}" --version v1 --learning_rate 4e-4 \
        --save_type f16
    phase "letters-$kind" "all-$kind" letters/train-questions.json "${LETTERS_STEPS:-6500}" --version v1 \
        --learning_rate 4e-4 --save_type f16
    phase "count-$kind" "letters-$kind" count/train-questions.json "${COUNT_STEPS:-1000}" --version v1 \
        --learning_rate 4e-4 $constant
    phase "$kind" "count-$kind" last/train-questions.json "${LAST_STEPS:-4600}" --version v1 --learning_rate 4e-4 \
        --save_type f16
}
echo "$out/$kind/model.gguf"
echo "$out/$kind/mmproj.gguf"
