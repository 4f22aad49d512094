#!/bin/sh
# Makes this machine ready for mof: host packages by apt, the Python environment .venv. What is there is left alone;
# when all is there, nothing is said and nothing is started.
#
#   setup.sh            all of it
#   setup.sh packages   the host packages alone
#   setup.sh missing    the names of the host packages that are missing
#   setup.sh command    the one line that root has to run for them (nothing when none is missing)
#   setup.sh sources RELEASE SUITE [ENDING]
#                       apt sources for SUITE, made from this machine's own entries for the Debian release RELEASE,
#                       ENDING appended to their URIs; one file a format in $MOF_SOURCES (a folder)
#
# Plain sh and the programs of a minimal Debian: this runs before Python is there. Exit status 3: this machine cannot.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=${here%/*}
list=$here/host/packages.txt
venv=$root/.venv
python=${PYTHON:-/usr/bin/python3}
PATH=$PATH:/usr/sbin:/sbin
newline='
'
work=

say() { printf 'mof: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 3
}
leave() { [ -z "$work" ] || rm -rf "$work"; }
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- what is missing ---------------------------------------------------------------------------------------------

there() { # LOOK-FOR...: all of it is there
    for what in "$@"; do
        case $what in
        /*)
            set +f
            # shellcheck disable=SC2086 # a pattern, to be expanded
            set -- $what
            set -f
            [ -e "$1" ] || return 1
            ;;
        *) command -v "$what" >/dev/null 2>&1 || return 1 ;;
        esac
    done
}

read_list() { # names -> $missing; lines "name why" -> $reasons; lines "name suites" -> $from
    missing='' reasons='' from=''
    set -f
    while IFS='|' read -r name look why suites; do
        name=${name%% *}
        case $name in '' | '#'*) continue ;; esac
        # shellcheck disable=SC2086 # words
        there $look && continue
        missing="$missing $name"
        reasons="$reasons$(printf '  %-23s%s' "$name" "${why%"${why##*[! ]}"}")$newline"
        for suite in $suites; do from="$from$name $suite$newline"; done
    done <"$list"
    set +f
    missing=${missing# }
}

# --- apt: which suites -------------------------------------------------------------------------------------------

aliases() { # RELEASE: a pattern for its names, since a machine's sources may say "stable"
    printf '%s|stable|oldstable|oldoldstable' "$1"
}

configured() { # RELEASE SUITE: this machine's own sources have it
    # shellcheck disable=SC2016 # apt's own syntax
    apt-get indextargets --no-release-info --format '$(RELEASE)' 2>/dev/null |
        grep -qxE "($(aliases "$1"))-$2"
}

sources() { # RELEASE SUITE ENDING FOLDER: this machine's entries for RELEASE, made into entries for SUITE
    eval "$(apt-config shell one Dir::Etc::SourceList/f parts Dir::Etc::SourceParts/d)"
    set -- "$1" "$2" "$3" "$4/mof-$2"
    # What stands in the options (Signed-By above all) is kept as it is.
    # shellcheck disable=SC2154 # assigned by apt-config
    for file in "$one" "$parts"/*.list; do [ ! -f "$file" ] || cat "$file"; done |
        awk -v names="^($(aliases "$1"))$" -v suite="$2" -v ending="$3" '
            /^[ \t]*deb[ \t]/ {
                sub(/#.*/, ""); sub(/^[ \t]*deb[ \t]+/, "")
                options = ""
                if ($0 ~ /^\[/) { end = index($0, "]"); options = substr($0, 1, end) " "; $0 = substr($0, end + 1) }
                uri = $1
                sub(/\/+$/, "", uri)
                if ($2 ~ names && uri !~ /^cdrom:/) print "deb " options uri ending " " suite " main"
            }' | sort -u >"$4.list"
    for file in "$parts"/*.sources; do [ ! -f "$file" ] || { cat "$file"; echo; }; done |
        awk -v names="^($(aliases "$1"))$" -v suite="$2" -v ending="$3" '
            function finish(    i, n, words, ours, uris) {
                n = split(value["suites"], words, /[ \t\n]+/)
                for (i = 1; i <= n; i++) if (words[i] ~ names) ours = 1
                if (ours && (" " value["types"] " ") ~ / deb / && tolower(value["enabled"]) !~ /no|false|0/) {
                    n = split(value["uris"], words, /[ \t\n]+/)
                    for (i = 1; i <= n; i++) if (words[i] != "" && words[i] !~ /^cdrom:/) {
                        sub(/\/+$/, "", words[i]); uris = uris " " words[i] ending
                    }
                    print "Types: deb\nURIs:" uris "\nSuites: " suite "\nComponents: main"
                    for (i = 1; i <= fields; i++)
                        if (order[i] !~ /^(types|uris|suites|components|enabled|x-repolib-name)$/)
                            print written[i] ":" value[order[i]]
                    print ""
                }
                split("", value); split("", order); split("", written); fields = 0; field = ""
            }
            /^#/ { next }
            /^[ \t]*$/ { finish(); next }
            /^[ \t]/ { value[field] = value[field] "\n" $0; next }
            { at = index($0, ":"); field = tolower(substr($0, 1, at - 1))
              order[++fields] = field; written[fields] = substr($0, 1, at - 1); value[field] = substr($0, at + 1) }
            END { finish() }' >"$4.sources"
    find "$4.list" "$4.sources" -size 0 -delete
}

extra_source() { # SUITE FOLDER: the source of this release's SUITE, as this machine's mirror would have it
    case $1 in
    security) sources "$code" "$code-$1" -security "$2" ;; # .../debian and .../debian-security
    *) sources "$code" "$code-$1" '' "$2" ;;
    esac
}

release() { # Debian's name of the release; empty elsewhere
    # shellcheck source=/dev/null
    (ID='' && . "${MOF_OS_RELEASE:-/etc/os-release}" && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}") || :
}

plan() { # -> $wanted: lines "name suite how", how being ? (if it is there) or = (only there), for this release
    code=$(release)
    wanted=
    while read -r name rule; do
        case $rule in
        "$code?"*) how='?' ;;
        "$code="*) how='=' ;;
        *) continue ;;
        esac
        wanted="$wanted$name ${rule#"$code"?} $how$newline"
    done <<-LINES
	$from
	LINES
}

# --- apt: installing ---------------------------------------------------------------------------------------------

watched() { # LOG WHAT WORDS COMMAND...: run it; on a terminal, count its lines that begin with one of the words
    log=$1 what=$2 words=$3
    shift 3
    echo 1 >"$log.status"
    # At an interrupt the command decides how it ends (dpkg finishes its package), and both sides wait for that.
    {
        trap : INT
        "$@" 2>&1 && echo 0 >"$log.status"
    } </dev/null | {
        trap '' INT
        count=0
        while IFS= read -r line; do
            printf '%s\n' "$line"
            case " $words " in
            *" ${line%%[ :]*} "*)
                count=$((count + 1))
                [ ! -t 2 ] || printf '\rmof: %s (%d)' "$what" "$count" >&2
                ;;
            esac
        done >"$log"
        [ ! -t 2 ] || [ "$count" = 0 ] || printf '\r\033[K' >&2
    }
    return "$(cat "$log.status")"
}

apt() { # with the sources and the package lists of this run, which leave nothing behind
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q -y -o "Dir::Etc::SourceParts=$work/parts" -o "Dir::State::Lists=$work/lists" \
        -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=" -o DPkg::Lock::Timeout=300 "$@"
}

install() {
    work=$(mktemp -d)
    chmod 755 "$work" # apt fetches as the user _apt
    mkdir "$work/parts" "$work/lists"
    eval "$(apt-config shell parts Dir::Etc::SourceParts/d)"
    # shellcheck disable=SC2154 # assigned by apt-config
    for file in "$parts"/*.list "$parts"/*.sources; do [ ! -f "$file" ] || ln -s "$file" "$work/parts/"; done

    plan
    extra=$(echo "$wanted" | awk '$2 != "" { print $2 }' | sort -u)
    for suite in $extra; do
        configured "$code" "$suite" || extra_source "$suite" "$work/parts"
    done

    say "installing $(echo "$missing" | wc -w) host packages:"
    printf '%s' "$reasons" >&2
    # A source that cannot be had does no harm by itself: what counts is whether each package is in one that can.
    watched "$work/update.log" "reading package lists" 'Get Hit' apt update || :
    # shellcheck disable=SC2086 # words
    offers=$(apt-cache -o "Dir::Etc::SourceParts=$work/parts" -o "Dir::State::Lists=$work/lists" \
        -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=" policy $missing |
        awk '/^[^ ]/ { name = substr($1, 1, length($1) - 1) } $2 ~ /:\// { print name, $3 }')
    absent=''
    for name in $missing; do
        echo "$offers" | grep -q "^$name " || absent="$absent $name"
    done
    if [ -n "$absent" ]; then
        grep -E '^(E|Err|W):?' "$work/update.log" | tail -n 20 >&2 || :
        fail "this machine's apt sources do not have:$absent"
    fi
    offered() { echo "$offers" | grep -q "^$1 $2/"; }
    split offered
    # shellcheck disable=SC2086 # words
    fetch $plain
    # shellcheck disable=SC2086 # words
    [ -z "$special" ] || fetch -t "$target" $special
    rm -rf "$work"
    work=
}

fetch() { # apt-get install's arguments; nothing when there are none
    [ $# != 0 ] || return 0
    watched "$work/install.log" "fetching, unpacking, setting up" 'Get Unpacking Setting' \
        apt install --no-install-recommends "$@" && return
    tail -n 20 "$work/install.log" >&2
    fail "apt-get failed"
}

# A package from backports needs its dependencies from there too: `-t`, in a call of its own so that nothing else comes
# from there (NAME/SUITE would choose the suite for the one package alone).
split() { # OFFERED (a command: PACKAGE SUITE): $missing -> $plain, and $special to come from the suite $target
    plain='' special='' target=''
    for name in $missing; do
        better=$(echo "$wanted" | awk -v name="$name" '$1 == name && $3 == "?" { print $2 }')
        if [ -n "$better" ] && "$1" "$name" "$code-$better"; then
            target=$code-$better special="$special $name"
        else
            plain="$plain $name"
        fi
    done
}

offers_suite() { # FOLDER: the one source in it can be had; asked without root, and without a trace
    mkdir -p "$1/state/lists/partial" "$1/cache/archives/partial"
    apt-get -qq update -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$1/parts" -o "Dir::State=$1/state" \
        -o "Dir::Cache=$1/cache" -o APT::Update::Error-Mode=any >/dev/null 2>&1 ||
        return 1
}

command_line() { # what root has to run, as one line, on this machine as it is
    plan
    brought=' '
    for suite in $(echo "$wanted" | awk '{ print $2 }' | sort -u); do
        configured "$code" "$suite" && continue
        # The line brings the source along, if this machine's mirror has it: only then does apt-get update not fail.
        [ -n "$work" ] || work=$(mktemp -d)
        mkdir -p "$work/$suite/parts"
        extra_source "$suite" "$work/$suite/parts"
        if ! offers_suite "$work/$suite"; then
            case $wanted in
            *" $suite ="*) say "this machine's mirror has no $code-$suite: add a source that has, first" ;;
            esac
            continue
        fi
        brought="$brought$code-$suite "
        for file in "$work/$suite/parts"/*; do
            text=$(awk '{ printf "%s\\n", $0 }' "$file")
            printf "printf '%s' > /etc/apt/sources.list.d/%s && " "$text" "${file##*/}"
        done
    done
    known() {
        case $brought in *" $2 "*) return 0 ;; esac
        configured "$code" "${2#"$code-"}"
    }
    split known
    printf 'apt-get update'
    [ -z "$plain" ] || printf ' && apt-get install -y --no-install-recommends%s' "$plain"
    [ -z "$special" ] || printf ' && apt-get install -y --no-install-recommends -t %s%s' "$target" "$special"
    echo
}

without_fetched() { # drop what the build can fetch for itself, when apt knows it
    for name in $(echo "$from" | awk '$2 == "fetched" { print $1 }'); do
        apt-cache show "$name" >/dev/null 2>&1 || continue
        missing=$(echo " $missing " | sed "s/ $name / /")
    done
    missing=${missing# }
    missing=${missing% }
}

packages() {
    read_list
    [ -n "$missing" ] || return 0
    [ "$(uname -m)" = x86_64 ] || fail "this machine is $(uname -m); the guests' kernel is built for and on x86_64"
    if ! command -v apt-get >/dev/null; then
        say "missing, and without apt-get yours to install by this system's own means:"
        printf '%s' "$reasons" >&2
        exit 3
    fi
    if [ "$(id -u)" != 0 ]; then
        all=$missing
        without_fetched
        [ -n "$missing" ] || return 0
        missing=$all
        say "host packages are missing:"
        printf '%s' "$reasons" >&2
        say "installing them takes root; have this run once, nothing else needs it:"
        command_line
        exit 3
    fi
    install
    read_list
    [ -z "$missing" ] || fail "installed, and still not found: $missing"
}

# --- Python ------------------------------------------------------------------------------------------------------

environment() {
    # The marker knows the content of pyproject.toml and the place: an environment that was moved is remade.
    marker=$venv/installed-$(sha256sum "$root/pyproject.toml" | cut -c 1-16)
    if [ -f "$marker" ] && read -r place <"$marker" && [ "$place" = "$venv" ] && [ -x "$venv/bin/python" ]; then
        return 0
    fi
    exec 9<"$0" # two at once take turns; the lock goes when its holder does
    flock -n 9 || { say "waiting for another set-up of this folder" && flock 9; }
    [ ! -f "$marker" ] || [ "$(cat "$marker")" != "$venv" ] || [ ! -x "$venv/bin/python" ] || return 0
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$python is older than 3.11; name a newer one: make PYTHON=/path/to/python3"
    [ -n "$work" ] || work=$(mktemp -d)
    say "making the Python environment .venv ($("$python" -V))"
    rm -f "$venv"/installed-*
    clear=--clear
    # What an interrupted or older set-up left is built upon, if it is of this Python and of this place.
    if [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix, sys.version)' 2>/dev/null)" = \
        "$("$python" -c 'import sys; print(sys.argv[1], sys.version)' "$venv")" ] &&
        grep -qsF "$venv" "$venv/bin/pip"; then clear=; fi
    if ! watched "$work/venv.log" venv '' env TMPDIR="$work" "$python" -m venv $clear "$venv"; then
        tail -n 20 "$work/venv.log" >&2
        fail "the Python environment could not be made"
    fi
    if ! watched "$work/pip.log" "fetching Python packages" Collecting \
        env TMPDIR="$work" "$venv/bin/python" -m pip install --disable-pip-version-check -e "${root}[dev]"; then
        grep -vE '^(Requirement|Collecting|  (Using|Downloading|Getting))' "$work/pip.log" | tail -n 20 >&2
        fail "pip failed"
    fi
    echo "$venv" >"$marker"
}

case ${1:-all} in
all)
    packages
    environment
    ;;
packages) packages ;;
missing)
    read_list
    [ -z "$missing" ] || echo "$missing" | tr ' ' '\n'
    ;;
command)
    read_list
    [ -z "$missing" ] || command_line
    ;;
sources) sources "$2" "$3" "${4:-}" "${MOF_SOURCES:?}" ;;
*)
    say "unknown: $1 (see the head of $0)"
    exit 2
    ;;
esac
