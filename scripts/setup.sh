#!/usr/bin/env bash
# Make .venv fit to use, whatever state it is in. Run through `make setup`.
#   --check      only say, by exit status, whether it is fit; change nothing
#   PYTHON=...   the interpreter to use instead of the first suitable one found
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." && cd "$(pwd -P)" || exit 1

# Another environment, or a user's pip settings, must not leak into this one.
unset PYTHONHOME PYTHONPATH PIP_PREFIX PIP_REQUIRE_VIRTUALENV PIP_TARGET
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

py=.venv/bin/python
log=.venv/setup.log

die() {
    echo "setup: $*" >&2
    exit 1
}

version() { # "3.12", or nothing where "$1" is no Python with which the pinned packages install
    "$1" -I -c 'import sys; v = sys.version_info[:2]
print("%d.%d" % v) if (3, 10) <= v <= (3, 14) else sys.exit(1)' 2>/dev/null
}

is_own() { # whether "$1" belongs to the .venv that may have to be replaced
    "$1" -I -c 'import os, sys; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath(".venv"))'
}

venv_fits() { # it runs, was made for this folder and, where PYTHON is given, for that version
    local have
    have=$(version $py) && grep -qF "$PWD/.venv" .venv/bin/activate 2>/dev/null || return
    [[ -z ${PYTHON:-} || $have == "$(version "$PYTHON")" ]]
}

complete() { # the packages are there, ours from this folder
    $py -I - "$PWD" <<'EOF' 2>/dev/null
import sys
from importlib.util import find_spec

ours = all(find_spec(name).origin.startswith(sys.argv[1]) for name in ("maporl_env", "maporl_agents"))
sys.exit(not (ours and all(map(find_spec, ("torch", "transformers", "peft", "pytest", "xdist")))))
EOF
}

interpreters() { # every candidate, best first; a name may stand for several along the PATH
    local name names=(python3 python3.14 python3.13 python3.12 python3.11 python3.10 python)
    [[ -z ${PYTHON:-} ]] || names=("$PYTHON")
    for name in "${names[@]}"; do type -aP "$name"; done
}

find_python() { # sets $python to the first interpreter that can make an environment
    local candidate lacking=''
    while IFS= read -r candidate; do
        if ! version "$candidate" >/dev/null || is_own "$candidate"; then continue; fi
        python=$candidate
        "$python" -I -c 'import ensurepip, venv' 2>/dev/null && return
        lacking=${lacking:-$candidate}
    done < <(interpreters)
    [[ -z $lacking ]] ||
        die "$lacking lacks the venv module: install python$(version "$lacking")-venv (Debian, Ubuntu) or another Python."
    [[ -z ${PYTHON:-} ]] || die "PYTHON=$PYTHON is no Python 3.10 to 3.14."
    die 'no Python 3.10 to 3.14 found: install one, or name it: make setup PYTHON=/path/to/python3.'
}

reason() { # one line from pip's log
    if grep -qi 'no space left' $log; then
        echo 'the disk is full.'
    elif grep -qiE 'connection broken|connectionerror|timed out|proxyerror' $log; then
        echo 'the package index cannot be reached: check the network or proxy, then run make again.'
    else
        echo "pip failed: $(grep -m1 '^ERROR' $log || tail -n 1 $log) (all of it in $log)"
    fi
}

install() { # the build backend first, so that it too is the pinned one
    local pip=("$py" -u -m pip install --retries 2 --constraint constraints.txt)
    "${pip[@]}" hatchling && "${pip[@]}" --no-build-isolation --editable '.[train,dev]'
}

if [[ ${1:-} == --check ]]; then
    [[ -e .venv/.ready ]] && venv_fits && complete
    exit
fi

if ! venv_fits || ! $py -m pip --version >/dev/null 2>&1; then
    find_python
    echo "Making .venv with Python $(version "$python")."
    rm -rf .venv
    message=$("$python" -I -m venv .venv 2>&1) || die "cannot make .venv: $(tail -n 1 <<<"$message")"
fi
echo 'Installing into .venv; the first time takes a few minutes.'
rm -f .venv/.ready
install 2>$log | grep --line-buffered -oE '^(Collecting [^ ]+|Installing collected packages)'
[[ ${PIPESTATUS[0]} == 0 ]] || die "$(reason)"
complete || die "pip finished, but packages are missing: remove .venv and run make again (log: $log)."
touch .venv/.ready
echo 'The environment in .venv is ready.'
