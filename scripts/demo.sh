#!/bin/sh
# make demo: a tiny model with random weights answers a question about models/pictures/house.png.
#
#   sh scripts/demo.sh BUILD
set -eu
build=$1
pdrop=$build/pdrop
picture=models/pictures/house.png
cd "$(dirname "$0")/.."
mkdir -p "$build/demo"

# step TEXT COMMAND...: shows and runs a command.
step() {
    printf '\n== %s\n$' "$1"
    shift
    for word; do
        case $word in *[!A-Za-z0-9_./:=,-]* | '') printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    echo
    "$@"
}

cat <<'T'
PyramidDrop's demo. No trained weights come with this project, so the model below is tiny and random: it runs
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
