#!/bin/sh
# The program as a user meets it: exit codes, one clear line for everything that goes wrong, nothing half-written,
# a prompt end on Ctrl-C.
#
#   sh tests/test_cli.sh PDROP          (PDROP: the program's path)
# shellcheck disable=SC2086  # $ask, $arguments and $value are lists of words
set -u
pdrop=$1
golden=$(cd "$(dirname "$0")/golden" && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/pd_test_cli_XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
cd "$scratch" || exit 1
failures=0 checks=0

fail() {
    echo "FAILED: $*" >&2
    sed 's/^/    stderr: /' err >&2
    failures=$((failures + 1))
}

# expect CODE FRAGMENT ARGUMENT...: exit code CODE, and on stderr one line, from pdrop, with FRAGMENT in it.
expect() {
    code=$1 fragment=$2
    shift 2
    "$pdrop" "$@" >out 2>err </dev/null
    judge "$code" "$fragment" "$?" "pdrop $*"
}

judge() {
    checks=$((checks + 1))
    [ "$3" = "$1" ] || fail "$4: expected exit code $1, found $3"
    [ "$(wc -l <err)" = 1 ] || fail "$4: expected one line on stderr"
    grep -q '^pdrop' err || fail "$4: expected a line from pdrop"
    grep -qF -e "$2" err || fail "$4: expected \"$2\" on stderr"
}

# succeeds ARGUMENT...: exit code 0 and nothing on stderr.
succeeds() {
    checks=$((checks + 1))
    "$pdrop" "$@" >out 2>err </dev/null
    code=$?
    [ $code = 0 ] || fail "pdrop $*: expected success, found exit code $code"
    [ ! -s err ] || fail "pdrop $*: expected nothing on stderr"
}

no_leftovers() {
    checks=$((checks + 1))
    for file in "$1"/*.tmp; do
        [ ! -e "$file" ] || fail "$2: left $file behind"
    done
}

succeeds synth tiny -q
ask="run -m tiny.gguf --mmproj tiny-mmproj.gguf -t 2 -n 3"

# ---- use --------------------------------------------------------------------------------------------------------

for command in run info flops synth train eval report bench; do
    succeeds $command --help
    grep -q "^usage: pdrop $command" out || fail "pdrop $command --help: expected its usage"
    cp out long
    succeeds help $command
    cmp -s out long || fail "pdrop help $command: expected the text of --help"
    expect 2 'no such option (see pdrop' $command --no-such-option
    expect 2 'no such option' $command -Z
done
succeeds --help
succeeds version
"$pdrop" >out 2>err
[ $? = 2 ] || fail "pdrop: expected exit code 2"
expect 2 'no command "fly"' fly
expect 2 'no command "fly' "fly
away"
expect 2 'expected a value behind it' run -m
expect 2 'no model: give a GGUF file with -m' run -p hello
expect 2 'takes no value, found "yes"' run --json=yes
expect 2 'expected a whole number from 1 to 512, found "zero"' run -t zero
expect 2 'expected a whole number from 1 to 512, found "0"' run -t 0
expect 2 'found "1?2"' run -t '1
2'
expect 2 'expected a whole number' run -n 99999999999999999999
expect 2 'expected a number from 0 to 1, found "nan"' run --top-p nan
expect 2 'expected one of sdpa, eager, flash, found "quick"' run --attn quick
expect 2 'expected one of auto, ggml, f32, bf16, int8, found "fp4"' run --compute fp4
expect 2 'no such argument expected here' run stray
for value in =maybe ' maybe'; do
    expect 2 '--lora_enable: expected True or False, found "maybe"' train --lora_enable$value
done
expect 2 'stray: no such argument expected here' train --lora_enable True stray
expect 2 'expected one geometry' synth
expect 2 'no geometry "huge"' synth huge
expect 2 'no weight type "q9"' synth tiny --type q9
expect 2 'expected one geometry' synth tiny --from geometry.json
expect 1 'nowhere.json: cannot open' synth --from nowhere.json
printf '{\n"hidden_size" 64}\n' >broken.json
expect 1 'broken.json: line 2, column 15: ' synth --from broken.json --init
expect 2 'no geometry "huge"' flops --geometry huge
expect 2 '--mmproj wants its text model' flops --geometry llava-1.5-7b --mmproj tiny-mmproj.gguf
expect 2 'a schedule wants --geometry or -m' flops --positions original
checks=$((checks + 1))
"$pdrop" run -m tiny.gguf <. >out 2>err
judge 1 'standard input: cannot read: ' $? 'a chat with a folder'
expect 2 'no device named Abacus0' run -m tiny.gguf --device Abacus0 -p hello
expect 2 'there is no conversation template "chatty"' run -m tiny.gguf --conv-mode chatty -p hello
expect 2 'expected a GGUF file' info

# ---- model files ------------------------------------------------------------------------------------------------

: >empty.gguf
head -c 3000 tiny.gguf >header.gguf
head -c 2000000 tiny.gguf >half.gguf
head -c 1000000 tiny-mmproj.gguf >half-mmproj.gguf
sed 's/llama\.block_count/llama.block_c0unt/' tiny.gguf >flipped.gguf
for command in run info flops bench; do
    file=-m
    [ $command != info ] || file=--
    expect 1 'nowhere.gguf: cannot open: No such file' $command $file nowhere.gguf
    expect 1 'empty.gguf: not a GGUF file (expected it to begin with "GGUF"; it is empty)' $command $file empty.gguf
    expect 1 'header.gguf: damaged or truncated GGUF header' $command $file header.gguf
    expect 1 'half.gguf: tensor ' $command $file half.gguf
    expect 1 '.: not a regular file' $command $file .
    expect 1 'tile.png: not a GGUF file' $command $file "$golden/parity/tile.png"
done
expect 1 'flipped.gguf: metadata key llama.block_count is missing' run -m flipped.gguf -p hello
expect 1 'expected a text model (give it with --mmproj)' run -m tiny-mmproj.gguf -p hello
expect 1 'expected clip (an mmproj file), found "llama"' run -m tiny.gguf --mmproj tiny.gguf -p hello
expect 1 'half-mmproj.gguf: tensor ' run -m tiny.gguf --mmproj half-mmproj.gguf -p hello
expect 1 'made for a text model of hidden size 64; this one has 256' \
    run -m tiny.gguf --mmproj "$golden/parity/mha-mmproj.gguf" -p hello

# ---- pictures ---------------------------------------------------------------------------------------------------

echo 'no picture' >words.jpg
: >empty.jpg
head -c 1000 "$golden/parity/tile.png" >half.png
head -c 600 "$golden/image/jpeg_444.jpg" >half.jpg
printf '\211PNG\r\n\032\n\0\0\0\rIHDR\0\0\0\0\0\0\0\0\010\002\0\0\0\264\351\353E' >zero.png
printf '\211PNG\r\n\032\n\0\0\0\rIHDR\0\0\303P\0\0\303P\010\002\0\0\0\304\315\252\235' >huge.png
expect 1 'nowhere.jpg: cannot open' $ask --image nowhere.jpg -p hello
expect 1 'words.jpg: not a picture: expected JPEG, PNG or WebP' $ask --image words.jpg -p hello
expect 1 'empty.jpg: empty' $ask --image empty.jpg -p hello
expect 1 'half.png: ' $ask --image half.png -p hello
expect 1 'half.jpg: ' $ask --image half.jpg -p hello
expect 1 'zero.png: ' $ask --image zero.png -p hello
expect 1 'huge.png: PNG of 50000x50000 pixels' $ask --image huge.png -p hello
expect 2 'the model was loaded without an mmproj' run -m tiny.gguf --image "$golden/parity/tile.png" -p hello
expect 2 '2 <image> placeholders for 1 pictures' $ask --image "$golden/parity/tile.png" -p '<image><image>?'
expect 2 'image_grid_pinpoints' $ask --image_aspect_ratio anyres --image "$golden/parity/tile.png" -p hello

# ---- prompts and schedules --------------------------------------------------------------------------------------

yes 'the cat sat on the mat' | head -c 100000 >long_prompt
expect 1 'the prompt is too long: ' $ask -p "$(cat long_prompt)"
expect 1 'in a context of 64 (-c sets it)' $ask -c 64 --image "$golden/parity/tile.png" -p hello
succeeds $ask -p ''
succeeds $ask --image "$golden/parity/tile.png" -p ''
expect 2 'layer 8 is beyond the model (expected 1 to 7)' $ask --layer_list '[8]' --image_token_ratio_list '[.5]' -p hi
expect 2 'expected strictly increasing layers' $ask --layer_list '[4,2]' --image_token_ratio_list '[.5,.2]' -p hi
expect 2 'lists of one length' $ask --layer_list '[2,4]' --image_token_ratio_list '[.5]' -p hi
expect 2 'expected non-increasing ratios' $ask --layer_list '[2,4]' --image_token_ratio_list '[.2,.5]' -p hi
expect 2 'expected ratios in [0, 1], found nan' $ask --layer_list '[2]' --image_token_ratio_list '[nan]' -p hi
expect 2 'expected both' $ask --layer_list '[2]' -p hi
expect 2 'exclude each other' $ask --no-drop --policy pdrop -p hi
expect 2 'expected none, pdrop' $ask --policy pyramid -p hi

# ---- where the answer goes --------------------------------------------------------------------------------------

run_into() { # FILE ARGUMENT...
    target=$1
    shift
    "$pdrop" "$@" >"$target" 2>err </dev/null
}
if [ -w /dev/full ]; then
    for arguments in "$ask -p hi" "$ask --json -p hi" 'info tiny.gguf' 'info --json tiny.gguf' flops '--help' \
        'run --help' version; do
        run_into /dev/full $arguments
        judge 1 'standard output' "$?" "pdrop $arguments >/dev/full"
    done
else
    echo "test_cli: there is no /dev/full here; a full standard output is not tested"
fi
"$pdrop" $ask -p hi >&- 2>err </dev/null
judge 1 'standard output' "$?" "pdrop run >&-"
"$pdrop" synth tiny -o closed >&- 2>err </dev/null
judge 1 'standard output' "$?" "pdrop synth >&-"
cmp -s tiny.gguf closed.gguf || fail "pdrop synth >&-: the model is not what it is without"
"$pdrop" run -m nowhere.gguf 2>&- >out </dev/null
[ $? = 1 ] || fail "pdrop run 2>&-: expected exit code 1"
echo 'the cat' | "$pdrop" $ask >out 2>err || fail "a question on standard input: expected success"
"$pdrop" $ask <&- >out 2>err || fail "a chat without standard input: expected success"

# ---- numbers to multiply in ---------------------------------------------------------------------------------------

for compute in auto ggml f32; do
    succeeds $ask -q --compute $compute --compute-strict -p hi
done
# Not every CPU can do these: then a warning, and the answer all the same; with --compute-strict an error.
for compute in bf16 int8; do
    checks=$((checks + 1))
    "$pdrop" $ask -q --compute $compute -p hi >out 2>err </dev/null || fail "--compute $compute: expected an answer"
    if [ -s err ]; then
        grep -q "^pdrop: compute.*; using" err || fail "--compute $compute: expected a warning that names the next best"
        expect 1 compute $ask -q --compute $compute --compute-strict -p hi
    else
        succeeds $ask -q --compute $compute --compute-strict -p hi
    fi
done

# ---- training reports -------------------------------------------------------------------------------------------

mkdir -p runs/dense runs/pyr\&mid
printf '{"step":%d,"epoch":1,"loss":2,"image_rows":8,"image_rows_mean":8,"rows":10,"step_ms":100}\n' 1 2 3 >runs/dense/log.jsonl
printf '{"step":%d,"epoch":1,"loss":1,"image_rows":8,"image_rows_mean":4,"rows":10,"step_ms":50}\n' 1 2 3 >runs/pyr\&mid/log.jsonl
succeeds report runs/dense runs/pyr\&mid/
grep -q 'pyr&mid .* 0.500 .* 50.0 %' out || fail "pdrop report: expected half the time and half the image tokens"
grep -q '</html>' report.html || fail "pdrop report: expected a whole page"
grep -q 'pyr&amp;mid' report.html || fail "pdrop report: expected an escaped name"
if grep -q -E '<script|https?://|@import|url\(|src=' report.html; then fail "pdrop report: expected a page without scripts or links"; fi
rm report.html
succeeds report runs/dense/log.jsonl runs/pyr\&mid --json
grep -q '"name":"pyr&mid","steps":3.*"loss":1.0.*"image_kept":0.5,"time_ratio":0.5,' out || fail "pdrop report --json: not the figures"
[ ! -e report.html ] || fail "pdrop report --json: expected no page"
succeeds report runs/pyr\&mid -o page.html --json
[ -s page.html ] || fail "pdrop report --json -o: expected a page"
printf '{"step":4,"loss":nan}\n{"step":5,"lo' >>runs/dense/log.jsonl
expect 0 'runs/dense/log.jsonl: the last line is not whole; it is left out' report runs/dense -o page.html
grep -q 'the loss of 1 of 4 steps is not a number' page.html || fail "pdrop report: expected the losses that are no numbers"
printf '\n' >>runs/dense/log.jsonl
rm page.html
expect 1 'runs/dense/log.jsonl: line 5, column 14: broken JSON: ' report runs/dense -o page.html
expect 1 'nowhere: cannot open' report nowhere -o page.html
expect 1 '/log.jsonl: cannot open' report . -o page.html
expect 2 'expected 1 to 8 runs' report
expect 2 'expected 1 to 8 runs' report 1 2 3 4 5 6 7 8 9
[ ! -e page.html ] || fail "pdrop report: left a page behind"
printf '{"step":%d,"loss":null,"labels":0}\n' 1 2 >mute.jsonl # of steps without labels
succeeds report mute.jsonl -o page.html
grep -q '^mute.jsonl  *2  *-  *-  ' out && grep -q '^  *2 of 2 steps had no labels, so no loss$' out ||
    fail "pdrop report: expected steps without labels: $(cat out)"
grep -q 'not a number' out page.html && fail "pdrop report: expected null to be no loss, rather than a bad one"
grep -q 'mute.jsonl: 2 of 2 steps had no labels, so no loss. ' page.html || fail "pdrop report: expected steps without labels on the page"
succeeds report mute.jsonl --json
grep -q '"loss":null,"bad_losses":0,"steps_without_labels":2,.*"labels":0.0,' out || fail "pdrop report --json: expected steps without labels"
printf '{"step":1,"loss":2}\n' >bare.jsonl # which tells nothing else
succeeds report bare.jsonl -o page.html
sed -n 2p out | grep -q '^bare.jsonl  *1  *-  *2  *-  *-  *-  *-  *-  *-$' || fail "pdrop report: expected - for what a log does not tell: $(cat out)"
[ "$(grep -c '<figcaption>Loss' page.html)" = 1 ] || fail "pdrop report: expected no loss by time of a log without times"
succeeds report bare.jsonl --json
grep -q '"epochs":null,.*"seconds":null,"wait_seconds":null,"step_ms":null,"rows":null,"labels":null,"tokens_per_second":null,"image_kept":null,"time_ratio":null,' out ||
    fail "pdrop report --json: expected null for what a log does not tell"
rm page.html
cp runs/pyr\&mid/log.jsonl log.before
ln runs/pyr\&mid/log.jsonl linked.html
expect 2 'log.jsonl: it is read; expected another file for --output' report runs/pyr\&mid -o runs/pyr\&mid/log.jsonl
expect 2 'linked.html: it is read; expected another file for --output' report runs/pyr\&mid -o linked.html --json
cmp -s runs/pyr\&mid/log.jsonl log.before || fail "pdrop report: wrote over a log"
expect 1 'nowhere/page.html: cannot create' report runs/pyr\&mid -o nowhere/page.html

# ---- many questions -----------------------------------------------------------------------------------------------

evaluate="eval -m tiny.gguf --mmproj tiny-mmproj.gguf -t 2 --max_new_tokens 3"
cp "$golden/parity/tile.png" .
succeeds $ask --image tile.png -p 'what' # what the model says, by another way
said=$(sed 's/\\/\\\\/g; s/"/\\"/g; s/^ *//; s/ *$//' out)
cat >questions.json <<QUESTIONS
[{"id":"a","image":"tile.png","task":"x","question":"what","answer":"$said"},
 {"id":"b","image":"tile.png","task":"x","question":"what","answer":"no such answer","held_out":true},
 {"id":3,"task":"y & z","question":"text alone"}]
QUESTIONS
succeeds $evaluate --question-file questions.json --answers-file answers.jsonl
grep -q '^x  *2  *1  *50.0 %' out || fail "pdrop eval: expected one of two right"
grep -q '^all  *2  *1  *50.0 %.* 0.0 % of 1' out || fail "pdrop eval: expected none of one held out right"
[ "$(wc -l <answers.jsonl)" = 3 ] || fail "pdrop eval: expected an answer a line"
sed -n 1p answers.jsonl | grep -q '^{"question_id":"a","prompt":"what","text":.*"answer_id":"tiny-a","model_id":"tiny","metadata":{.*"right":true}}$' ||
    fail "pdrop eval: not LLaVA's fields"
sed -n 3p answers.jsonl | grep -q '^{"question_id":3,.*"metadata":{}}$' || fail "pdrop eval: expected a number as it was"
succeeds $evaluate --question-file questions.json --parallel 3 --answers-file again.jsonl --json
cmp -s answers.jsonl again.jsonl || fail "pdrop eval --parallel 3: not the answers of two at a time"
grep -q '"schedule":"pdrop:2=0.5,4=0.25,6=0.125","questions":3,.*{"task":"all","n":2,"right":1,"accuracy":0.5,' out ||
    fail "pdrop eval --json: not the figures"
succeeds $evaluate --question-file questions.json --policy 'pdrop:2=0.5,4=0.25,6=0.125' --json
grep -q '"schedule":"pdrop:2=0.5,4=0.25,6=0.125"' out || fail "pdrop eval: a schedule's name is not what --policy takes"
for policy in none fastv:2=0.5 'random:2=0.5;seed=7;positions=original'; do
    succeeds $evaluate --question-file questions.json --policy "$policy" --json
    grep -qF "\"schedule\":\"$policy\"" out || fail "pdrop eval: expected the schedule $policy"
done
succeeds $evaluate --question-file questions.json --no-drop -v
grep -q '^tile.png .*wrong: no such answer$' out || fail "pdrop eval -v: expected every question"
expect 2 'no questions: give a file with --question-file' $evaluate
expect 1 'nowhere.json: cannot open' $evaluate --question-file nowhere.json
printf '{"text":"a"}\n{"text":}\n' >broken.jsonl
expect 1 'broken.jsonl: line 2, column 9: broken JSON' $evaluate --question-file broken.jsonl
printf '{"text":"a","image":"absent.png"}\n' >absent.jsonl
expect 1 'question 1: absent.png: cannot open' $evaluate --question-file absent.jsonl --answers-file none.jsonl
expect 1 'question 1: ./absent.png: cannot open' $evaluate --question-file absent.jsonl --image-folder .
[ ! -e none.jsonl ] || fail "pdrop eval: left answers behind"
cp questions.json questions.before
for file in questions.json ./tiny.gguf tiny-mmproj.gguf; do
    expect 2 "$file: it is read; expected another file for --answers-file" $evaluate --question-file questions.json --answers-file $file
done
cmp -s questions.json questions.before || fail "pdrop eval: wrote over its questions"
mkdir folder
expect 1 'folder: cannot create: a folder' $evaluate --question-file questions.json --answers-file folder
checks=$((checks + 1))
{ "$pdrop" $evaluate --question-file questions.json --answers-file piped.jsonl -v 2>err; echo $? >code; } | true
judge 1 'standard output' "$(cat code)" 'eval into a pipe that nobody reads'
no_leftovers . 'eval into a pipe that nobody reads'
expect 1 'nowhere/a.jsonl: cannot create' $evaluate --question-file questions.json --answers-file nowhere/a.jsonl
expect 1 'the prompt is too long' $evaluate -c 64 --question-file questions.json

# ---- chats ------------------------------------------------------------------------------------------------------

# chats TEXT ARGUMENT...: a conversation from a pipe.
chats() {
    checks=$((checks + 1))
    text=$1
    shift
    printf "$text" | "$pdrop" $ask "$@" >out 2>err
    code=$?
}
chats 'what\nand now\n/stats\n/clear\nwhat\n/exit\nnever asked\n'
[ $code = 0 ] && [ "$(wc -l <out)" = 3 ] || fail 'a chat: expected three answers'
[ "$(sed -n 1p out)" = "$(sed -n 3p out)" ] || fail 'a chat: expected the first answer again after /clear'
chats 'what\n/stats\nand now\n/stats\n'
awk '/^total / { rows[++n] = $2 } END { exit !(n == 2 && rows[2] > rows[1] + 3) }' err ||
    fail 'a chat: expected two tables of /stats, and all that was said in the second prompt'
succeeds $ask --image tile.png -p 'what'
alone=$(cat out)
chats '/image tile.png\nwhat\n'
[ $code = 0 ] && [ "$(cat out)" = "$alone" ] || fail 'a chat: /image FILE is not --image FILE'
chats '/image absent.png\nwhat\n'
judge 1 'absent.png: cannot open' $code 'a chat with a picture that is not there'
[ ! -s out ] || fail 'a chat with a picture that is not there: expected no answer'
succeeds $ask -p what
greedy=$(cat out)
succeeds $ask -p what --temp 1 --top-k 1
[ "$(cat out)" = "$greedy" ] || fail '--top-k 1: expected the greedy answer'
succeeds $ask -p what --temp 5 -s 1 -n 8
drawn=$(cat out)
succeeds $ask -p what --temp 5 -s 1 -n 8
[ "$(cat out)" = "$drawn" ] || fail '--seed: expected the same answer again'
succeeds $ask -p what --temp 5 -s 2 -n 8
[ "$(cat out)" != "$drawn" ] || fail '--seed: expected another answer'
succeeds $ask -p what --system 'Say no.'
[ "$(cat out)" != "$greedy" ] || fail '--system: expected it to matter'

# ---- Ctrl-C -----------------------------------------------------------------------------------------------------

# interrupt NAME SECONDS: SIGINT to $pid, which must end with exit code 130 and one line within SECONDS.
interrupt() {
    checks=$((checks + 1))
    kill -INT $pid
    (
        sleep "$2"
        kill -KILL $pid
    ) 2>/dev/null &
    watch=$!
    wait $pid
    code=$?
    kill $watch 2>/dev/null
    wait $watch 2>/dev/null
    [ $code = 130 ] || fail "$1: expected exit code 130 on SIGINT, found $code"
    [ "$(cat err)" = 'pdrop: stopped' ] || fail "$1: expected \"pdrop: stopped\""
}

# wait_for TEST...: until the test holds or half a minute is over.
wait_for() {
    tries=0
    until "$@" || [ $tries = 600 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    "$@" || fail "$*: did not come to be"
}

succeeds synth tiny-next -q # of a longer context
"$pdrop" run -m tiny-next.gguf -t 1 -c 4096 --ignore-eos -n 100000 -p hello >out 2>err </dev/null &
pid=$!
wait_for test -s out
interrupt 'decoding' 20
# Prefill shows nothing before it ends: it is met as soon as the signal is waited for (SIGINT's bit of those caught; of
# the program's, for the shell that becomes it catches some, too).
catches() { [ "$(cat /proc/$pid/comm)" = "${pdrop##*/}" ] && grep -q '^SigCgt:.*[2367abef]$' /proc/$pid/status; }
head -c 6500 long_prompt >prompt
"$pdrop" run -m tiny-next.gguf -t 1 --attn eager --ignore-eos -p "$(cat prompt)" >out 2>err </dev/null &
pid=$!
if [ -d /proc/self ]; then wait_for catches; else sleep 0.4; fi
interrupt 'prefill' 20
[ ! -s out ] || fail "prefill: it was over before the signal"

# nohup: a hangup is nobody's business.
checks=$((checks + 1))
(
    trap '' HUP
    exec "$pdrop" run -m tiny-next.gguf -t 1 -c 4096 --ignore-eos -n 100000 -p hello >out 2>err </dev/null
) &
pid=$!
wait_for test -s out
kill -HUP $pid
sleep 0.3
kill -0 $pid 2>/dev/null || fail 'under nohup: stopped by a hangup'
interrupt 'under nohup' 20

awk 'BEGIN { for (i = 0; i < 100000; i++) print "{\"text\":\"again\"}" }' >many.jsonl
"$pdrop" eval -m tiny.gguf -t 2 --question-file many.jsonl --answers-file stopped.jsonl >out 2>err </dev/null &
pid=$!
if [ -d /proc/self ]; then wait_for catches; else sleep 0.5; fi
interrupt 'eval' 20
[ ! -s out ] && [ ! -e stopped.jsonl ] || fail "eval: said something when stopped"
no_leftovers . 'eval'

# ---- a geometry of one's own ------------------------------------------------------------------------------------

sed "s|vocabulary.gguf|$golden/parity/mha.gguf|" "$golden/../../models/pocket/geometry.json" >own.json
cp "$golden/parity/mha.gguf" words-mmproj.gguf
sed "s|$golden/parity/mha.gguf|words-mmproj.gguf|" own.json >own.gguf
expect 2 'words-mmproj.gguf: it is read; expected another file for --output' synth --from own.gguf --init -q -o words
expect 2 'own.gguf: it is read; expected another file for --output' synth --from own.gguf --init -q -o own
cmp -s "$golden/parity/mha.gguf" words-mmproj.gguf && [ ! -e words.gguf ] || fail "synth: wrote over its vocabulary"
succeeds synth --from own.json --init -q -o own
succeeds synth --from own.json --init -q -o own-again
cmp -s own.gguf own-again.gguf || fail "synth --init: the same seed gave another model"
succeeds synth --from own.json --init -s 1 -q -o own-again
cmp -s own.gguf own-again.gguf && fail "synth --init: another seed gave the same model"
"$pdrop" info own.gguf own-mmproj.gguf >out 2>err
grep -q 'f32 *110 tensors' out || fail "synth --init: not the 110 tensors in f32 of the pocket model"
grep -q 'f32 *89 tensors' out || fail "synth --init: not the 89 tensors in f32 of the pocket model's mmproj"
succeeds run -m own.gguf --mmproj own-mmproj.gguf --image "$golden/parity/tile.png" -p hello -n 1
rm -f own*

# ---- synth leaves all or nothing --------------------------------------------------------------------------------

mkdir stopped && cd stopped || exit 1
"$pdrop" synth llava-1.5-7b --layers 1 >out 2>err </dev/null &
pid=$!
written() { [ -n "$(find . -name '*.tmp')" ]; }
wait_for written
interrupt 'synth' 60
[ "$(find . -name '*.gguf*')" = '' ] || fail "synth: left a file behind"
cd .. || exit 1

# In a shell of its own, whose files may not grow beyond 256 KiB.
mkdir limited && cd limited || exit 1
(
    ulimit -f 512
    "$pdrop" synth tiny >out 2>err </dev/null
)
judge 1 'tiny.gguf: cannot write' "$?" "pdrop synth, with files of at most 256 KiB"
[ "$(find . -name '*.gguf*')" = '' ] || fail "synth: left a file behind"
cd .. || exit 1

# On a file system of 1 MiB, where this user may mount one.
mkdir full
cat >fill.sh <<'SCRIPT'
mount -t tmpfs -o size=1m tmpfs full || exit 99
cd full && "$1" synth tiny >/dev/null 2>../err </dev/null
code=$?
[ -z "$(find . -type f)" ] || code=98
exit $code
SCRIPT
if [ "$(id -u)" = 0 ]; then unshare='unshare -m'; else unshare='unshare -rm'; fi
if $unshare true 2>/dev/null; then
    $unshare sh fill.sh "$pdrop" 2>mount_err
    code=$?
    if [ $code = 99 ]; then
        echo "test_cli: cannot mount a small file system here ($(cat mount_err)); the file-size limit above stands for it"
    else
        judge 1 'No space left on device' "$code" "pdrop synth on a full disk"
    fi
else
    echo "test_cli: no mount name spaces here; the file-size limit above stands for a full disk"
fi

expect 1 'nowhere/x.gguf: cannot create' synth tiny -o nowhere/x

# ---- two at once ------------------------------------------------------------------------------------------------

checks=$((checks + 1))
"$pdrop" synth tiny -q -o twice 2>err </dev/null &
first=$!
"$pdrop" synth tiny -q -o twice 2>err2 </dev/null
second=$?
wait $first || fail "two synths at once: the first failed"
[ $second = 0 ] || fail "two synths at once: the second failed"
cmp -s tiny.gguf twice.gguf || fail "two synths at once: not the model that one writes"
cmp -s tiny-mmproj.gguf twice-mmproj.gguf || fail "two synths at once: not the mmproj that one writes"
"$pdrop" $ask --image "$golden/parity/tile.png" -p hello >out1 2>err </dev/null &
first=$!
"$pdrop" $ask --image "$golden/parity/tile.png" -p hello >out2 2>err2 </dev/null
second=$?
wait $first || fail "two runs at once: the first failed"
[ $second = 0 ] || fail "two runs at once: the second failed"
cmp -s out1 out2 || fail "two runs at once: not the same answer"
no_leftovers . 'synth'

echo "test_cli: $checks checks, $failures failed"
[ $failures = 0 ]
