"""One learner among given partners, as a Gymnasium environment."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import maporl_env.bridges.single_agent as bridge
from maporl_env import debate_v0
from maporl_env.bridges.single_agent import SingleAgentDebate
from maporl_env.types import Question

from .counting import Counting

QUESTION = Question("q", "What is 2 + 2?", "4")
PINNED = {"question": QUESTION}


@pytest.mark.parametrize("options", [{}, {"protocol": "sequential", "learner": 1}])
def test_gymnasium_checks_it_without_a_warning(options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("maporl/Debate-v0", **options).unwrapped)
        gymnasium.make("maporl_env:maporl/Debate-v0", num_agents=2)


@pytest.mark.slow  # importing torch takes most of it
def test_sb3_wants_numbers_and_takes_nothing_else() -> None:
    """Its checker refuses text itself; the token view is the way into that library."""
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with pytest.raises(AssertionError, match="must be a numpy array"):
        checker.check_env(SingleAgentDebate())


@pytest.mark.parametrize("protocol", ["debate", "sequential", "joint"])
@pytest.mark.parametrize("learner", [0, 1, 2])
@pytest.mark.parametrize("mode", ["terminal", "score"])
def test_it_is_the_debate_seen_by_one_agent(protocol: str, learner: int, mode: str) -> None:
    options = {"protocol": protocol, "reward_mode": mode}
    script = ["\\boxed{4}", "\\boxed{3}", "\\boxed{4}"]
    single = SingleAgentDebate(Counting(), learner, **options)
    observation, _ = single.reset(options=PINNED)
    read, total, done = [observation], 0.0, False
    while not done:
        observation, reward, terminated, truncated, info = single.step(script[len(read) - 1])
        read.append(observation)
        total += reward
        done = terminated or truncated

    whole, partner = debate_v0.env(**options), Counting()
    whole.reset(options=PINNED)
    seen, paid, me = [], 0.0, f"agent_{learner}"
    for agent in whole.agent_iter():
        observation, reward, terminated, *_ = whole.last()
        if agent == me:
            paid += reward
            seen.append(observation)
        if terminated:
            whole.step(None)
        else:
            whole.step(script[len(seen) - 1] if agent == me else partner([observation])[0])
    assert read == seen
    assert total == pytest.approx(paid)
    assert info["turn_rewards_ready"]
    assert single.core.transcript == whole.unwrapped.transcript


def test_partners_that_share_a_model_are_asked_in_one_call() -> None:
    shared, other = Counting(), Counting()
    env = SingleAgentDebate([shared, other, shared], num_agents=4, num_turns=2)
    env.reset(seed=0)
    env.step("a")
    env.step("b")
    assert (shared.calls, other.calls) == ([2, 2], [1, 1])


def test_scripted_and_silent_partners() -> None:
    env = SingleAgentDebate([["one", "two"]], num_agents=2, num_turns=3)
    env.reset(seed=0)
    for _ in range(3):
        env.step("x")
    assert env.core.transcript.texts_of("agent_1") == ("one", "two", "two")
    env = SingleAgentDebate(num_agents=2, num_turns=1)
    env.reset(seed=0)
    env.step("x")
    assert env.core.transcript.texts_of("agent_1") == ("",)


def test_seeds_and_calls_out_of_order() -> None:
    env = SingleAgentDebate(num_turns=1)
    with pytest.raises(ResetNeeded):
        env.step("x")
    assert env.reset(seed=4)[0] == env.reset(seed=4)[0]
    with pytest.raises(ValueError, match="must be a string"):
        env.step(3)  # type: ignore[arg-type]
    env.step("x")
    with pytest.raises(ResetNeeded):
        env.step("x")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["one"], "1 texts for 2 prompts"),
        ("ab", "expected a list of texts, not str"),  # as long as the prompts are many
        (None, "expected a list of texts, not NoneType"),
        ({"a", "b"}, "expected a list of texts, not set"),
        (["a", 7], "expected texts, but one is int"),
    ],
)
def test_a_partner_gives_a_list_with_a_text_per_prompt(given: Any, complaint: str) -> None:
    env = SingleAgentDebate(lambda prompts: given, num_agents=3)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"^the partner of agent_1, agent_2: {complaint}$"):
        env.step("x")


def test_vectors_of_text() -> None:
    vector = gymnasium.make_vec(
        "maporl/Debate-v0",
        3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
        num_turns=2,
    )
    first, _ = vector.reset(seed=0)
    second, *_ = vector.step(["a", "b", "c"])
    for before, after, said in zip(first, second, "abc", strict=True):
        assert after.startswith(before + said)
    vector.close()


def test_vectors_over_shared_memory_are_refused() -> None:
    """They would show the first observation for ever."""
    with pytest.raises(ValueError, match="shared_memory=False"):
        gymnasium.make_vec("maporl/Debate-v0", 2, vectorization_mode="async")


def test_it_renders(capsys: pytest.CaptureFixture[str]) -> None:
    env = gymnasium.make("maporl/Debate-v0", render_mode="ansi", num_turns=1)
    env.reset(seed=0)
    env.step("I say")
    assert "  | I say" in str(env.render())
    human = SingleAgentDebate(render_mode="human", num_turns=1)
    human.reset(seed=0)
    human.step("I say")
    assert capsys.readouterr().out.count("  | I say") == 1


def test_the_bridge_needs_no_outside_library() -> None:
    assert not {"torch", "stable_baselines3"} & set(vars(bridge))
