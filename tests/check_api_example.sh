#!/bin/sh
# The program of docs/api.md, taken from that page: it compiles without a warning, and what it prints is what
# `pdrop run` says of the same question. README.md's ten lines compile too.
#
#   sh tests/check_api_example.sh BUILD     CC, CFLAGS: compiler and flags
set -eu
build=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
scratch=$(mktemp -d "${TMPDIR:-/tmp}/pyramiddrop-example.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
fail() {
    echo "check_api_example: $*" >&2
    exit 1
}
# c_block FILE: the body of its first block of C.
c_block() { awk '/^```c$/ && !done { inside = 1; next } /^```$/ { if (inside) done = 1; inside = 0 } inside' "$1"; }
# shellcheck disable=SC2086  # flags are split into words
compile() { ${CC:-cc} -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror ${CFLAGS:-} -Iinclude "$@"; }

c_block docs/api.md >"$scratch/example.c"
grep -q '^int main' "$scratch/example.c" || fail 'docs/api.md has no program'
compile "$scratch/example.c" -o "$scratch/example" -L"$build" -lpyramiddrop -Wl,-rpath,"$build" ||
    fail "docs/api.md's program does not compile"

{
    printf '#include <pyramiddrop.h>\n#include <stdio.h>\nint main(void) {\n'
    c_block README.md
    printf 'return status == PD_DONE ? 0 : 1;\n}\n'
} >"$scratch/readme.c"
grep -q pd_session_next "$scratch/readme.c" || fail 'README.md has no example'
compile -fsyntax-only "$scratch/readme.c" || fail "README.md's lines do not compile"

"$build/pdrop" synth tiny -q -o "$scratch/tiny"
question='What is in the picture?'
picture=models/pictures/house.png
"$scratch/example" "$scratch/tiny.gguf" "$scratch/tiny-mmproj.gguf" $picture "$question" >"$scratch/got" ||
    fail 'the program failed'
"$build/pdrop" run -m "$scratch/tiny.gguf" --mmproj "$scratch/tiny-mmproj.gguf" --image $picture -p "$question" \
    -n 16 -q --json >"$scratch/json"
"$build/pdrop" run -m "$scratch/tiny.gguf" --mmproj "$scratch/tiny-mmproj.gguf" --image $picture -p "$question" \
    -n 16 -q >"$scratch/answer"

# The answer, which pdrop prints without the blanks it begins with.
sed -n '/^stage 0: /q;p' "$scratch/got" | sed '1s/^ *//' >"$scratch/got.answer"
cmp "$scratch/answer" "$scratch/got.answer" || fail 'its answer is not that of pdrop run'

# "stage 1: layers 2-3, 199 rows, 72 image tokens, 3.1 ms" against the JSON's stages.
sed -n 's/^stage [0-9]*: layers \([0-9]*\)-[0-9]*, \([0-9]*\) rows, \([0-9]*\) image tokens, .* ms$/\1 \2 \3/p' \
    "$scratch/got" >"$scratch/got.stages"
grep -o '"first_layer":[0-9]*,"n_layers":[0-9]*,"n_rows":[0-9]*,"n_image_tokens":[0-9]*' "$scratch/json" |
    sed 's/[^0-9]*\([0-9]*\)[^0-9]*[0-9]*[^0-9]*\([0-9]*\)[^0-9]*\([0-9]*\)/\1 \2 \3/' >"$scratch/stages"
[ "$(wc -l <"$scratch/stages")" = 4 ] || fail 'pdrop run does not show four stages'
diff "$scratch/stages" "$scratch/got.stages" || fail 'its stages are not those of pdrop run'

# The tokens that lived to the last stage.
sed -n 's/^kept: //p' "$scratch/got" | tr ' ' ',' >"$scratch/got.kept"
grep -o '"kept":\[\[.*\]\]\]' "$scratch/json" | sed 's/\]\]\]$//; s/.*\[//' >"$scratch/kept"
[ "$(tr ',' '\n' <"$scratch/kept" | wc -l)" = 18 ] || fail 'pdrop run does not keep 18 of 144 tokens'
cmp "$scratch/kept" "$scratch/got.kept" || fail 'its kept tokens are not those of pdrop run'

# Errors: one line, which names the file, and exit code 1.
if "$scratch/example" "$scratch/tiny.gguf" "$scratch/tiny-mmproj.gguf" no-such.png '?' >"$scratch/out" 2>"$scratch/err"; then
    fail 'a missing picture is no error'
fi
[ ! -s "$scratch/out" ] || fail 'it prints an answer for a missing picture'
[ "$(wc -l <"$scratch/err")" = 1 ] || fail 'its message is not one line'
grep -q 'no-such.png' "$scratch/err" || fail "its message does not name the file: $(cat "$scratch/err")"
echo 'check_api_example: compiled, and its answer, stages and kept tokens are those of pdrop run'
