#!/bin/sh
# Installs a build directory into a scratch one and uses it as a stranger would: every file in its place, a program
# compiled through pkg-config against the shared and the static library, nothing exported but the public API.
#
#   sh scripts/check_install.sh BUILD
set -eu
build=$1
scratch=$(mktemp -d "${TMPDIR:-/tmp}/pyramiddrop-install.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
fail() {
    echo "check_install: $*" >&2
    exit 1
}

# The list of what `make install` wrote is what `make uninstall` reads.
manifest=$build/install_manifest.txt
[ ! -e "$manifest" ] || cp "$manifest" "$scratch/manifest"
trap 'if [ -e "$scratch/manifest" ]; then cp "$scratch/manifest" "$manifest"; else rm -f "$manifest"; fi; rm -rf "$scratch"' EXIT
DESTDIR=$scratch/root cmake --install "$build" >"$scratch/log" || { cat "$scratch/log"; fail 'cmake --install failed'; }
one() { find "$scratch/root" -path "*/$1" | grep . || fail "$1 is not installed"; }
header=$(one include/pyramiddrop.h)
library=$(one libpyramiddrop.so)
archive=$(one libpyramiddrop.a)
metadata=$(one pkgconfig/pyramiddrop.pc)
manual=$(one man/man1/pdrop.1)
completion=$(one bash-completion/completions/pdrop)
program=$(one bin/pdrop)

# The public header's functions, and what the library exports: the same names.
sed -n 's/^PD_API [^(]*[ *]\(pd_[a-z0-9_]*\)(.*/\1/p' "$header" | sort >"$scratch/declared"
nm -D --defined-only "$library" | awk '{ print $NF }' | sort >"$scratch/exported"
diff "$scratch/declared" "$scratch/exported" >"$scratch/names" ||
    { cat "$scratch/names"; fail 'exported names (>) are not the declared ones (<)'; }

cat >"$scratch/user.c" <<'C'
#include <pyramiddrop.h>
#include <stdio.h>
int main(void) {
    pd_policy policy;
    pd_model_params params;
    pd_model *model;
    pd_error err;
    if (pd_policy_parse(&policy, "pdrop:8=.5,16=.25", 32, &err) != PD_OK || policy.n_drops != 2) return 1;
    pd_model_params_default(&params, sizeof params);
    params.model_path = "nowhere.gguf";
    if (pd_model_load(&params, &model, &err) != PD_ERR_IO) return 2; // the whole engine is linked
    return puts(pd_version()) < 0;
}
C
export PKG_CONFIG_PATH="${metadata%/*}"
version=$(pkg-config --modversion pyramiddrop)
prefix=$(pkg-config --variable=prefix pyramiddrop)
flags() { pkg-config --define-variable=prefix="$scratch/root$prefix" "$@" pyramiddrop; }

# shellcheck disable=SC2046  # flags are split into words
${CC:-cc} -Wall -Werror "$scratch/user.c" $(flags --cflags --libs) -o "$scratch/shared" ||
    fail 'linking the shared library failed'
got=$(LD_LIBRARY_PATH=${library%/*} "$scratch/shared") || fail 'the program with the shared library failed'
[ "$got" = "$version" ] || fail "shared: the library says $got, pkg-config $version"
readelf -d "$scratch/shared" | grep -q 'NEEDED.*libpyramiddrop\.so\.0\]' || fail 'the soname is not libpyramiddrop.so.0'

# Where both libraries lie, the linker takes the shared one: name the other.
# shellcheck disable=SC2046
${CC:-cc} -Wall -Werror "$scratch/user.c" $(flags --cflags --static --libs | sed "s|-lpyramiddrop|$archive|") \
    -o "$scratch/static" || fail 'linking the static library failed'
got=$("$scratch/static") || fail 'the program with the static library failed'
[ "$got" = "$version" ] || fail "static: the library says $got, pkg-config $version"
if readelf -d "$scratch/static" | grep -q 'NEEDED.*pyramiddrop'; then fail 'the static program needs the shared library'; fi

"$program" version | grep -q -F "$version" || fail "pdrop version does not say $version"

# The manual page has the options that the program's own help has, and completion offers them.
for command in run info flops bench synth train eval report; do "$program" $command --help; done |
    sed -n 's/^  \(-., \)\{0,1\}\(--[a-z_-]*\).*/\2/p' | sort -u >"$scratch/helped"
sed -n '/^\.SH OPTIONS/,/^\.SH POLICIES/{s/\\-/-/g;/^\.\(B\|BI\|BR\) -/p;}' "$manual" | grep -o -e '--[a-z][a-z_-]*' |
    sort -u >"$scratch/in_manual"
diff "$scratch/helped" "$scratch/in_manual" >"$scratch/options" ||
    { cat "$scratch/options"; fail 'options of the manual page (>) are not those of the help (<)'; }
if command -v bash >/dev/null; then
    # shellcheck disable=SC2016  # for the inner shell
    bash -c 'compopt() { :; }; . "$1"; COMP_WORDS=("$2" run --list); COMP_CWORD=2; _pdrop; [ "${COMPREPLY[*]}" = --list-devices ]' \
        - "$completion" "$program" || fail 'bash completion does not offer --list-devices'
fi

echo "check_install: all files, $(wc -l <"$scratch/exported") exported names, shared and static library: as they should be"
