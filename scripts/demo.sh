#!/bin/sh
# make demo: the pocket model answers questions about pictures it has never seen; then a look inside, and the time beside
# the dense model's. Where models/pocket has no weights, a tiny model with random weights stands in.
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

if [ -f "$pocket/pyramid.gguf" ] && [ -f "$pocket/pyramid-mmproj.gguf" ]; then
    echo "PyramidDrop's demo: models/pocket, a small LLaVA that was trained from scratch with the pyramid."
    # The schedule is the default: four equal stages, half of the image tokens dropped after each.
    set -- -m "$pocket/pyramid.gguf" --mmproj "$pocket/pyramid-mmproj.gguf"
    step 'Eight pictures, a question about each; the picture, the question, the answer' \
        "$pdrop" eval "$@" --image-folder $pictures --question-file $pictures/questions.json --max_new_tokens 16 -v
    step_into "$build/demo.run" 'One of them from inside: ever fewer image tokens (printed as far as the totals)' \
        "$pdrop" run "$@" --image $pictures/receipt-1.png -p 'What is the total?' -n 16 -v
    sed '/^total/q' "$build/demo.run"
    step_into "$build/demo.bench" 'In turn with the dense model, medians of 5 rounds in ms (the chief lines)' \
        "$pdrop" bench "$@" --text-tokens 40 -r 5 -n 4
    grep -E '^ +dense|^prefill  |^time to|^KV  ' "$build/demo.bench"
    printf '\nThe pictures: %s/. Without -p, pdrop run is a chat. How the model was made: docs/pocket.md\n' "$pictures"
    exit 0
fi

picture=models/pictures/house.png
mkdir -p "$build/demo"
cat <<'T'
PyramidDrop's demo. No trained weights lie in models/pocket, so the model below is tiny and random: it runs
through everything a real one does (picture, vision tower, decoder stages, dropping, sampling), but its answer
is noise. With LLaVA's GGUF files the same commands give real answers.
T
step 'Make a tiny model with random weights' \
    "$pdrop" synth tiny -o "$build/demo/tiny"
step 'Ask it about a picture; image tokens are dropped between stages' \
    "$pdrop" run -m "$build/demo/tiny.gguf" --mmproj "$build/demo/tiny-mmproj.gguf" --image "$picture" \
    -p 'What is in the picture?' -n 24 -v
step 'What dropping saves on LLaVA-1.5-7B: arithmetic, no weights needed' \
    "$pdrop" flops --geometry llava-1.5-7b --layer_list '[8,16,24]' --image_token_ratio_list '[0.5,0.25,0.125]'
printf '\nThe picture was %s. Again: the weights are random, and so is the answer above.\n' "$picture"
