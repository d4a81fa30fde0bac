#!/bin/sh
# pocket_eval from outside: what it counts is what the models say; one clear line for what goes wrong.
#
#   sh tests/test_pocket_eval.sh PDROP POCKET_EVAL
set -u
pdrop=$1 pocket_eval=$2
golden=$(cd "$(dirname "$0")/golden" && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/pd_test_pocket_eval_XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
cd "$scratch" || exit 1
failures=0
fail() {
    echo "FAILED: $*" >&2
    failures=$((failures + 1))
}

mkdir models data
"$pdrop" synth tiny -q -s 1 -o models/dense && "$pdrop" synth tiny -q -s 2 -o models/pyramid || fail 'pdrop synth'
cp "$golden/parity/tile.png" data
schedule="--layer_list [2] --image_token_ratio_list [.1]"
# What the two models say to two questions; the first is asked in the dense way, the second with the pyramid.
echo '{"image":"tile.png","text":"what"}' >q.jsonl
said() { # MODEL OPTION...
    model=$1
    shift
    "$pdrop" eval -m "models/$model.gguf" --mmproj "models/$model-mmproj.gguf" -t 1 --image-folder data --question-file q.jsonl \
        --max_new_tokens 4 --answers-file said.jsonl "$@" >/dev/null || fail "pdrop eval $model"
    sed 's/.*"text":"\(.*\)","answer_id".*/\1/' said.jsonl
}
dense=$(said dense --no-drop)
# shellcheck disable=SC2086  # options
pyramid=$(said pyramid $schedule)
other=$(said pyramid --no-drop)
[ "$dense" != "$pyramid" ] && [ "$other" != "$pyramid" ] || fail "expected answers that differ: \"$dense\", \"$pyramid\", \"$other\""
printf '[{"id":"a","image":"tile.png","task":"x","question":"what","answer":"%s"},\n{"id":"b","image":"tile.png","task":"y","held_out":true,"question":"what","answer":"%s"}]\n' \
    "$dense" "$pyramid" >data/test-eval.json
echo '{"seed":9,"rows":[{"task":"x","group":"seen","blind":0.9},{"task":"x","group":"all","blind":0.25},{"task":"all","group":"all","blind":0.5}]}' >summary.json

evaluate() {
    # shellcheck disable=SC2086  # options
    "$pocket_eval" --models models --data data --summary summary.json $schedule -t 2 --max_new_tokens 4 "$@" >out 2>err </dev/null
}
evaluate -o figures.json || fail "pocket_eval: $(cat err)"
tr -d ' \n' <figures.json >flat.json
has() { grep -qF "$1" flat.json || fail "figures: expected $1"; }
has '"seed":9'
has '"task":"x","model":"dense","schedule":"dense","accuracy":1.0,"n":1,"blind":0.25,'
has '"task":"y","model":"dense","schedule":"dense","accuracy":0.0,"n":1,"blind":null,'
has '"task":"y","model":"pyramid","schedule":"pyramid","accuracy":1.0,"n":1,"blind":null,'
has '"task":"y","model":"pyramid","schedule":"dense","accuracy":0.0,'
has '"task":"all","model":"pyramid","schedule":"pyramid","accuracy":0.5,"n":2,"blind":0.5,'
grep -q '^all  *2  *50.0 % ' out || fail "the table's last row"
grep -q '^held out  *1  *|  *0.0 % .* 100.0 %$' out || fail "the table's row of what is held out"

expect() { # CODE FRAGMENT ARGUMENT...
    code=$1 fragment=$2
    shift 2
    rm -f no.json
    evaluate -o no.json "$@"
    found=$?
    [ $found = "$code" ] || fail "$fragment: expected exit code $code, found $found"
    [ "$(wc -l <err)" = 1 ] && grep -qF "$fragment" err || fail "expected \"$fragment\", found: $(cat err)"
    [ ! -e no.json ] || fail "$fragment: left figures behind"
}
for file in summary.json data/test-eval.json models/dense.gguf models/pyramid-mmproj.gguf; do
    cp $file before
    expect 2 "$file: it is read; expected another file for --output" -o $file
    cmp -s $file before || fail "wrote over $file"
done
expect 1 'nowhere/dense.gguf: cannot open' --models nowhere
expect 1 'nowhere/test-eval.json: cannot open' --data nowhere
expect 1 'nowhere: cannot open' --summary nowhere
expect 1 'expected "seed" and "rows"' --summary data/test-eval.json
expect 1 'tile.png: line 1, column 1: broken JSON: ' --summary data/tile.png
printf '{"seed": 9,\n "rows": [}\n' >broken.json
expect 1 'broken.json: line 2, column 11: broken JSON: ' --summary broken.json
echo '{"seed":9,"rows":[{"group":"seen"},{"task":"x","group":"all"}]}' >half.json
expect 1 'half.json: rows[1].blind: expected a number from 0 to 1' --summary half.json
expect 2 'no such option' --seed 3
expect 2 'exclude each other' --policy none
printf '{"image":"tile.png","text":"what"}\n' >data/test-eval.json
expect 1 'question 1: answer: expected a string, found nothing'
[ "$failures" = 0 ] && echo 'test_pocket_eval: as it should be'
[ "$failures" = 0 ]
