#!/bin/sh
# What goes wrong in training: one clear line for each, the right exit code, no half of a checkpoint, and the last good
# one stays.
#
#   sh tests/test_train_input.sh PDROP
# shellcheck disable=SC2086  # $base and $shown are lists of words
set -u
pdrop=$1
golden=$(cd "$(dirname "$0")/golden" && pwd)
helpers=$(cd "$(dirname "$0")" && pwd)/train_helpers.sh
scratch=$(mktemp -d "${TMPDIR:-/tmp}/pd_test_input_XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
cd "$scratch" || exit 1
# shellcheck source=tests/train_helpers.sh
. "$helpers"
records 22 >data.json
text="train -m $model --compute f32 -t 2 -q --per_device_train_batch_size 2 --image_folder $golden/parity"
base="$text --vision_tower $mmproj"

# judge NAME CODE FRAGMENT FOUND: exit code, and one line from pdrop on stderr with FRAGMENT in it. Lines of a run that
# has begun are pdrop train's.
judge() {
    checks=$((checks + 1))
    [ "$4" = "$2" ] || fail "$1: expected exit code $2, found $4"
    [ "$(grep -c -v '^pdrop train: [^-]' err)" = 1 ] || fail "$1: expected one line on stderr"
    grep -v '^pdrop train: [^-]' err | grep '^pdrop' | grep -q -F -e "$3" || fail "$1: expected \"$3\""
    left=$(find . -name '*.tmp')
    [ -z "$left" ] || fail "$1: left $left behind"
}

# expect CODE FRAGMENT ARGUMENT...: of a run into a new folder, which saves nothing.
expect() {
    code=$1 fragment=$2
    shift 2
    rm -rf new
    timeout 60 "$pdrop" "$@" -o new >out 2>err </dev/null
    judge "pdrop $*" "$code" "$fragment" $?
    [ -z "$(find . -path './new/*' ! -name log.jsonl)" ] || fail "pdrop $*: expected nothing in the output folder"
}

# trains NAME ARGUMENT...: successfully, into a new folder; lines of err are left to be looked at.
trains() {
    name=$1
    shift
    checks=$((checks + 1))
    rm -rf new
    timeout 60 "$pdrop" "$@" -o new >out 2>err </dev/null || fail "$name: expected success"
}

# ---- conversations ----------------------------------------------------------------------------------------------

expect 1 '.: not a regular file' $base --data_path .
expect 1 'nowhere.json: cannot open: No such file' $base --data_path nowhere.json
expect 1 'wide.png: line 1, column 1: expected a list of records' $base --data_path "$golden/parity/wide.png"
: >empty.json
expect 1 'empty.json: the file is empty' $base --data_path empty.json
echo '[]' >none.json
expect 1 'none.json: expected at least one record' $base --data_path none.json
sed 's/"r3",/"r3"/' data.json >broken.json
expect 1 'broken.json: line 5, column 13: ' $base --data_path broken.json
head -n 5 data.json | head -c 700 >cut.json
expect 1 'cut.json: line 5, column ' $base --data_path cut.json
echo '[{"id": 4, "conversations": [{"from": "bot", "value": "hi"}]}]' >role.json
expect 1 'role.json: record 0 (id 4): conversations[0].from: expected "human"' $base --data_path role.json
echo '[{"conversations": [{"from": "human", "value": "hi"}]}]' >question.json
expect 1 'question.json: record 0: conversations: expected an answer' $base --data_path question.json
echo '[{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": ""}]}]' >silent.json
expect 1 'silent.json: record 0: conversations: expected an answer' $base --data_path silent.json
expect 1 '1 bad records in a row, the first: silent.json' $base --data_path silent.json --skip_bad_samples
expect 1 'is longer than the context: no answer begins within 2 tokens' $base --data_path data.json --model_max_length 2
expect 2 '--model_max_length: expected a whole number from 2' $base --data_path data.json --model_max_length 0
{
    echo '[{"id": "long", "conversations": [{"from": "human", "value": "'
    awk 'BEGIN { for (i = 0; i < 3000; i++) printf "word " }'
    echo '"}, {"from": "gpt", "value": "yes"}]}, {"id": "short", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}]'
} | tr -d '\n' >long.json
expect 1 'record 0 (id "long"): the sample is longer than the context' $base --data_path long.json --max_steps 1
trains 'a long sample' $base --data_path long.json --max_steps 2 --skip_bad_samples
grep -q 'warning: skipped: long.json: record 0 (id "long")' err || fail 'a long sample: expected it to be named'
grep -q 'records left out for a picture: 0, for their text: 1; samples cut off: 0' err || fail 'a long sample: expected it to be counted'
# Where LLaVA's count does not add up there are no labels, and no loss.
echo '[{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}, {"from": "human", "value": "and"},
    {"from": "gpt", "value": ""}]}]' | tr -d '\n' >mismatch.json
expect 1 'mismatch.json: expected answers to learn under the template v1, found none in 1 steps' $base --data_path mismatch.json --max_steps 2
sed 's/]}]$/]}, {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]}]/' mismatch.json >half.json
trains 'a mismatch' $base --data_path half.json --per_device_train_batch_size 1 --max_steps 2
[ "$(grep -c '"loss":null,.*"labels":0,' new/log.jsonl)" = 1 ] || fail 'a mismatch: expected no loss in one of two steps'
grep -q 'samples cut off: 0, without labels: [1-9]' err || fail 'a mismatch: expected it to be counted'
shown=$(echo $base | sed 's/ -q / /')
"$pdrop" $shown --data_path mismatch.json --max_steps 1 -o new --overwrite_output_dir >out 2>err </dev/null &&
    fail 'a mismatch, shown: expected an error'
grep -q '^step 1/1  loss -  ETA ' err || fail 'a mismatch, shown: expected no loss'
trains 'a longer context than the model has' $base --data_path data.json --model_max_length 100000 --max_steps 1
grep -q "samples are cut off at the model's context of 2048" err || fail 'a longer context: expected a line'

# ---- pictures ---------------------------------------------------------------------------------------------------

records 22 6 >bad.json
expect 1 'bad.json: record 6 (id "r6"): '"$golden"'/parity/nowhere.png: cannot open' $base --data_path bad.json --num_train_epochs 1
trains 'a missing picture' $base --data_path bad.json --skip_bad_images
[ "$(grep -c 'warning: skipped: bad.json: record 6 (id "r6")' err)" = 1 ] || fail 'a missing picture: expected it to be named once'
grep -q 'records left out for a picture: 1, ' err || fail 'a missing picture: expected it to be counted'
mkdir cut
for picture in "$golden"/parity/*.png; do head -c 100 "$picture" >"cut/${picture##*/}"; done
expect 1 'PNG: the file ends before the picture does' $base --data_path data.json --image_folder cut
grep '"image"' data.json | sed '1s/^/[/; $s/,$//; $s/$/]/' >pictures.json
expect 1 'bad records in a row, the first: pictures.json: ' $base --data_path pictures.json --image_folder cut --skip_bad_images
expect 1 'nowhere/' $base --data_path data.json --image_folder nowhere
expect 2 'image_aspect_ratio anyres: expected an mmproj with' $base --data_path data.json --image_aspect_ratio anyres
trains 'squared pictures' $base --data_path data.json --image_aspect_ratio square --max_steps 1

# ---- arguments --------------------------------------------------------------------------------------------------

# Shares are LLaVA's doubles: a tenth of 30 records is 3, not 4.
records 30 >thirty.json
trains 'a tenth of an epoch' $base --data_path thirty.json --per_device_train_batch_size 1 --num_train_epochs 0.1
[ "$(last_step new/log.jsonl)" = 3 ] || fail "a tenth of an epoch: expected 3 steps, found $(last_step new/log.jsonl)"
# Losses are computed where no trained weight is reached, too.
trains 'text without a trained weight' $base --data_path data.json --per_device_train_batch_size 1 --freeze_backbone --max_steps 22
grep -q '"loss":0,' new/log.jsonl && fail 'text without a trained weight: expected losses'
# Frozen weights of every kind, and fewer labels than a product of oneDNN's wants, with oneDNN and without.
for type in f16 bf16 q8_0; do
    trains "$type" $base --data_path data.json --max_steps 1 --save_type $type
    rm -rf base && mv new base
    for compute in auto ggml; do
        trains "adapters beside $type, $compute" $base -m base/model.gguf --data_path data.json --per_device_train_batch_size 1 \
            --lora_enable --freeze_backbone --compute $compute --max_steps 2
    done
    trains "a projector before $type" $base -m base/model.gguf --vision_tower base/mmproj.gguf --data_path data.json \
        --per_device_train_batch_size 1 --unfreeze_mm_vision_tower --freeze_backbone --freeze_mm_mlp_adapter --compute ggml --max_steps 2
done

# ---- models -----------------------------------------------------------------------------------------------------

"$pdrop" synth tiny -q || fail 'synth'
expect 1 'tiny-mmproj.gguf: made for a text model of hidden size 256; this one has 64' \
    $text --vision_tower tiny-mmproj.gguf --data_path data.json
expect 1 'expected clip (an mmproj file), found "llama"' $text --vision_tower "$model" --data_path data.json
expect 1 'this is an mmproj (vision) file' $base -m "$mmproj" --data_path data.json
expect 1 'nowhere.gguf: cannot open' $base -m nowhere.gguf --data_path data.json
# 0xffffffff is a NaN; the file's end is a weight.
cp "$model" nan.gguf
printf '\377\377\377\377' | dd of=nan.gguf bs=1 seek=$(($(wc -c <nan.gguf) - 400)) conv=notrunc 2>/dev/null
expect 1 'step 1: the loss is ' $base -m nan.gguf --data_path data.json --save_steps 1
# Without a vision tower.
sed -n '/"image"/!{/id/p;}' data.json | sed 's/,$//' >text.json
trains 'text alone' $text --data_path text.json --max_steps 2
if [ ! -e new/model.gguf ] || [ -e new/mmproj.gguf ]; then fail 'text alone: expected a text model'; fi
expect 1 'image: the model cannot see' $text --data_path data.json
expect 2 'expected a vision tower' $text --data_path text.json --tune_mm_mlp_adapter
expect 1 'text.json: expected records with pictures' $base --data_path text.json --tune_mm_mlp_adapter
trains 'text alone, with a vision tower' $base --data_path text.json --max_steps 2

# ---- numbers ----------------------------------------------------------------------------------------------------

base="$base --data_path data.json"
expect 2 '--learning_rate: expected a number from 0 to 1000, found "1e30"' $base --learning_rate 1e30
expect 2 '--learning_rate: expected a number from 0 to 1000, found "nan"' $base --learning_rate nan
expect 2 'num_train_epochs: expected more than 0' $base --num_train_epochs 0
expect 2 'expected at most 2147483647 together' $base --per_device_train_batch_size 65536 --gradient_accumulation_steps 65536
expect 2 '--per_device_train_batch_size: expected a whole number from 1 to 65536' $base --per_device_train_batch_size 65537
trains 'a batch of 65536' $base --per_device_train_batch_size 65536 --max_steps 1
trains 'an accumulation of 65536' $base --gradient_accumulation_steps 65536 --max_steps 1
expect 2 'there is no conversation template "chatty"' $base --version chatty
expect 1 'the template plain expects a user' $base --version plain
expect 2 'layer 9 is beyond the model' $base --layer_list '[9]' --image_token_ratio_list '[.5]'
expect 2 'lora_dropout: expected at least 0 and below 1, found 1' $base --lora_enable --lora_dropout 1
expect 2 'nothing is trained: everything is frozen' $base --freeze_backbone --freeze_mm_mlp_adapter
expect 2 'tune_mm_mlp_adapter trains the projector alone' $base --tune_mm_mlp_adapter --lora_enable
expect 2 'no type "q4" to save weights in' $base --save_type q4
expect 2 '--data_path is missing' $text
expect 2 '--bf16: no such option' $base --bf16 True

# ---- the output folder ------------------------------------------------------------------------------------------

# into FOLDER CODE FRAGMENT ARGUMENT...: of a run into a folder that is there.
into() {
    folder=$1 code=$2 fragment=$3
    shift 3
    timeout 60 "$pdrop" $base -o "$folder" "$@" >out 2>err </dev/null
    judge "into $folder: $*" "$code" "$fragment" $?
}

: >file
into file 1 'file: cannot make the output folder: Not a directory' --max_steps 1
into file/below 1 'file/below: cannot make the output folder: Not a directory' --max_steps 1
if [ -d /proc/self ]; then into /proc/pdrop 1 '/proc/pdrop: cannot make the output folder: ' --max_steps 1; fi
"$pdrop" $base -o deep/er/kept --max_steps 4 --save_steps 2 >out 2>err </dev/null || fail 'a folder in folders: expected success'
mv deep/er/kept kept
find kept -type f -exec cksum {} + | sort >kept.before
into kept 2 "kept: holds an earlier run's checkpoint-4" --max_steps 4
into kept 2 "kept: holds an earlier run's checkpoint-4" --max_steps 4 --resume_from_checkpoint kept/checkpoint-2
into kept 1 'nowhere.json: cannot open' --max_steps 4 --overwrite_output_dir --data_path nowhere.json
into kept 1 'nowhere.gguf: cannot open' --max_steps 4 --overwrite_output_dir -m nowhere.gguf
into kept 1 'nowhere/' --max_steps 4 --overwrite_output_dir --image_folder nowhere
into kept 1 'the template v0 is not one to train with' --max_steps 4 --overwrite_output_dir --version v0
into kept 2 'kept/model.gguf: the run begins with it and would write over it or remove it' --max_steps 4 --overwrite_output_dir \
    -m kept/model.gguf
into kept 2 'kept/mmproj.gguf: the run begins with it' --max_steps 4 --overwrite_output_dir --vision_tower kept/mmproj.gguf
into kept 2 'kept/log.jsonl: it is read; expected another file for the log of --output_dir' --max_steps 4 --data_path kept/log.jsonl
into kept 2 'kept/checkpoint-4/model.gguf: the run begins with it' --max_steps 4 --overwrite_output_dir -m kept/checkpoint-4/model.gguf
into kept 2 'kept/checkpoint-4: the checkpoint is of another run (seed 42, ' --max_steps 4 --resume --seed 7
into kept 2 "kept/checkpoint-4: expected at most this run's 3 steps, found 4 done" --max_steps 3 --resume
into kept 1 'state.gguf: tensor blk.0.attn_k.weight: expected f32 [64, 32], found f32 [64, 64]: a checkpoint of another geometry' \
    --max_steps 4 --resume -m "$golden/parity/gqa.gguf"
into kept 1 'state.gguf: no tensor blk.0.attn_q.weight.lora_a: ' --max_steps 4 --resume --lora_enable
into kept 1 'state.gguf: expected 12 tensors, found 183: other trained parameters' --max_steps 4 --resume --tune_mm_mlp_adapter
into kept 1 'nowhere/state.gguf: cannot open' --max_steps 4 --resume_from_checkpoint nowhere
cp -r kept cut.run
head -c 20000 kept/checkpoint-4/state.gguf >cut.run/checkpoint-4/state.gguf
into cut.run 1 'cut.run/checkpoint-4/state.gguf: tensor token_embd.weight points outside the file' --max_steps 4 --resume
cp "$model" cut.run/checkpoint-4/state.gguf
into cut.run 1 'cut.run/checkpoint-4/state.gguf: metadata key pdrop.train.step is missing' --max_steps 4 --resume
# A run that fails after it was resumed leaves the checkpoints as they were.
cp kept/checkpoint-2/state.gguf nan.state.gguf
printf '\377\377\377\377' | dd of=nan.state.gguf bs=1 seek=$(($(wc -c <nan.state.gguf) - 400)) conv=notrunc 2>/dev/null
mkdir nan.run nan.run/checkpoint-2
cp nan.state.gguf nan.run/checkpoint-2/state.gguf
into nan.run 1 'expected numbers' --max_steps 4 --save_steps 1 --resume
[ "$(ls nan.run)" = "$(printf 'checkpoint-2\nlog.jsonl')" ] || fail 'NaN after resuming: expected no other checkpoint'
find kept -type f -exec cksum {} + | sort >kept.after
cmp -s kept.before kept.after || fail 'runs that failed changed the checkpoints of the run before'
# What training leaves as it is belongs to the run, too.
"$pdrop" $base -o adapters --max_steps 2 --lora_enable --lora_r 4 >out 2>err </dev/null || fail 'adapters: expected success'
into adapters 2 'adapters/checkpoint-2: the checkpoint is of a run that began with another model (fingerprint ' \
    --max_steps 4 --lora_enable --lora_r 4 --resume -m kept/model.gguf
# A run that is over writes its checkpoint no second time.
before=$(ls -i kept/checkpoint-4/state.gguf)
"$pdrop" $base -o kept --max_steps 4 --save_steps 2 --resume >out 2>err </dev/null || fail 'resuming at the end: expected success'
[ "$(ls -i kept/checkpoint-4/state.gguf)" = "$before" ] || fail 'resuming at the end: expected the checkpoint to stay'
mkdir kept/.checkpoint-9.tmp kept/.checkpoint-1.removed.tmp
: >kept/.checkpoint-9.tmp/model.gguf.12ab.tmp
: >kept/mmproj.gguf.0012ab.tmp
"$pdrop" $base -o kept --max_steps 4 --save_steps 2 --resume_from_checkpoint kept/checkpoint-2 --overwrite_output_dir >out 2>err </dev/null ||
    fail 'resuming from the last but one: expected success'
[ -z "$(find kept -name '*.tmp')" ] || fail 'leftovers of killed runs: expected them to be removed'
for file in model mmproj checkpoint-4/state; do
    grep -q "^$(cksum "kept/$file.gguf")\$" kept.before || fail "resuming from the last but one: another $file.gguf"
done
# A checkpoint that cannot be removed is no reason to stop.
trains 'in the way' $base --max_steps 3 --save_steps 1
mkdir new/checkpoint-1/mine
"$pdrop" $base -o new --max_steps 4 --save_steps 1 --save_total_limit 1 --resume >out 2>err </dev/null || fail 'in the way: expected success'
grep -q 'warning: new/.checkpoint-1.removed.tmp: cannot remove' err || fail 'in the way: expected a warning'
[ "$(find new -name 'checkpoint-*' -prune)" = new/checkpoint-4 ] || fail 'in the way: expected the last checkpoint'
"$pdrop" $base -o new --max_steps 4 --save_steps 1 --save_total_limit 1 --resume >out 2>err </dev/null || fail 'in the way, again: expected success'
rm -rf new/.checkpoint-1.removed.tmp
# Nor is a log that cannot be written.
if [ -w /dev/full ]; then
    mkdir mute
    ln -s /dev/full mute/log.jsonl
    "$pdrop" $base -o mute --max_steps 2 >out 2>err </dev/null || fail 'a log that cannot be written: expected success'
    [ "$(grep -c warning err)" = 1 ] && grep -q 'warning: mute/log.jsonl: cannot write: No space left on device; it ends here$' err ||
        fail 'a log that cannot be written: expected one warning'
    [ -e mute/checkpoint-2/state.gguf ] || fail 'a log that cannot be written: expected a checkpoint'
    rm mute/log.jsonl
    mkdir mute/log.jsonl
    "$pdrop" $base -o mute --max_steps 3 --overwrite_output_dir >out 2>err </dev/null || fail 'a folder for a log: expected success'
    [ "$(grep -c warning err)" = 1 ] && grep -q 'warning: mute/log.jsonl: cannot write: Is a directory; there will be no log$' err ||
        fail 'a folder for a log: expected one warning'
fi
trains 'anew' $base --max_steps 2
"$pdrop" $base -o kept --max_steps 2 --overwrite_output_dir >out 2>err </dev/null || fail 'overwriting: expected success'
[ "$(find kept -name 'checkpoint-*' -prune)" = kept/checkpoint-2 ] || fail 'overwriting: expected one checkpoint'
# Two at once.
"$pdrop" $base -o kept --max_steps 300 --overwrite_output_dir >out1 2>err1 </dev/null &
first=$!
until [ -s kept/log.jsonl ] && [ ! -e kept/checkpoint-2 ]; do sleep 0.05; done
into kept 1 'kept: another training writes into this output folder' --max_steps 300 --overwrite_output_dir
kill -TERM $first
wait $first
[ $? = 130 ] || fail 'SIGTERM: expected exit code 130'

# From scratch: the pair it begins with is part of the run.
geometry=$golden/../../models/pocket/geometry.json
scratch_run="train --data_path data.json --image_folder $golden/parity --per_device_train_batch_size 1 --max_steps 1 -t 2 -q"
expect 2 'expected neither model_name_or_path nor vision_tower' $scratch_run --from_scratch "$geometry" -m "$model"
expect 1 'data.json: ' train --from_scratch data.json --data_path data.json
expect 1 'broken.json: line 5, column 13: ' $scratch_run --from_scratch "$geometry" --data_path broken.json
expect 2 'layer 19 is beyond the model' $scratch_run --from_scratch "$geometry" --layer_list '[19]' --image_token_ratio_list '[.5]'
sed 's/"num_hidden_layers": 12/"num_hidden_layers": 10/; s|vocabulary.gguf|'"$golden"'/../../models/pocket/&|' "$geometry" >other.json
scratch_run="$scratch_run --from_scratch $geometry"
"$pdrop" $scratch_run -o runs/new >out 2>err </dev/null || fail 'from scratch: expected success'
before=$(cksum runs/new/scratch.gguf)
timeout 60 "$pdrop" $scratch_run -o runs/new --seed 7 >out 2>err </dev/null
judge 'from scratch, again' 2 "runs/new: holds an earlier run's checkpoint-1" $?
timeout 60 "$pdrop" $scratch_run -o runs/new --seed 7 --resume >out 2>err </dev/null
judge 'from scratch, resumed with another seed' 2 'scratch.gguf: expected weights of seed 7, found 42' $?
timeout 60 "$pdrop" $scratch_run -o runs/new --from_scratch other.json --resume >out 2>err </dev/null
judge 'from scratch, resumed with another geometry' 2 'scratch.gguf: expected a file of the geometry and vocabulary of other.json' $?
timeout 60 "$pdrop" $scratch_run -o runs/new --seed 7 --overwrite_output_dir --image_folder nowhere >out 2>err </dev/null
judge 'from scratch, overwriting without pictures' 1 'nowhere/' $?
[ "$(cksum runs/new/scratch.gguf)" = "$before" ] || fail 'from scratch: a run that was refused wrote other weights'
"$pdrop" $scratch_run -o runs/new --seed 7 --overwrite_output_dir >out 2>err </dev/null || fail 'from scratch, overwriting: expected success'
[ "$(cksum runs/new/scratch.gguf)" != "$before" ] || fail 'from scratch, overwriting: expected other weights'
[ -z "$(find runs -name '*.tmp')" ] || fail 'from scratch, overwriting: expected no leftovers'

# ---- a full disk ------------------------------------------------------------------------------------------------

# In a shell of its own, whose files may not grow beyond 2 MiB: the weights fit, the optimiser's state does not.
(
    ulimit -f 4096
    timeout 60 "$pdrop" $base -o limited --max_steps 4 --save_steps 2 >out 2>err </dev/null
)
judge 'files of at most 2 MiB' 1 'limited/.checkpoint-2.tmp/state.gguf: cannot write' $?
[ "$(ls limited)" = log.jsonl ] || fail 'files of at most 2 MiB: expected no checkpoint'
# On a file system of 8 MiB, where this user may mount one: a checkpoint fits, a second does not.
mkdir full
cat >fill.sh <<'SCRIPT'
mount -t tmpfs -o size=8m tmpfs full || exit 99
timeout 60 "$@" -o full/run --max_steps 6 --save_steps 2 --save_type f32 >out 2>err </dev/null
code=$?
[ "$(ls -A full/run)" = "$(printf 'checkpoint-2\nlog.jsonl')" ] || code=98
for file in state model mmproj; do "$1" info full/run/checkpoint-2/$file.gguf >/dev/null || code=97; done
exit $code
SCRIPT
if [ "$(id -u)" = 0 ]; then unshare='unshare -m'; else unshare='unshare -rm'; fi
if $unshare true 2>/dev/null; then
    $unshare sh fill.sh "$pdrop" $base 2>mount_err
    code=$?
    if [ $code = 99 ]; then
        echo "test_train_input: cannot mount a small file system here ($(cat mount_err)); the file-size limit above stands for it"
    else
        judge 'a full disk' 1 'No space left on device' $code
    fi
else
    echo "test_train_input: no mount name spaces here; the file-size limit above stands for a full disk"
fi

echo "test_train_input: $checks checks, $failures failed"
[ $failures = 0 ]
