"""The public names, their parameters and defaults. Arguments may be added to them, not changed.

Each contract is a lambda with the promised signature. The real function must accept every call
that the contract accepts, with the same meaning: same names, same order, same defaults.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

import pytest

from maporl_env.benchmark import CASES

Contract = Callable[..., Any]


def environment(
    task="shopping",
    num_agents=3,
    num_turns=3,
    protocol="debate",
    verifier=None,
    gamma=0.3,
    alpha=(0, 0),
    beta=(0, 0),
    reward_mode="terminal",
    reward_feedback=False,
    stop="fixed",
    observation="text",
    render_mode=None,
    max_cycles=None,
): ...


def collaboration(
    num_turns=2,
    threshold=2,
    r_col=0.2,
    r_ind=0.4,
    r_syn=1.0,
    timing="next",
    *,
    render_mode=None,
    max_cycles=None,
): ...


ENVIRONMENT: dict[str, Contract] = {
    "maporl_env.debate_v0.env": environment,
    "maporl_env.debate_v0.raw_env": environment,
    "maporl_env.debate_v0.parallel_env": environment,
    "maporl_env.collaboration_v0.env": collaboration,
    "maporl_env.collaboration_v0.raw_env": collaboration,
    "maporl_env.collaboration_v0.parallel_env": collaboration,
    "maporl_env.collaboration_v0.logit_equilibrium": (
        lambda num_turns=2, threshold=2, r_col=0.2, r_ind=0.4, r_syn=1.0, timing="next", *,
        tau=0.1: ...
    ),
    "maporl_env.types.Question": (
        lambda id, prompt, answer, kind, private=(), hidden="": ...
    ),
    "maporl_env.answers.extract_answer": lambda text, kind: ...,
    "maporl_env.voting.majority": lambda answers: ...,
    "maporl_env.voting.expected_accuracy": lambda answers, gold: ...,
    "maporl_env.rewards.influence_rewards": lambda scores, gamma: ...,
    "maporl_env.rewards.turn_rewards": (
        lambda scores, *, horizon="discounted", share="team", gamma: ...
    ),
    "maporl_env.rewards.shaping_bonus": (
        lambda correct, alpha=(0, 0), beta=(0, 0), majority="others": ...
    ),
    "maporl_env.intervals.clustered_mean": lambda values, clusters: ...,
    "maporl_env.benchmark.choose_cases": lambda patterns=(): ...,
    "maporl_env.benchmark.function_agents": lambda name, function: ...,
    "maporl_env.benchmark.scripted_agents": lambda name, accuracy=0.5: ...,
    "maporl_env.benchmark.score": lambda players, cases=CASES, *, out=None, overwrite=False: ...,
    "maporl_env.benchmark.read_report": lambda path: ...,
    "maporl_env.benchmark.table_row": lambda report: ...,
}  # fmt: skip

AGENTS: dict[str, Contract] = {
    "maporl_agents.train": (
        lambda *, task=None, model=None, verifier=None, scheme="", **settings: ...
    ),
    "maporl_agents.evaluate": (
        lambda source=None, *, task=None, model=None, verifier=None, **settings: ...
    ),
    "maporl_agents.load_team": lambda folder: ...,
    "maporl_agents.advantages.token_rewards": (
        lambda logprobs, ref_logprobs, mask, score, *, kl_coef: ...
    ),
    "maporl_agents.advantages.gae": (
        lambda rewards, values, mask, *, gamma, lam, bootstrap=0.0: ...
    ),
    "maporl_agents.advantages.group_advantages": (
        lambda rewards, group_ids, *, baseline="mean", scale="none": ...
    ),
    "maporl_agents.advantages.whiten": lambda x, mask, *, shift_mean=True: ...,
    "maporl_agents.losses.kl_estimate": lambda logprobs, ref_logprobs, estimator="k1": ...,
    "maporl_agents.losses.policy_loss": (
        lambda logprobs, old_logprobs, advantages, mask, *, clip_coef, reduction="token",
        max_tokens=None, num_tokens=None: ...
    ),
    "maporl_agents.losses.value_loss": (
        lambda values, old_values, returns, mask, *, clip_coef=None: ...
    ),
    "maporl_agents.losses.preference_loss": (
        lambda chosen, rejected, ref_chosen, ref_rejected, *, beta, labels="hard": ...
    ),
    "maporl_agents.bridges.speaker.load_speaker": (
        lambda name, *, seat=0, temperature=None, max_new_tokens=0, seed=0: ...
    ),
    "maporl_agents.algorithms.magrpo.joint_returns": lambda tree, gamma: ...,
    "maporl_agents.algorithms.malt.tree_values": lambda leaves, threshold=0.5: ...,
}  # fmt: skip


def resolve(name: str) -> Any:
    """The object behind a dotted name."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def breaches(promised: Contract, actual: Contract) -> list[str]:
    """Each way in which a call that `promised` allows would not mean the same to `actual`."""
    ours, theirs = inspect.signature(promised).parameters, inspect.signature(actual).parameters
    found = []
    for place, (name, parameter) in enumerate(ours.items()):
        real = theirs.get(name)
        if real is None:
            found.append(f"{name} is missing")
        elif real.kind not in (parameter.kind, Parameter.POSITIONAL_OR_KEYWORD):
            found.append(f"{name} cannot be passed as {parameter.kind.description}")
        elif parameter.kind is Parameter.POSITIONAL_OR_KEYWORD and list(theirs)[place] != name:
            found.append(f"{name} is not at place {place}")
        elif parameter.default not in (Parameter.empty, real.default):
            found.append(f"{name} defaults to {real.default!r}, not {parameter.default!r}")
    variadic = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return found + [
        f"{name} was added without a default"
        for name, real in theirs.items()
        if name not in ours and real.default is Parameter.empty and real.kind not in variadic
    ]


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_environment_keeps_its_promise(name: str) -> None:
    assert breaches(ENVIRONMENT[name], resolve(name)) == []


@pytest.mark.parametrize("name", AGENTS)
def test_agents_keep_their_promise(name: str) -> None:
    pytest.importorskip("torch")
    assert breaches(AGENTS[name], resolve(name)) == []


@pytest.mark.parametrize("name", ["maporl_env.types.Message", "maporl_env.types.Transcript"])
def test_type_exists(name: str) -> None:
    assert inspect.isclass(resolve(name))


@pytest.mark.parametrize("api", ["aec", "parallel"])
def test_pettingzoo_makes_the_debate_by_its_id(api: str) -> None:
    pettingzoo = pytest.importorskip("pettingzoo")
    importlib.import_module("maporl_env")
    env = pettingzoo.make(api, "maporl/debate-v0", num_agents=2)
    assert len(env.possible_agents) == 2


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (lambda x, *, k=1, extra=0: ..., []),
        (lambda x, k=1, **options: ..., []),
        (lambda y, *, k=1: ..., ["x is missing", "y was added without a default"]),
        (lambda *, x, k=1: ..., ["x cannot be passed as positional or keyword"]),
        (lambda new, x, *, k=1: ..., ["x is not at place 0", "new was added without a default"]),
        (lambda x, *, k=2: ..., ["k defaults to 2, not 1"]),
    ],
)
def test_a_breach_is_seen(actual: Contract, expected: list[str]) -> None:
    assert breaches(lambda x, *, k=1: ..., actual) == expected
