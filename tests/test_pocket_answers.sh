#!/bin/sh
# The pocket model's dense answers are llama.cpp's, word for word (golden/make_pocket_answers.py).
#
#   sh tests/test_pocket_answers.sh PDROP
set -u
pdrop=$1
cd "$(dirname "$0")" || exit 1
models=../models/pocket questions=golden/pocket
figures=$("$pdrop" eval -m $models/dense.gguf --mmproj $models/dense-mmproj.gguf --no-drop --question-file $questions/questions.json \
    --image-folder $questions/pictures --max_new_tokens 16 --compute f32 -t 2 -q -v --json) || exit 1
case $figures in
*'"task":"all","n":40,"right":40,'*) echo 'test_pocket_answers: 40 answers, those of llama.cpp' ;;
*)
    echo 'FAILED: expected 40 answers of llama.cpp, see above (picture, question, answer)' >&2
    exit 1
    ;;
esac
