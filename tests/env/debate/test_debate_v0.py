"""The PettingZoo environment: official tests, construction, seeds and reset options."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pettingzoo
import pytest
from pettingzoo.test import api_test, parallel_api_test
from pettingzoo.utils.conversions import aec_to_parallel

from maporl_env import debate_v0
from maporl_env.prompts import Template

from .. import official
from .debates import CONVERTED, FEW, GOLD, SEQUENTIAL, SETTINGS, UNAVOIDABLE

pytestmark = pytest.mark.usefixtures("warnings_are_errors")


@pytest.mark.parametrize("make", [debate_v0.env, debate_v0.raw_env, CONVERTED.to_aec])
@pytest.mark.parametrize("options", SETTINGS)
def test_api_warns_of_text_and_of_nothing_else(
    make: Callable[..., Any], options: dict[str, Any]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api_test(make(**options), num_cycles=30)
    assert {str(warning.message) for warning in caught} == UNAVOIDABLE


@pytest.mark.parametrize("options", SEQUENTIAL)
def test_api_of_sequential_protocols(options: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api_test(debate_v0.env(**options), num_cycles=30)
    assert {str(warning.message) for warning in caught} == UNAVOIDABLE


@pytest.mark.parametrize("make", [debate_v0.parallel_env, CONVERTED.to_parallel])
@pytest.mark.parametrize("options", SETTINGS)
def test_parallel_api(make: Callable[..., Any], options: dict[str, Any]) -> None:
    parallel_api_test(make(**options), num_cycles=30)


@pytest.mark.parametrize("options", SETTINGS)
def test_official_seed_and_state(options: dict[str, Any]) -> None:
    official.check_seeds_and_state(debate_v0.env, debate_v0.parallel_env, options)


def test_official_max_cycles_and_render(capsys: pytest.CaptureFixture[str]) -> None:
    official.check_max_cycles_and_render(debate_v0, capsys, printed="Question shopping/")


# -- construction -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["maporl/debate-v0", "maporl/debate_v0", "maporl/debate"])
def test_made_by_name(name: str) -> None:
    aec = pettingzoo.make("aec", name, num_agents=2, max_cycles=4)
    parallel = pettingzoo.make("parallel", name, num_agents=2, max_cycles=4)
    assert aec.possible_agents == parallel.possible_agents == ["agent_0", "agent_1"]
    assert aec.max_cycles == parallel.max_cycles == 4


def test_importing_twice_is_silent_and_needs_no_torch() -> None:
    code = (
        "import warnings; warnings.simplefilter('error'); import sys, importlib, maporl_env;"
        "importlib.reload(maporl_env); from maporl_env import debate_v0, batched;"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    path = ":".join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("make", [debate_v0.env, debate_v0.raw_env, debate_v0.parallel_env])
@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"num_agent": 2}, TypeError, "unknown option 'num_agent': did you mean 'num_agents'"),
        ({"xyzzy": 2}, TypeError, "choose one of task, num_agents"),
        ({"reward_mode": "dense"}, ValueError, "terminal, score"),
        ({"observation": "pixels"}, ValueError, "unknown observation 'pixels': choose one of text"),
        ({"render_mode": "video"}, ValueError, "human, ansi"),
        ({"stop": "never"}, ValueError, "fixed, consensus"),
        ({"horizon": "far"}, ValueError, "discounted, last, current"),
        ({"share": "all"}, ValueError, "team, own"),
        ({"majority": "most"}, ValueError, "others, all"),
        ({"on_long": "cut"}, ValueError, "truncate, error"),
        ({"gamma": 1.5}, ValueError, "gamma must lie in"),
        ({"gamma": float("nan")}, ValueError, "gamma must lie in"),
        ({"alpha": 1}, ValueError, "alpha must be a pair"),
        ({"num_agents": 0}, ValueError, "num_agents must be at least 1"),
        ({"num_turns": 2.5}, ValueError, "num_turns must be an integer"),
        ({"max_cycles": 0}, ValueError, "max_cycles must be an integer"),
        ({"reward_feedback": "yes"}, ValueError, "True or False"),
        ({"verifier": "key"}, ValueError, "a verifier must be a callable"),
        ({"split": "dev"}, ValueError, "no split 'dev'; choose one of"),
        ({"task": "shoping"}, ValueError, "did you mean 'shopping'"),
    ],
)
def test_wrong_options_are_refused_with_the_right_ones(
    make: Callable[..., Any], options: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        make(**options)


def test_a_sequential_protocol_has_no_parallel_view_and_says_so_on_the_instance_only() -> None:
    assert not debate_v0.raw_env(protocol="sequential").metadata["is_parallelizable"]
    assert debate_v0.raw_env().metadata["is_parallelizable"]
    with pytest.raises(ValueError, match="no parallel view: use debate_v0"):
        debate_v0.parallel_env(protocol="pipeline")
    with pytest.raises(AssertionError):
        aec_to_parallel(debate_v0.env(protocol="sequential"))


def test_max_cycles_is_num_turns_and_may_be_set_between_debates() -> None:
    env = debate_v0.parallel_env(num_turns=5, max_cycles=2)
    assert env.max_cycles == 2
    env.max_cycles = 1
    env.reset(seed=0)
    infos = env.step(dict.fromkeys(env.agents, "x"))[4]
    assert env.agents == []
    assert infos["agent_0"]["turn_rewards"].shape == (1,)


# -- seeds and options --------------------------------------------------------------------------


def record(make: Callable[..., Any], seed: int) -> list[Any]:
    """Everything an environment says in three chained episodes of sampled messages."""
    env = make()
    said: list[Any] = []
    for episode in range(3):
        said.append(env.reset(seed=seed if episode == 0 else None))
        for place, agent in enumerate(env.possible_agents):
            env.action_space(agent).seed(seed + place)
        while env.agents:
            said.append(env.step({agent: env.action_space(agent).sample() for agent in env.agents}))
    return said


def test_whole_episodes_repeat_under_a_seed_and_leave_global_randomness_alone() -> None:
    python, numpy = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (record(debate_v0.parallel_env, seed) for seed in (3, 3, 4))
    assert repr(first) == repr(second) != repr(other)
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy).all()  # noqa: NPY002


def test_chained_resets_draw_new_questions() -> None:
    env = debate_v0.parallel_env()
    env.reset(seed=0)
    drawn = set()
    for _ in range(10):
        env.reset()
        drawn.add(env.transcript.question.id)
    assert len(drawn) > 5


@pytest.mark.thorough
def test_episodes_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from maporl_env import debate_v0; env = debate_v0.parallel_env()\n"
        "for seed in (5, None, None):\n"
        "    print(ascii(env.reset(seed=seed)))\n"
        "    while env.agents:\n"
        "        print(ascii(env.step({a: '\\\\boxed{3}' for a in env.agents})))\n"
    )
    assert official.check_output_in_other_processes(code) != ""


@pytest.mark.parametrize(
    ("options", "prompt", "answer"),
    [
        ({"question": GOLD}, GOLD.prompt, GOLD.answer),
        ({"question": {"prompt": "1 + 1?", "answer": 2}}, "1 + 1?", "2"),
        ({"question": "1 + 1?", "answer": 2}, "1 + 1?", "2"),
        ({"question": GOLD, "answer": "7"}, GOLD.prompt, "7"),
        ({"question": {"prompt": "p", "answer": "neutral", "kind": "nli"}}, "p", "neutral"),
    ],
)
def test_a_pinned_question(options: dict[str, Any], prompt: str, answer: str) -> None:
    env = debate_v0.env()
    env.reset(options={**options, "unknown": object()})
    assert (env.unwrapped.transcript.question.prompt, env.unwrapped.transcript.question.answer) == (
        prompt,
        answer,
    )


def test_index_split_and_template_options() -> None:
    env = debate_v0.parallel_env()
    for split in ("train", "test"):
        env.reset(options={"split": split, "index": 5})
        assert env.transcript.question == env.game.task.split(split)[5]
    env.reset(options={"question": 3})
    assert env.transcript.question == env.game.questions[3]
    observations, _ = env.reset(options={"template": Template(cue="\nSpeak!\n")})
    assert observations["agent_0"].endswith("Speak!\n")
    assert not env.reset()[0]["agent_0"].endswith("Speak!\n")


@pytest.mark.parametrize(
    "options",
    [
        {"index": 10**9},
        {"index": -1},
        {"split": "dev"},
        {"question": {"prompt": "no answer"}},
        {"question": {"prompt": "p", "answer": "1", "hint": "x"}},
        {"question": "p", "answer": "not a number"},
        {"question": 1.5},
        {"answer": "4"},
        {"template": "speak"},
    ],
)
def test_a_wrong_reset_option_changes_nothing(options: dict[str, Any]) -> None:
    env = debate_v0.raw_env(FEW)
    env.reset(seed=1)
    env.step("first")
    before = pickle.dumps(env)
    with pytest.raises(ValueError):  # noqa: PT011 (the sentences are tested where they are made)
        env.reset(seed=9, options=options)
    assert pickle.dumps(env) == before
