#!/bin/sh
# make demo: the pocket model answers questions about pictures it has never seen; then a look inside, the time beside the
# dense model's, and what dropping saves on a model of full size.
#
#   sh scripts/demo.sh BUILD
set -eu
build=$1
pdrop=$build/pdrop
cd "$(dirname "$0")/.."
pocket=${POCKET_MODELS:-models/pocket}
pictures=models/pocket/pictures

# show TEXT COMMAND...: shows a command as one would type it.
show() {
    printf '\n== %s\n$' "$1"
    shift
    for word; do
        case $word in *[!A-Za-z0-9_./:=,-]* | '') printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    echo
}

# step TEXT COMMAND...: shows and runs it.
step() {
    show "$@"
    shift
    "$@"
}

# step_into FILE TEXT COMMAND...: shows it, and runs it into a file.
step_into() {
    file=$1
    shift
    show "$@"
    shift
    "$@" >"$file" 2>&1
}

cat <<'T'
PyramidDrop's demo: models/pocket, a LLaVA of five million parameters that was trained from scratch, on two CPU cores, with the
pyramid: half of the image tokens are dropped after each of four stages. It tells what is where, and compares; it cannot read
(docs/pocket.md has its figures). The questions below are picked, one of them such as it cannot answer.
T
set -- -m "$pocket/pyramid.gguf" --mmproj "$pocket/pyramid-mmproj.gguf"
step 'Pictures it has never seen, a question about each; the picture, the question, the answer' \
    "$pdrop" eval "$@" --image-folder $pictures --question-file $pictures/questions.json --max_new_tokens 16 -v -q
step_into "$build/demo.run" 'One of them from inside: ever fewer image tokens (printed as far as the totals)' \
    "$pdrop" run "$@" --image $pictures/emoji-1.png -p 'Describe the picture.' -n 96 -v
sed '/^total/q' "$build/demo.run"
step_into "$build/demo.bench" 'In turn with the dense model, medians of 5 rounds in ms (the chief lines)' \
    "$pdrop" bench "$@" --text-tokens 40 -r 5 -n 4
grep -E '^ +dense|^prefill  |^time to|^KV  ' "$build/demo.bench"
step 'What dropping saves on LLaVA-1.5-7B: arithmetic, no weights needed' \
    "$pdrop" flops --geometry llava-1.5-7b --layer_list '[8,16,24]' --image_token_ratio_list '[0.5,0.25,0.125]'
printf '\nThe pictures: %s/. Without -p, pdrop run is a chat. How the model was made: docs/pocket.md\n' "$pictures"
