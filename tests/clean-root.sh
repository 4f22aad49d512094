#!/bin/sh
# Proves that a fresh Debian is enough: makes a minimal root of Debian 12 or 13 (apt, make, CA certificates, one line of
# apt sources), puts a clean copy of the committed tree into it, and runs a target of the Makefile there.
#
#   clean-root.sh [options] 12|13 [TARGET]      TARGET: setup (default), demo, test, ...
#     --user        as an ordinary user, for whom root runs the one line that mof tells, and nothing else
#     --worktree    the files as they lie, not as committed
#     --cache DIR   share this folder as the cache (MOF_CACHE) instead of building everything
#     --where DIR   make the root under DIR (default: TMPDIR or /tmp; 2 GB for setup, 12 GB for demo)
#     --keep        leave the root behind
#
# Needs root, mmdebstrap and util-linux. Mounts and processes live in namespaces of their own: however this ends, the kernel
# takes both away. The host's apt, pip and TLS configuration is copied, since without it some hosts reach nothing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
me=$here/tests/clean-root.sh

say() { printf '== %s\n' "$*"; }
fail() {
    printf '== NOT proven: %s\n' "$*" >&2
    exit 1
}

# --- inside the namespaces ---------------------------------------------------------------------------------------

within() { # PROGRAM...: in the root, as $person, with the environment that a login gives and what leads to the network
    # shellcheck disable=SC2046 # words
    (cd / && exec chroot --userspec="$person:$person" "$base" /usr/bin/env -i $(passed) \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb \
        HOME="$home" ${MOF_CACHE_INSIDE:+MOF_CACHE="$MOF_CACHE_INSIDE"} "$@")
}

as_root() {
    person=root home=/root
    within "$@"
}

as_person() {
    person=$who home=$dwelling
    within "$@"
}

passed() { # the variables that concern pip, proxies and certificates (values without blanks)
    env | grep -E '^(PIP_[A-Z_]+|[a-zA-Z]+_[pP][rR][oO][xX][yY]|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE)=[^ ]*$' || :
}

seconds() { date +%s.%N; }

prove() { # in the new namespaces
    base=$1 target=$2 who=$3 dwelling=$4 tree=$4/mof
    mount -t proc proc "$base/proc"
    mount --rbind /sys "$base/sys"
    mount --rbind /dev "$base/dev"
    if [ -n "$CACHE" ]; then
        mkdir -p "$base/cache"
        mount --bind "$CACHE" "$base/cache"
        MOF_CACHE_INSIDE=/cache
    fi

    if [ "$who" != root ]; then
        say "make setup, as a user: is to be told one line, and to fail"
        as_person make -s -C "$tree" setup >"$base/tmp/told" && fail "set-up did not need root?"
        [ "$(wc -l <"$base/tmp/told")" = 1 ] || fail "told is not one line: $(cat "$base/tmp/told")"
        say "root runs: $(cat "$base/tmp/told")"
        as_root sh -c "$(cat "$base/tmp/told")" >"$base/tmp/apt.log" 2>&1 || {
            tail -n 20 "$base/tmp/apt.log"
            fail "the line that was told does not work"
        }
    fi
    before=$(cd "$base/etc/apt" && find . -type f -exec sha256sum {} + | sort)
    say "make setup"
    start=$(seconds)
    as_person make -s -C "$tree" setup || fail "make setup: status $?"
    first=$(echo "$(seconds) $start" | awk '{ printf "%.0f", $1 - $2 }')
    [ "$before" = "$(cd "$base/etc/apt" && find . -type f -exec sha256sum {} + | sort)" ] ||
        fail "make setup changed /etc/apt"

    say "make setup, again"
    start=$(seconds)
    again=$(as_person make -s -C "$tree" setup 2>&1) || fail "the second make setup: status $?"
    second=$(echo "$(seconds) $start" | awk '{ printf "%.2f", $1 - $2 }')
    [ -z "$again" ] || fail "the second make setup was not silent: $again"
    [ "${second%.*}" = 0 ] || fail "the second make setup took $second s"

    as_person "$tree/.venv/bin/python" -c 'import fabric, jinja2, numpy, pyarrow, pydantic, pyroute2, qemu.qmp, typer' ||
        fail "the Python environment is not whole"
    qemu=$(as_person qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
    # shellcheck disable=SC2016 # dpkg-query's own syntax
    kernel=$(as_person dpkg-query -W -f '${Version}' linux-source-6.12)

    result="set-up in $first s"
    if [ "$target" != setup ]; then
        say "make $target"
        start=$(seconds)
        as_person make -s -C "$tree" "$target" || fail "make $target: status $?"
        result="$result; make $target in $(echo "$(seconds) $start" | awk '{ printf "%.0f", $1 - $2 }') s"
    fi
    say "proven on a minimal Debian $(cat "$base/etc/debian_version"), as $who: $result"
    say "a second set-up took $second s and did nothing; QEMU $qemu, kernel source $kernel; /etc/apt as before"
}

if [ "${1:-}" = --inside ]; then
    shift
    prove "$@"
    exit
fi

# --- outside -----------------------------------------------------------------------------------------------------

where=${TMPDIR:-/tmp} keep='' worktree='' who=root dwelling=/root CACHE=''
while [ $# != 0 ]; do
    case $1 in
    --user) who=person dwelling=/home/person ;;
    --worktree) worktree=1 ;;
    --keep) keep=1 ;;
    --cache) CACHE=$(mkdir -p "$2" && cd "$2" && pwd) && shift ;;
    --where) where=$(mkdir -p "$2" && cd "$2" && pwd) && shift ;;
    12) suite=bookworm ;;
    13) suite=trixie ;;
    -*)
        sed -n '2,/^set /{ /^#/s/^# \{0,1\}//p; }' "$me"
        exit 2
        ;;
    *) target=$1 ;;
    esac
    shift
done
export CACHE
[ -n "${suite:-}" ] || fail "which Debian: 12 or 13?"
[ "$(id -u)" = 0 ] || fail "this needs root (mmdebstrap, chroot, mounts)"

base=$(mktemp -d "$where/mof-clean-root.XXXXXX")
clean() {
    if [ -n "$keep" ]; then say "left behind: $base"; else rm -rf --one-file-system "$base"; fi
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$base/mirror" "$base/root"

say "making a minimal root of $suite"
apt-config dump | grep -E '^Acquire::(https?::|Retries|ForceIPv|Check-Valid-Until|Check-Date)' >"$base/apt.conf" || :
# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
# This host's mirror, for that release; a host that is no Debian leaves the choice to mmdebstrap.
MOF_SOURCES=$base/mirror sh "$here/provision/setup.sh" sources "$release" "$suite"
mirror=$(find "$base/mirror" -type f | head -n 1)
mmdebstrap --quiet --variant=apt --include=make,ca-certificates --aptopt="$base/apt.conf" "$suite" "$base/root" \
    ${mirror:+"$mirror"}
rm -rf "$base/mirror"

copied() { # FILE...: the same file in the root
    for file in "$@"; do
        [ -f "$file" ] || continue
        mkdir -p "$base/root${file%/*}"
        cp -L "$file" "$base/root$file"
    done
}
copied /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/xdg/pip/pip.conf /etc/ssl/certs/ca-certificates.crt \
    "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}"
if [ "$who" != root ]; then # by hand: a minimal Debian 13 has no useradd
    echo "$who:x:1000:1000::$dwelling:/bin/sh" >>"$base/root/etc/passwd"
    echo "$who:x:1000:" >>"$base/root/etc/group"
    mkdir "$base/root$dwelling"
fi
if [ -f "$HOME/.config/pip/pip.conf" ]; then
    mkdir -p "$base/root$dwelling/.config/pip"
    cp "$HOME/.config/pip/pip.conf" "$base/root$dwelling/.config/pip/"
fi

tree=$base/root$dwelling/mof
mkdir "$tree"
if [ -n "$worktree" ]; then
    what="the files as they lie"
    (cd "$here" && git ls-files -co --exclude-standard -z | tar --null -T - -cf -) | tar -C "$tree" --no-same-owner -xf -
else
    what="commit $(git -C "$here" rev-parse --short HEAD)"
    git -C "$here" archive HEAD | tar -C "$tree" --no-same-owner -xf -
fi
chroot "$base/root" chown -R "$who:" "$dwelling"
say "in it: $(chroot "$base/root" dpkg-query -W | wc -l) packages, and mof: $what"

unshare --mount --pid --fork --kill-child sh "$me" --inside "$base/root" "${target:-setup}" "$who" "$dwelling"
