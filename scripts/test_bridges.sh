#!/usr/bin/env bash
# Test the bridge to each outside library in a virtual environment of its own: their pins conflict.
#   scripts/test_bridges.sh [sb3] [plain]     sb3 without arguments; plain: none of the libraries
#   PYTHON=...                                the interpreter to use
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# What to install beside the package, and which tests show that it works.
declare -A extras=([sb3]="train,sb3" [plain]="train")
declare -A tests=(
    [sb3]="tests/bridges tests/env/test_tokens.py tests/env/test_collaboration_v0.py"
    [plain]="tests/bridges"
)

place=$(mktemp -d) || exit 1
trap 'rm -rf "$place"' EXIT

run() { # one library: environment, package, tests
    local name=$1 py=$place/$1/bin/python
    "${PYTHON:-python3}" -m venv "$place/$name" &&
        "$py" -m pip install -q -c constraints.txt torch &&
        "$py" -m pip install -q -c constraints.txt pytest pytest-timeout hypothesis tokenizers \
            ".[${extras[$name]}]" &&
        # shellcheck disable=SC2086  # a list of paths
        OMP_NUM_THREADS=1 "$py" -m pytest -q --timeout 900 ${tests[$name]}
}

failed=()
for name in "${@:-sb3}"; do
    if [[ -z ${extras[$name]:-} ]]; then
        echo "unknown library '$name': choose one of ${!extras[*]}" >&2
        exit 2
    fi
    echo "== $name"
    run "$name" || failed+=("$name")
    rm -rf "${place:?}/$name"
done
[[ ${#failed[@]} -eq 0 ]] || { echo "failed: ${failed[*]}" >&2; exit 1; }
