#!/usr/bin/env bash
# Test the bridge to each outside library in a virtual environment of its own: their pins conflict.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# What to install beside the package, and which tests show that it works.
declare -A extras=(
    [plain]="train" [sb3]="train,sb3" [trl]="train,trl"
    [torchrl]="torchrl" [supersuit]="supersuit" [tianshou]="tianshou" [rllib]="rllib"
    [benchmarl]="benchmarl" [agilerl]="train,agilerl" [reasoning]="reasoning"
    [textarena]="train,textarena" [openenv]="openenv" [verifiers]="verifiers"
    [mutual]="train,mutual"
    [overcooked]="overcooked" [boxes]="reasoning" [loggers]="train"
    [modelco]="train"
)
# What else must be installed: a folder of this repository, or packages that no extra asks for.
declare -A others=([verifiers]="./environments/maporl_debate" [loggers]="trackio mlflow")
# What is installed last and without the packages that it asks for: its pins bring another torch.
declare -A bare=([modelco]="modelco==1.1.2")
declare -A tests=(
    [reasoning]="tests/env/tasks/test_reasoning_gym.py tests/env/tasks/test_reasoning_options.py"
    [boxes]="tests/env/games tests/env/revision"
    [plain]="tests/bridges"
    [mutual]="tests/agents/mutual"
    [loggers]="tests/agents/records/test_loggers.py"
    [agilerl]="tests/bridges/test_agilerl.py tests/env/test_registration.py"
    [sb3]="tests/bridges tests/env/observations/test_tokens_official.py tests/env/collaboration"
    [trl]="tests/bridges/test_trl.py tests/bridges/test_trl_trainer.py
        tests/agents/algorithms/test_magrpo_trl.py tests/agents/algorithms/test_malt_trl.py tests/agents/watch/test_pairs_trl.py"
)
# What must import after that: tests of a library that is not there are skipped, and so would pass.
declare -A modules=(
    [plain]="maporl_agents" [sb3]="stable_baselines3, sb3_contrib" [trl]="trl, datasets"
    [torchrl]="torchrl.envs" [supersuit]="supersuit, stable_baselines3" [tianshou]="tianshou.data"
    [rllib]="ray.rllib" [benchmarl]="benchmarl.environments"
    [agilerl]="agilerl.algorithms, maporl_agents"
    [reasoning]="reasoning_gym, reasoning_gym.factory" [textarena]="textarena"
    [openenv]="openenv.core" [verifiers]="verifiers.v1, maporl_debate"
    [mutual]="stable_baselines3, minigrid" [overcooked]="overcooked" [boxes]="reasoning_gym"
    [loggers]="trackio, mlflow" [modelco]="model_collaboration, maporl_agents"
)
order=(
    plain sb3 torchrl supersuit tianshou rllib benchmarl agilerl reasoning textarena openenv verifiers
    mutual overcooked boxes loggers modelco trl
)

usage() {
    cat <<'END'
Test the bridge to outside libraries, each in a fresh virtual environment that is deleted afterwards.

    scripts/test_bridges.sh LIBRARY [LIBRARY ...]      for example: torchrl rllib
    scripts/test_bridges.sh all                        one after the other
    scripts/test_bridges.sh                            sb3

END
    echo "Libraries: ${order[*]} (plain: none of them, every test of theirs must be skipped)."
    cat <<'END'
Each downloads a few hundred megabytes and trains for a minute or two on one core. What was learnt
is printed beside what chance earns. Exit status 0: all passed, 1: some failed, 2: unknown library.

    PYTHON=python3.12      the interpreter to use; by default python3
    PYTEST_ARGS="-x"       more arguments for pytest
END
}

place=$(mktemp -d) || exit 1
trap 'rm -rf "$place"' EXIT

# Versions: ours are pinned; an outside library keeps its own pins, and only torch is ours.
pins() { # NAME
    case $1 in
        plain | sb3 | trl | modelco) cat constraints.txt ;;
        agilerl) # asks for PettingZoo < 1.27
            grep -E '^(torch|pytest|pytest-timeout|hypothesis)[=]=' constraints.txt
            ;;
        *) grep -E '^(torch|pytest|pytest-timeout|hypothesis|pettingzoo)[=]=' constraints.txt ;;
    esac
}

run() { # NAME: environment, package, tests
    local name=$1 py=$place/$1/bin/python paths=${tests[$1]:-tests/bridges/test_$1.py}
    pins "$name" >"$place/pins.txt"
    "${PYTHON:-python3}" -m venv "$place/$name" &&
        "$py" -m pip install -q -c "$place/pins.txt" torch &&
        "$py" -m pip install -q -c "$place/pins.txt" pytest pytest-timeout hypothesis \
            ".[${extras[$name]}]" ${others[$name]:-} &&
        { [[ -z ${bare[$name]:-} ]] || "$py" -m pip install -q --no-deps ${bare[$name]}; } &&
        "$py" -c "import ${modules[$name]}" &&
        # shellcheck disable=SC2086  # lists of words
        OMP_NUM_THREADS=1 "$py" -m pytest -q --timeout 900 -rP --no-header ${PYTEST_ARGS:-} $paths
}

case ${1:-} in
    -h | --help) usage && exit ;;
    all) set -- "${order[@]}" ;;
    "") set -- sb3 ;;
esac
for name in "$@"; do
    if [[ -z ${extras[$name]:-} ]]; then
        echo "unknown library '$name': choose of ${order[*]}, or all" >&2
        exit 2
    fi
done
failed=()
for name in "$@"; do
    echo "== $name"
    run "$name" || failed+=("$name")
    rm -rf "${place:?}/$name"
done
[[ ${#failed[@]} -eq 0 ]] || { echo "failed: ${failed[*]}" >&2; exit 1; }
