#!/bin/sh
# The documents against the program and the header: nothing missing, nothing stale, no dead link.
#
#   sh tests/check_docs.sh BUILD [--update]     --update writes docs/cli.md's option lists anew
set -u
build=$(cd "$1" && pwd) || exit 1
pdrop=$build/pdrop
cd "$(dirname "$0")/.." || exit 1
scratch=$(mktemp -d "${TMPDIR:-/tmp}/pyramiddrop-docs.XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT
failures=0
complain() {
    echo "check_docs: $*"
    failures=$((failures + 1))
}
commands=$("$pdrop" help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | grep -v -x -e version -e help)
[ -n "$commands" ] || complain 'pdrop help lists no commands'

# ---- the option lists of docs/cli.md are the help texts ----------------------------------------------------------

for command in $commands; do
    "$pdrop" "$command" --help | sed 's/ *$//' >"$scratch/help.$command"
done
# Replaces the body of every fenced block that follows "<!-- help: COMMAND -->".
awk -v dir="$scratch" '
    /^<!-- help: [a-z]+ -->$/ { command = $3; print; next }
    command && /^```$/ && !inside {
        print
        while ((getline line < (dir "/help." command)) > 0) print line
        inside = 1
        next
    }
    inside && !/^```$/ { next }
    /^```$/ && inside { inside = 0; command = "" }
    { print }' docs/cli.md >"$scratch/cli.md"
if [ "${2:-}" = --update ]; then
    cp "$scratch/cli.md" docs/cli.md
elif ! diff docs/cli.md "$scratch/cli.md" >"$scratch/diff"; then
    cat "$scratch/diff"
    complain "docs/cli.md differs from the program's help: sh tests/check_docs.sh BUILD --update"
fi

# ---- every option in the man page and the completion -------------------------------------------------------------

sed 's/\\-/-/g; s/\\fB//g; s/\\fI//g; s/\\fR//g; s/"//g' share/man/pdrop.1 >"$scratch/man"
# complete WORD...: what the completion offers behind these words.
complete_words() {
    bash -c '. share/bash-completion/pdrop
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _pdrop
        printf "%s\n" "${COMPREPLY[@]}"' bash "$@"
}
for command in $commands; do
    grep -q "<!-- help: $command -->" docs/cli.md || complain "docs/cli.md has no section for pdrop $command"
    options=$(grep -o -E '^  (-[a-z], )?--[a-z0-9_-]+' "$scratch/help.$command" | tr -d ',')
    [ -n "$options" ] || complain "pdrop $command --help lists no options"
    if command -v bash >/dev/null; then complete_words "$pdrop" "$command" - >"$scratch/offered"; fi
    for option in $options; do
        grep -q -E -e "(^|[ ,|[])$option([ ,]|\$)" "$scratch/man" || complain "share/man/pdrop.1 lacks $option (pdrop $command)"
        command -v bash >/dev/null || continue
        grep -q -x -e "$option" "$scratch/offered" || complain "the bash completion does not offer $option for pdrop $command"
    done
done
if command -v bash >/dev/null; then
    for command in $commands version help; do
        complete_words "$pdrop" '' | grep -q -x "$command" || complain "the bash completion does not offer the command $command"
    done
fi

# ---- every JSON field --------------------------------------------------------------------------------------------

"$pdrop" synth tiny -q -o "$scratch/tiny" || complain 'pdrop synth failed'
files="-m $scratch/tiny.gguf --mmproj $scratch/tiny-mmproj.gguf"
echo '{"question":"?","answer":"!"}' >"$scratch/questions.json"
# fields WHERE: each field of $scratch/json stands in $scratch/section.
fields() {
    names=$(grep -o '"[a-z][a-z0-9_]*":' "$scratch/json" | tr -d '":' | sort -u)
    [ -n "$names" ] || complain "$1 has no JSON fields"
    for name in $names; do
        grep -q "\`$name\`" "$scratch/section" || complain "docs/cli.md, $1: the JSON field $name is missing"
    done
}
# json COMMAND ARGUMENT...: runs it, and takes the command's section of docs/cli.md.
json() {
    "$pdrop" "$@" --json >"$scratch/json" || complain "pdrop $* --json failed"
    sed -n "/^## pdrop $1\$/,/^## /p" docs/cli.md | sed '1n; /^## /d' >"$scratch/section"
}
# shellcheck disable=SC2086  # two options
json run $files --image models/pictures/house.png -p '?' -n 1
cp "$scratch/json" "$scratch/run.json"
cp "$scratch/section" "$scratch/run.section"
sed 's/"stages":\[[^]]*\]/"stages":0/' "$scratch/run.json" >"$scratch/json"
sed '/^A stage:/,$d' "$scratch/run.section" >"$scratch/section"
fields 'pdrop run'
grep -o '"stages":\[[^]]*\]' "$scratch/run.json" | sed 's/^"stages"://' >"$scratch/json"
sed -n '/^A stage:/,$p' "$scratch/run.section" >"$scratch/section"
fields 'a stage of pdrop run'
# shellcheck disable=SC2086  # two options
json bench $files -r 1 -n 2
fields 'pdrop bench'
json flops --geometry tiny
fields 'pdrop flops'
json info "$scratch/tiny.gguf"
fields 'pdrop info'
# shellcheck disable=SC2086  # two options
json eval $files --question-file "$scratch/questions.json" --max_new_tokens 1
fields 'pdrop eval'
echo '{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}' >"$scratch/one.json"
"$pdrop" train -m "$scratch/tiny.gguf" --data_path "$scratch/one.json" \
    --max_steps 1 --lora_enable --lora_r 1 --save_steps 0 -q --json -o "$scratch/trained" >"$scratch/json" 2>"$scratch/err" ||
    { cat "$scratch/err"; complain 'pdrop train failed'; }
sed -n '/^## The log$/,/^## Several/p' docs/training.md >"$scratch/section"
fields "docs/training.md's log"
json report fuzz/seeds/run_log/whole
fields 'pdrop report'

# ---- LLaVA's arguments: pdrop train has those that docs/training.md says are taken, and no others -----------------

sed -n '/^## Arguments of LLaVA$/,/^## Training data/p' docs/training.md | grep '^| `--' >"$scratch/rows"
[ -s "$scratch/rows" ] || complain 'docs/training.md has no table of LLaVA'"'"'s arguments'
while IFS='|' read -r _ theirs ours _; do
    case $ours in ' none: '* | *--compute*) taken=false ;; *) taken=true ;; esac
    for option in $(echo "$theirs" | tr -d ' `' | tr ',' ' '); do
        if grep -q -E -e "^  (-[a-z], )?$option( |\$)" "$scratch/help.train"; then has=true; else has=false; fi
        [ $has = $taken ] || complain "docs/training.md says the wrong thing about LLaVA's $option"
    done
done <"$scratch/rows"
for option in --per_device_eval_batch_size --image_grid_pinpoints; do
    grep -q -F -e "$option" "$scratch/rows" || complain "docs/training.md's table of LLaVA's arguments lacks $option"
done

# ---- docs/api.md and the header name the same things -------------------------------------------------------------

sed 's|//.*||; /^#/d' include/pyramiddrop.h >"$scratch/header"
sed 's|//.*||' include/pyramiddrop.h | grep -o -E '\bPD_[A-Z0-9_]+|\bpd_[a-z0-9_]+' | grep -v -x -e PD_API | sort -u >"$scratch/declared"
grep -o -E '\bPD_[A-Z0-9_]+|\bpd_[a-z0-9_]+' docs/api.md | sort -u >"$scratch/documented"
for name in $(comm -23 "$scratch/declared" "$scratch/documented"); do complain "docs/api.md lacks $name"; done
for name in $(comm -13 "$scratch/declared" "$scratch/documented"); do complain "docs/api.md names $name, which is not declared"; done
# Functions stand there with their whole declaration, fields in their struct's table.
tr '\n' ' ' <docs/api.md | tr -s ' ' >"$scratch/api"
tr '\n' ' ' <"$scratch/header" | tr -s ' ' | grep -o 'PD_API [^;]*;' | sed 's/^PD_API //; s/;$//' >"$scratch/functions"
[ -s "$scratch/functions" ] || complain 'the header declares no functions'
while read -r declaration; do
    grep -q -F "\`$declaration\`" "$scratch/api" || complain "docs/api.md lacks the declaration: $declaration"
done <"$scratch/functions"
for struct in policy model_params session_params message stats stage_stats; do
    sed -n "/^typedef struct pd_$struct {/,/^}/p" "$scratch/header" | sed '1d;$d' | tr '\n' ' ' | tr ';' '\n' |
        sed -n 's/\[[^]]*\]//; s/.*[ *]\([a-z_]*\) *$/\1/p' >"$scratch/fields"
    [ -s "$scratch/fields" ] || complain "pd_$struct has no fields"
    sed -n "/^\`pd_$struct\`/,/^\`pd_/p" docs/api.md >"$scratch/section"
    while read -r field; do
        grep -q "^| \`$field\` " "$scratch/section" || complain "docs/api.md, pd_$struct: the field $field is missing"
    done <"$scratch/fields"
done

# ---- rooms include only what lies below them (docs/architecture.md) ----------------------------------------------

# may ROOM ROOM...: what the first may include.
may() {
    room=$1
    shift
    allowed=$(echo "$room" "$@" | tr ' ' '|')
    grep -n -E '^#include "' src/"$room"/*.[ch] | grep -v -E "#include \"($allowed)/" >"$scratch/upward" || return 0
    cat "$scratch/upward"
    complain "src/$room includes a room that is not below it"
}
may base
may image base
may text base
may model base
may drop base model
may onednn base
may onerow base
may eval base
may engine base image text model drop onednn onerow
may train base image text model drop onednn engine
may cli base image text model drop engine train eval
for room in src/*/; do
    room=$(basename "$room")
    grep -q "\`src/$room/\`" docs/architecture.md || complain "docs/architecture.md does not tell of src/$room"
done

# ---- links -------------------------------------------------------------------------------------------------------

for page in README.md CHANGELOG.md docs/*.md tests/golden/README.md; do
    grep -o -E '\]\([^)]+\)' "$page" | sed 's/^](//; s/)$//' >"$scratch/links" || continue
    while read -r link; do
        case $link in http://* | https://* | mailto:*) continue ;; esac
        target=${link%%#*} anchor=
        case $link in *'#'*) anchor=${link#*#} ;; esac
        file=$page
        [ -z "$target" ] || file=$(dirname "$page")/$target
        [ -e "$file" ] || { complain "$page: dead link $link"; continue; }
        [ -n "$anchor" ] || continue
        grep -E '^#+ ' "$file" | sed 's/^#* //' | tr '[:upper:] ' '[:lower:]-' | tr -d '`.,:;()/+>' | grep -q -x -e "$anchor" ||
            complain "$page: no heading for the link $link"
    done <"$scratch/links"
done

[ $failures = 0 ] || { echo "check_docs: $failures complaints"; exit 1; }
echo "check_docs: $(wc -l <"$scratch/functions") functions, the options of $(echo "$commands" | wc -l) commands, JSON fields, links: as they should be"
