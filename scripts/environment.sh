# Sourced by scripts/run, scripts/test and .ci/run: makes the virtual environment when it is missing or out of date.
#
#   ensure_environment         what a user of optexp needs
#   ensure_environment dev     that, and what the tests and checks need
#
# The environment is .venv in the repository, or $OPTEXP_VENV. Where packages come from is up to pip's own
# configuration. Whatever goes wrong is one line on stderr and exit status 1.

repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
venv=${OPTEXP_VENV:-$repo/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
python=$venv/bin/python
stamp=$venv/optexp-installed
log=$venv/install.log

fail() {
    printf 'optexp: %s\n' "$*" >&2
    exit 1
}

# Everything that decides what must be installed. An editable install remembers the repository's path, so it counts.
fingerprint() {
    { "$python" --version && printf '%s\n' "$repo" && cat "$repo/pyproject.toml" "$repo/constraints.txt"; } \
        2>/dev/null | cksum
}

up_to_date() {
    [[ -f $stamp && $(<"$stamp") == "$(fingerprint):"*"$1" ]]
}

# Prints the newest supported Python on PATH. A name may be there and still not run: a pyenv shim without a version.
usable_python() {
    local name version found=none
    for name in python3.13 python3.12 python3.11 python3.10 python3 python; do
        version=$("$name" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
        case $version in
            3.1[0-3].*) printf '%s\n' "$name" && return ;;
            *) [[ $found != none ]] || found="$name $version" ;;
        esac
    done
    fail "needs Python 3.10, 3.11, 3.12 or 3.13 on PATH; found $found"
}

# What went wrong, in one line, from all that pip or venv wrote (on stdin).
reason() {
    local text
    text=$(cat)
    if grep -qE 'connection broken by|connection error:|timed out' <<<"$text"; then
        printf 'no connection to the package index (network, proxy or pip configuration)'
    else
        grep -m 1 -oE '(ERROR|Error): .*' <<<"$text" || tail -n 1 <<<"$text"
    fi
}

# Makes an environment with pip unless there is one. Debian's python3 without the package python3-venv has no pip to
# put into it, but may have one of its own (python3-pip) that can.
create() {
    local base output
    "$python" -m pip --version >/dev/null 2>&1 && return
    base=$(usable_python) || exit
    if ! "$python" -c '' 2>/dev/null; then
        # --clear empties the folder: it had better be one of ours.
        [[ -e $venv/pyvenv.cfg || -z $(ls -A "$venv") ]] || fail "$venv has files and is not a virtual environment"
        output=$("$base" -m venv --clear --without-pip "$venv" 2>&1) ||
            fail "$base cannot make the environment $venv: $(reason <<<"$output")"
    fi
    "$python" -m ensurepip >/dev/null 2>&1 ||
        output=$("$base" -m pip --python "$python" install --disable-pip-version-check pip 2>&1) ||
        fail "$base has no pip for new environments (Debian, Ubuntu: install python3-venv): $(reason <<<"$output")"
}

install() {
    local what="installing into $venv (about 5 GB, a few minutes)"
    create
    [[ ! -f $stamp ]] || what="updating $venv"
    printf 'optexp: %s ... ' "$what" >&2
    rm -f "$stamp"
    # PIP_USER=0: the setting `user = true` of somebody's pip makes no sense in an environment and stops pip there.
    if ! PIP_USER=0 "$python" -m pip install --disable-pip-version-check --progress-bar off \
        -c "$repo/constraints.txt" -e "$repo${1:+[$1]}" >"$log" 2>&1; then
        printf 'failed\n' >&2
        fail "$(reason <"$log"); the full log is $log"
    fi
    printf 'done\n' >&2
    printf '%s:%s\n' "$(fingerprint)" "$1" >"$stamp"
}

ensure_environment() {
    local extra=${1:-}
    up_to_date "$extra" && return
    [[ -x $python ]] || usable_python >/dev/null # before anything is created
    mkdir -p "$venv" 2>/dev/null || fail "cannot create the folder $venv"
    (
        # Two starts at once must not install into each other. The lock is on the folder itself and goes with this
        # subshell; macOS has no flock and goes without.
        if command -v flock >/dev/null && ! flock -n 9; then
            printf 'optexp: waiting for another installation into %s ...\n' "$venv" >&2
            flock 9
        fi
        up_to_date "$extra" || install "$extra"
    ) 9<"$venv"
}
