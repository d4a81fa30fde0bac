#!/bin/sh
# Runs every fuzz target of a build directory for some time each, as many at once as there are cores. Seeds for
# fuzz_X lie in fuzz/seeds/X; what libFuzzer adds to them gathers in BUILD/corpus/X. Fails when one finds something.
#
#   sh scripts/fuzz.sh BUILD SECONDS JOBS
set -eu
build=$1 seconds=$2 jobs=$3
cd "$(dirname "$0")/.."

# One target; writes BUILD/corpus/X.failed when it finds something.
if [ "${4:-}" ]; then
    target=$4
    name=$(basename "$target")
    name=${name#fuzz_}
    corpus=$build/corpus/$name
    log=$corpus.log
    mkdir -p "$corpus" "$build/findings/$name"
    rm -f "$corpus.failed"
    seeds=
    if [ -d "fuzz/seeds/$name" ]; then seeds=fuzz/seeds/$name; fi
    # shellcheck disable=SC2086  # no seeds: no argument
    if OMP_WAIT_POLICY=passive "$target" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix="$build/findings/$name/" "$corpus" $seeds >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "fuzz $name: nothing found in $seconds s, $runs runs, $(find "$corpus" -type f | wc -l) inputs in the corpus"
    else
        touch "$corpus.failed"
        grep -v '^#' "$log" | tail -n 60
        echo "fuzz $name: FAILED; the input lies in $build/findings/$name/, the log is $log"
    fi
    exit 0
fi

targets=$(find "$build/fuzz" -maxdepth 1 -type f -name 'fuzz_*' -perm -u+x | sort)
[ -n "$targets" ] || { echo "fuzz: there are no targets in $build/fuzz" >&2; exit 1; }
echo "fuzz: $(echo "$targets" | wc -l) targets, $seconds s each, $jobs at once"
rm -f "$build"/corpus/*.failed
echo "$targets" | xargs -P "$jobs" -n 1 sh scripts/fuzz.sh "$build" "$seconds" "$jobs"
failed=$(find "$build/corpus" -name '*.failed' | wc -l)
[ "$failed" = 0 ] || { echo "fuzz: $failed targets found something" >&2; exit 1; }
