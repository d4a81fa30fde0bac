#!/bin/sh
# Runs every unit test of a build directory under valgrind: no invalid access, no leak.
#
#   sh scripts/valgrind.sh BUILD [NAME...]     names without "test_"; all when none is given
set -eu
build=$1
shift
cd "$(dirname "$0")/.."
if [ $# = 0 ]; then
    for program in "$build"/tests/test_*; do
        case ${program##*/} in *'*' | *.*) ;; *) [ -x "$program" ] && set -- "$@" "${program##*/test_}" ;; esac
    done
fi
[ $# != 0 ] || { echo "valgrind: there are no tests in $build/tests" >&2; exit 1; }

passed=0 failed=0
for name; do
    log=$build/tests/valgrind-$name.log
    # Waiting OpenMP threads must not spin: valgrind runs one thread at a time.
    if OMP_WAIT_POLICY=passive valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
        --show-leak-kinds=definite "$build/tests/test_$name" >"$log" 2>&1; then
        echo "valgrind: test_$name passed"
        passed=$((passed + 1))
    else
        tail -n 40 "$log"
        echo "valgrind: test_$name FAILED (the whole log: $log)"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
