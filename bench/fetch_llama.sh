#!/bin/sh
# Fetches Debian's own llama.cpp with every library it needs, the C library too, into a directory of its own.
# Nothing is installed. No root is needed.
#
#   sh bench/fetch_llama.sh DIRECTORY     makes DIRECTORY/llama-bench
#
# apt does the fetching, in a room of its own: it takes the mirror that this machine's apt already uses, checks the
# archive's signature, and every package's SHA-256 against the signed index.
set -eu
fail() {
    echo "fetch_llama: $*" >&2
    exit 1
}
[ $# = 1 ] || fail 'usage: sh bench/fetch_llama.sh DIRECTORY'
mkdir -p "$1"
directory=$(cd "$1" && pwd)
[ ! -x "$directory/llama-bench" ] || exit 0
for command in apt-get apt-cache dpkg dpkg-deb; do
    command -v $command >/dev/null || fail "$command is not there: install llama.cpp by your system's own means"
done

# The archive of Debian's main component that apt uses; its signed Release file says what is Debian.
mirror=$(LC_ALL=C apt-cache policy 2>/dev/null | awk '
    / Packages$/ { uri = $2 }
    $1 == "release" && /o=Debian,/ && /l=Debian,/ && /c=main/ { print uri; exit }')
[ -n "$mirror" ] || fail 'apt names no Debian archive here (apt-get update?): install llama.cpp by other means'

apt=$directory/apt
rm -rf "$apt" "$directory/root.new"
# in_room COMMAND...: apt with this directory's sources and lists, and as if nothing were installed, so that it
# fetches all that a package depends on.
in_room() {
    "$@" -q -o Dir::Etc::sourcelist="$apt/room.sources" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" \
        -o Dir::State::extended_states="$apt/extended_states" -o Dir::Cache="$apt/cache" -o Debug::NoLocking=true \
        -o APT::Sandbox::User= -o APT::Install-Recommends=false -o APT::Install-Suggests=false \
        -o APT::Get::AllowUnauthenticated=false -o Acquire::AllowInsecureRepositories=false \
        -o Acquire::Languages=none </dev/null >>"$apt/log" 2>&1
}
fetch_from() {
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    {
        echo 'Types: deb'
        echo "URIs: $mirror"
        echo "Suites: $1"
        echo 'Components: main'
        echo "Architectures: $(dpkg --print-architecture)"
        for keyring in /usr/share/keyrings/debian-archive-keyring.pgp /usr/share/keyrings/debian-archive-keyring.gpg; do
            [ -e $keyring ] && { echo "Signed-By: $keyring"; break; }
        done
    } >"$apt/room.sources"
    # update also succeeds where a download failed; install does not.
    in_room apt-get update && in_room apt-get install -y --download-only llama.cpp-tools
}

from=
for suite in sid forky; do
    echo "fetch_llama: looking into Debian $suite ..."
    if fetch_from $suite; then
        from=$suite
        break
    fi
    cp "$apt/log" "$directory/$suite.log"
done
if [ -z "$from" ]; then
    grep -h '^[WE]:' "$directory"/*.log | sort -ru | head -n 3 >&2
    rm -rf "$apt"
    fail "apt could not fetch llama.cpp-tools (logs: $directory)"
fi

mkdir "$directory/root.new"
for package in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$package" "$directory/root.new"; done
version=$(dpkg-deb -f "$apt"/cache/archives/llama.cpp-tools_*.deb Version)
ggml=$(dpkg-deb -f "$apt"/cache/archives/libggml0_*.deb Version 2>/dev/null || true)
cd "$directory/root.new"
libraries=$(dirname "$(find usr/lib -name 'libggml-base.so.*' | head -n 1)")
backends=$(dirname "$(find "$libraries/ggml" -name 'libggml-cpu*.so' | head -n 1)")
loader=$(find usr/lib usr/lib64 \( -name 'ld-linux*.so.*' -o -name 'ld64.so.*' \) 2>/dev/null | head -n 1)
if [ -z "$loader" ] || [ ! -x usr/bin/llama-bench ] || [ ! -d "$backends" ]; then
    fail "Debian's packages are not laid out as expected"
fi
# ggml looks for its backends in a system directory first, which may hold another version's. A name of the same
# length that is not there sends it to its second choice, the working directory.
for library in "$libraries"/libggml.so.*; do
    [ -L "$library" ] || LC_ALL=C sed -i 's#\(/usr/lib/[a-z0-9_-]*\)/ggml/b#\1/none/b#g' "$library"
done
cd "$directory"
rm -rf root
mv root.new root
cat >llama-bench.new <<END
#!/bin/sh
# Debian's llama-bench $version with its own libraries. Written by bench/fetch_llama.sh.
root=\$(cd "\$(dirname "\$0")/root" && pwd) && cd "\$root/$backends" || exit 1
exec "\$root/$loader" --library-path "\$root/$libraries:\$root/$libraries/llama" "\$root/usr/bin/llama-bench" "\$@"
END
chmod +x llama-bench.new
if ! ./llama-bench.new --help >"$directory/log" 2>&1; then
    tail -n 5 "$directory/log" >&2
    fail 'the fetched llama-bench does not start'
fi
echo "llama.cpp $version${ggml:+, ggml $ggml} (Debian $from)" >version
mv llama-bench.new llama-bench
rm -rf "$apt"
echo "fetch_llama: $(cat version)"
