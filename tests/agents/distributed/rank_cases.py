"""Trainings of a few steps in one process and in several, and how to start several."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from miniatures import make_double
from safetensors.torch import load_file, save_file

from maporl_agents import distributed
from maporl_agents.algorithms import scheme_for
from maporl_agents.config import CONFIGS, OptimizerConfig, RunConfig, Sampling, TeamConfig
from maporl_agents.models.fsdp import shard_bases
from maporl_agents.models.loading import load_model, make_team
from maporl_agents.tiny import WEIGHTS
from maporl_agents.training import loop
from maporl_agents.training.make_game import make_game
from maporl_agents.types import Rollout
from maporl_agents.update.optimiser import PolicyLearner

REPOSITORY = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
STEPS = {"malt": 3}
"""Steps of the schemes that need more than two to reach their last stage."""
FEW = {"magrpo": 3, "malt": 6, "grpo": 3, "mlpo": 3}
"""Questions of the schemes that ask each several times."""
LORA = TeamConfig(tuning="lora")


def config_of(name: str) -> RunConfig:
    """Return the settings of a case: a scheme, then what is particular about it, with dashes.

    Messages are cut at a few tokens, and there are five debates: an odd number for two ranks.
    """
    scheme, *traits = name.split("-")
    config = CONFIGS[scheme](questions_per_step=FEW.get(scheme, 5))
    config = replace(config, seed=3, sampling=Sampling(max_new_tokens=16), steps=6)
    if scheme == "malt":
        config = replace(config, malt=replace(config.malt, branching=2))  # type: ignore[attr-defined]
    if scheme == "grpo":
        config = replace(config, grpo=replace(config.grpo, group_size=3))  # type: ignore[attr-defined]
    if "consensus" in traits:
        config = replace(config, game=replace(config.game, stop="consensus"))
    if "lora" in traits:
        config = replace(config, team=LORA)
    if "one" in traits:  # base for both agents; the built-in models are two
        config = replace(config, team=replace(LORA, model=(str(WEIGHTS / "agent_0"),)))
    if "many" in traits:  # minibatches of one debate, so that a rank may have nothing to read
        config = replace(config, ppo=replace(config.ppo, minibatches=5))  # type: ignore[attr-defined]
    if "passes" in traits:  # of few tokens, so that ranks have different numbers of them
        config = replace(config, ppo=replace(config.ppo, micro_tokens=100))  # type: ignore[attr-defined]
    if "nf4" in traits:
        config = replace(config, team=replace(LORA, quantization="nf4"))
    if "alone" in traits:
        config = replace(config, single_agent=True)  # type: ignore[call-arg]
    return config


def with_larger_eps(config: RunConfig) -> RunConfig:
    """Return settings whose AdamW does not scale rounding up to steps of the learning rate."""
    groups = {f.name: getattr(config, f.name) for f in fields(config)}
    changed = {
        name: replace(group, adam_eps=1e-5)
        for name, group in groups.items()
        if isinstance(group, OptimizerConfig)
    }
    return replace(config, **changed)


def train(name: str, folder: Path, *, exact: bool) -> None:
    """Train a case, and write what came of it; of several ranks each writes a file of its own.

    Args:
        name: of the case.
        folder: for the files.
        exact: compute in float64, where the order of additions is without effect.
    """
    config = config_of(name) if exact else with_larger_eps(config_of(name))
    game = make_game(config.game)
    played, count = config.training_game()
    scheme = scheme_for(config)
    team = make_team(
        config.team, num_agents=config.game.num_agents, num_turns=config.game.num_turns,
        seed=5, load=load_model, critics=scheme.critics,
    )  # fmt: skip
    if exact:
        make_double(team)
    if "sharded" in name.split("-"):
        shard_bases(team)
    learner = scheme.learner(config, team)
    learner.folder = folder / name
    began = weights_of(learner)
    debates = game.debates(count, num_turns=played.num_turns)
    said: list[Any] = []
    for step in range(STEPS.get(config_name(name), 2)):
        rollouts, _ = loop.take_step(config, learner, debates, game.training_questions(), step)
        said += map(ids_of, rollouts)
    weights = weights_of(learner)
    digest = hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights.values())).hexdigest()
    told = [said, digest, distance(began, weights)]
    (folder / f"{name}.{distributed.rank()}.json").write_text(json.dumps(told))
    if distributed.is_first():
        save_file(weights, folder / f"{name}.safetensors")


def weights_of(learner: PolicyLearner) -> dict[str, torch.Tensor]:
    """Return a copy of all trained weights, by name."""
    names = learner.parameter_names()
    return {name: weight.detach().clone().contiguous() for weight, name in names.items()}


def moved(folder: Path, name: str) -> float:
    """Return the largest change of a weight in a case."""
    return float(json.loads((folder / f"{name}.0.json").read_text())[2])


def config_name(name: str) -> str:
    """Return the scheme of a case."""
    return name.partition("-")[0]


def ids_of(rollout: Rollout) -> list[Sequence[int]]:
    """Return the token ids of every message of a debate."""
    return [completion.ids for completion in rollout.completions]


def outcome(folder: Path, name: str, count: int) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return the token ids and the weights after a case, which all ranks must agree on."""
    told = [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(count)]
    assert all(one == told[0] for one in told)
    return told[0][0], load_file(folder / f"{name}.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest difference between two sets of weights of the same names."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, count: int, port: int, *first: Path) -> dict[str, str]:
    """Return the variables that a launcher gives a process; it imports from `first` at first."""
    paths = [*first, REPOSITORY, REPOSITORY / "agents", REPOSITORY / "tests" / "agents", HERE]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def start(
    count: int,
    *words: object,
    per_rank: Sequence[Sequence[object]] = (),
    paths: Mapping[int, Path] = MappingProxyType({}),
) -> list[Any]:
    """Start `count` processes of a Python command.

    Args:
        count: of processes.
        words: of the command.
        per_rank: more words for each.
        paths: rank -> a folder from which it imports before all others.
    """
    port = free_port()
    more = per_rank or [()] * count
    return [
        subprocess.Popen(
            [sys.executable, *map(str, (*words, *more[rank]))],
            env=environment(rank, count, port, *filter(None, [paths.get(rank)])),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]


def ends(processes: Sequence[Any], seconds: float) -> list[tuple[int, str]]:
    """Return exit code and output of processes; none is left, however this ends."""
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(p.returncode, text) for p, text in zip(processes, outputs, strict=True)]


def main(folder: Path, names: Sequence[str], *, exact: bool) -> None:
    """Train all cases in the processes that a launcher started, or in this one."""
    torch.set_num_threads(1)
    with distributed.together():
        for name in names:
            train(name, folder, exact=exact)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[3:], exact=sys.argv[2] == "exact")
