# What the tests of pdrop train share. To be read by sh after $pdrop, $golden and $scratch are set.
# shellcheck shell=sh disable=SC2034,SC2154

# Lists of words hold paths below it: through a link they are without spaces.
ln -s "$golden" "$scratch/golden"
golden=$scratch/golden
model=$golden/parity/mha.gguf mmproj=$golden/parity/mha-mmproj.gguf
failures=0 checks=0

fail() {
    echo "FAILED: $*" >&2
    [ ! -s err ] || tail -n 12 err | sed 's/^/    stderr: /' >&2
    failures=$((failures + 1))
}

# records N [BAD]: N records in LLaVA's JSON on standard output: pictures of six shapes, one or two answers, and a
# fifth of them without a picture. Record BAD names a picture that is not there.
records() {
    awk -v n="$1" -v bad="${2:--1}" 'BEGIN {
        split("wide tall square odd tile large", picture, " ")
        print "["
        for (i = 0; i < n; i++) {
            name = i == bad ? "nowhere.png" : picture[i % 6 + 1] ".png"
            image = i % 5 == 4 ? "" : sprintf("\"image\": \"%s\", ", name)
            sign = i % 5 == 4 ? "" : "<image>\\n"
            more = i % 3 ? "" : ", {\"from\": \"human\", \"value\": \"and\"}, {\"from\": \"gpt\", \"value\": \"no more\"}"
            printf "{\"id\": \"r%d\", %s\"conversations\": [{\"from\": \"human\", \"value\": \"%swhat is %d\"}, ", i, image, sign, i * 7
            printf "{\"from\": \"gpt\", \"value\": \"it is %d\"}%s]}%s\n", i * i, more, i < n - 1 ? "," : ""
        }
        print "]"
    }'
}

# What of the log's lines does not depend on the clock.
lasting() { sed 's/,"step_ms".*//' "$1"; }
last_step() { tail -n 1 "$1" 2>/dev/null | sed -n 's/^{"step":\([0-9]*\),.*}$/\1/p'; }
