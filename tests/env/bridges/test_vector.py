"""The Gymnasium vector view: what it costs, and that it changes no debate."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from maporl_env import debate_v0
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.bridges.single_agent import SingleAgentDebate
from maporl_env.bridges.vector import VectorDebate
from maporl_env.types import Question

from .counting import Counting

QUESTIONS = [Question(f"q/{n}", f"What is {n} + {n}?", str(2 * n)) for n in range(8)]
SAYS = ["\\boxed{4}", "\\boxed{5}", "nothing", "", "```\\boxed{4}", "漢字 \\boxed{2}"]


def make_vector(num_envs: int = 4, partners: Any = None, **options: Any) -> VectorDebate:
    return VectorDebate(num_envs, partners, **{"task": QUESTIONS, **options})


def play(envs: VectorDebate, policy: Any, **reset: Any) -> np.ndarray:
    """Play one debate per lane; return what each was paid in all."""
    observations, _ = envs.reset(**reset)
    paid, done = np.zeros(envs.num_envs), np.zeros(envs.num_envs, bool)
    while not done.all():
        observations, rewards, terminated, truncated, _ = envs.step(policy(observations))
        paid += rewards * ~done
        done |= terminated | truncated
    return paid


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.SAME_STEP])
def test_debates_of_t_turns_cost_t_calls_of_everybody(mode: AutoresetMode) -> None:
    policy, partner, verifier = Counting(), Counting(), Counting()
    envs = make_vector(5, partner, verifier=verifier, autoreset_mode=mode)
    play(envs, policy, seed=0)
    assert policy.calls == [5, 5, 5]
    assert partner.calls == [10, 10, 10]
    assert verifier.calls == [15, 15, 15]


def test_four_debates_of_three_learners_take_three_steps() -> None:
    policy, verifier = Counting(), Counting()
    envs = make_vector(12, learner="all", verifier=verifier)
    play(envs, policy, seed=0)
    assert policy.calls == [12, 12, 12]
    assert verifier.calls == [12, 12, 12]


def script(step: int, lanes: int) -> list[str]:
    return [SAYS[(3 * step + 5 * lane + step * lane) % len(SAYS)] for lane in range(lanes)]


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize(
    "options",
    [
        {"verifier": Counting()},
        {"stop": "consensus", "learner": 1},
        {"reward_mode": "score", "num_agents": 2},
        {"num_agents": 1, "protocol": "self_correction"},
        {"protocol": "joint", "reward_feedback": True},
    ],
)
def test_it_tells_what_separate_environments_tell(
    mode: AutoresetMode, options: dict[str, Any]
) -> None:
    options = {"task": QUESTIONS, **options}
    envs = VectorDebate(4, Counting(), autoreset_mode=mode, **options)
    twins = SyncVectorEnv(
        [lambda: SingleAgentDebate(Counting(), **options) for _ in range(4)],
        autoreset_mode=mode,
    )
    assert envs.observation_space == twins.observation_space
    assert envs.single_action_space == twins.single_action_space
    told, expected = envs.reset(seed=3), twins.reset(seed=3)
    assert data_equivalence(told, expected)
    for step in range(8):
        actions = script(step, 4)
        told, expected = envs.step(actions), twins.step(actions)
        assert data_equivalence(told, expected)
        done = told[2] | told[3]
        if mode == AutoresetMode.DISABLED and done.any():
            reset = [env.reset(options={"reset_mask": done}) for env in (envs, twins)]
            assert data_equivalence(*reset)


def test_token_rows_instead_of_text() -> None:
    options = {"task": QUESTIONS, "observation": "tokens", "message_tokens": 8, "num_turns": 2}
    envs = VectorDebate(3, Counting(), **options)
    twins = SyncVectorEnv(
        [lambda: SingleAgentDebate(Counting(), **options) for _ in range(3)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    assert envs.observation_space == twins.observation_space
    assert envs.action_space == twins.action_space
    envs.action_space.seed(0)
    assert data_equivalence(envs.reset(seed=1), twins.reset(seed=1))
    for _ in range(5):
        actions = envs.action_space.sample()
        told, expected = envs.step(actions), twins.step(actions)
        assert data_equivalence(told, expected)
        assert told[0] in envs.observation_space


# In turn 1 all agree, so that stop="consensus" ends the debate there.
TURNS = [
    ["I say: \\boxed{4}", "so \\boxed{5}", "I do not know"],
    ["I say: \\boxed{4}", "now \\boxed{4}", "hence \\boxed{4}"],
    ["I say: \\boxed{4}", "\\boxed{6}", "well, \\boxed{2}"],
]


def paid_by_aec(pinned: dict[str, Any], **options: Any) -> list[float]:
    env = debate_v0.env(**options)
    env.reset(options=pinned)
    paid = [0.0] * 3
    for agent in env.agent_iter():
        _, reward, terminated, *_ = env.last()
        paid[int(agent[-1])] += reward
        turn = env.unwrapped.debate.played
        env.step(None if terminated else TURNS[turn][int(agent[-1])])
    return paid


def paid_by_parallel(pinned: dict[str, Any], **options: Any) -> tuple[list[float], list[float]]:
    """What is paid, and the sums of the tables in the last infos."""
    env = debate_v0.parallel_env(**options)
    env.reset(options=pinned)
    paid, says = np.zeros(3), iter(TURNS)
    while env.agents:
        _, rewards, *_, infos = env.step(dict(zip(env.agents, next(says), strict=True)))
        paid += list(rewards.values())
    return paid.tolist(), [float(info["turn_rewards"].sum()) for info in infos.values()]


def paid_by_single(pinned: dict[str, Any], learner: int, **options: Any) -> float:
    partners = [[turn[seat] for turn in TURNS] for seat in range(3) if seat != learner]
    env = SingleAgentDebate(partners, learner, **options)
    env.reset(options=pinned)
    paid, done, says = 0.0, False, iter(TURNS)
    while not done:
        _, reward, done, *_ = env.step(next(says)[learner])
        paid += reward
    return paid


def paid_by_vector(pinned: dict[str, Any], **options: Any) -> list[float]:
    envs = VectorDebate(6, learner="all", autoreset_mode="Disabled", **options)
    says = iter(TURNS)
    return play(envs, lambda _: next(says) * 2, options=pinned).tolist()


@pytest.mark.parametrize("mode", ["terminal", "score"])
@pytest.mark.parametrize("stop", ["fixed", "consensus"])
def test_every_interface_pays_the_same_in_all(mode: str, stop: str) -> None:
    """AEC = Parallel = single-learner view = vector view = the table of BatchedDebate."""
    options = {"task": QUESTIONS, "reward_mode": mode, "stop": stop, "verifier": Counting()}
    pinned = {"question": QUESTIONS[3]}
    paid = paid_by_aec(pinned, **options)
    assert min(paid) > 0
    assert len(set(paid)) == 3
    assert paid_by_parallel(pinned, **options)[0] == paid
    assert [paid_by_single(pinned, learner, **options) for learner in range(3)] == paid
    assert paid_by_vector(pinned, **options) == paid * 2
    if mode == "terminal":
        batch = BatchedDebate(DebateConfig(**options), 1)
        batch.reset([QUESTIONS[3]])
        while prompts := batch.prompts():
            batch.step([TURNS[prompt.turn][prompt.agent_index] for prompt in prompts])
        assert batch.turn_rewards()[0].sum(axis=0) == pytest.approx(paid, abs=1e-6)
        assert paid_by_parallel(pinned, **options)[1] == pytest.approx(paid, abs=1e-6)


def agree_at(agreed: Sequence[int], turn: int) -> list[str]:
    """Texts of debates of three agents; debate d agrees from turn agreed[d] on."""
    return [
        f"\\boxed{{{0 if turn >= agreement else seat}}}"
        for agreement in agreed
        for seat in range(3)
    ]


def test_debates_that_end_early_are_left_alone() -> None:
    verifier = Counting()
    envs = make_vector(
        9, learner="all", stop="consensus", verifier=verifier, autoreset_mode="Disabled"
    )
    envs.reset(seed=0)
    agreed = [1, 0, 9]
    first = envs.step(agree_at(agreed, 0))
    assert first[2].tolist() == [False] * 3 + [True] * 3 + [False] * 3
    assert first[4]["_turn"].all()
    second = envs.step(agree_at(agreed, 1))
    assert second[2].tolist() == [True] * 6 + [False] * 3
    assert (second[1][3:6] == 0).all()
    assert second[0][3:6] == first[0][3:6]
    assert second[4]["_turn"].tolist() == [True] * 3 + [False] * 3 + [True] * 3
    envs.reset(options={"reset_mask": np.array([False] * 3 + [True] * 3 + [False] * 3)})
    assert envs.batch.played.tolist() == [2, 0, 2]
    third = envs.step(agree_at(agreed, 2))
    assert third[2].tolist() == [True] * 9
    assert verifier.calls == [9, 6, 6]
    with pytest.raises(ResetNeeded, match="call reset first"):
        envs.step([""] * 9)


def test_debates_that_end_early_are_followed_by_the_next() -> None:
    envs = make_vector(6, learner="all", stop="consensus")
    envs.reset(seed=0)
    before = [core.transcript.question for core in envs.cores]
    observations, _, terminated, _, infos = envs.step(agree_at([0, 9], 0))
    assert terminated.tolist() == infos["_final_obs"].tolist() == [True] * 3 + [False] * 3
    assert envs.batch.played.tolist() == [0, 1]
    assert infos["turn"].tolist() == [0] * 3 + [1] * 3
    assert infos["final_info"]["turn"][:3].tolist() == [1] * 3
    assert infos["final_info"]["turn_rewards_ready"][:3].all()
    assert before[0].prompt in infos["final_obs"][0]
    assert "\\boxed{0}" in infos["final_obs"][0]
    assert "\\boxed{0}" not in observations[0]
    assert len(envs.batch.prompts()) == 6


def test_truncation_of_one_debate_is_told_at_the_next_step() -> None:
    envs = make_vector(4, num_agents=2, learner="all", autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step(["x"] * 4)
    envs.batch.truncate(0, "generation timed out")
    _, _, terminated, truncated, _ = envs.step(["x"] * 4)
    assert truncated.tolist() == [True, True, False, False]
    assert not terminated.any()


def test_made_by_name_it_is_the_vector_view() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gymnasium.make_vec("maporl/Debate-v0", 3, partners=Counting(), num_turns=2)
        named = gymnasium.make_vec(
            "maporl/Debate-v0", 2, vectorization_mode="vector_entry_point", num_agents=2
        )
    assert isinstance(envs.unwrapped, VectorDebate)
    assert isinstance(named.unwrapped, VectorDebate)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert play(envs, Counting(), seed=0).shape == (3,)
    envs.close()


def test_seeds_are_those_of_each_debate() -> None:
    def questions(envs: VectorDebate, **reset: Any) -> list[str]:
        envs.reset(**reset)
        return [core.transcript.question.id for core in envs.cores]

    one, two = make_vector(6, task="shopping"), make_vector(6, task="shopping")
    assert questions(one, seed=5) == questions(two, seed=[5, 6, 7, 8, 9, 10])
    assert questions(one) == questions(two)
    together = make_vector(6, task="shopping", num_agents=2, learner="all")
    assert questions(together, seed=[5, 0, 6, 0, 7, 0]) == questions(one, seed=5)[:3]


@pytest.mark.parametrize(
    "actions", ["abcd", ["a"] * 3, ["a"] * 5, ["a", "b", "c", None], ["a", "b", "c", 4]]
)
def test_wrong_actions_change_nothing(actions: Any) -> None:
    partner = Counting()
    envs = make_vector(4, partner)
    with pytest.raises(ResetNeeded, match="call reset first"):
        envs.step(["a"] * 4)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"one action for each of 4 lanes|must be a string"):
        envs.step(actions)
    assert [debate.pending for debate in envs.batch.debates] == [()] * 4
    assert partner.calls == []


@pytest.mark.parametrize(
    "options",
    [
        {"reset_mask": [True]},
        {"reset_mask": np.zeros(6, bool)},
        {"reset_mask": np.ones(6)},
        {"reset_mask": np.array([True] + [False] * 5)},
        {"index": 99},
    ],
)
def test_wrong_reset_options_change_nothing(options: dict[str, Any]) -> None:
    envs = make_vector(6, learner="all")
    envs.reset(seed=0)
    envs.step(["x"] * 6)
    before = envs.batch.transcripts
    with pytest.raises(ValueError, match=r"reset_mask must|no question 99"):
        envs.reset(options=options)
    assert envs.batch.transcripts == before


def test_it_renders_every_debate(capsys: pytest.CaptureFixture[str]) -> None:
    envs = make_vector(2, num_turns=2, render_mode="ansi")
    envs.reset(seed=0)
    envs.step(["first says", "second says"])
    shown = envs.render()
    assert ["first says" in text for text in shown] == [True, False]
    human = make_vector(2, num_turns=2, render_mode="human")
    human.reset(seed=0)
    human.step(["first says", "second says"])
    assert capsys.readouterr().out.count(" says") == 2
