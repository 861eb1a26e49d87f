"""MLPO: the leader alone learns, from its peers' frozen answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from made_trees import LENGTHS, SAMPLING, asked
from miniatures import Checkpoint, completion, load_team, stir, weights

from maporl_agents.advantages import group_advantages
from maporl_agents.algorithms import grpo, mlpo
from maporl_agents.algorithms.grpo import GRPOLearner
from maporl_agents.config import (
    GRPOConfig,
    GRPOSettings,
    LeaderGameConfig,
    MLPOConfig,
    MLPOSettings,
    TeamConfig,
)
from maporl_agents.losses import policy_loss
from maporl_agents.models.team import Team
from maporl_agents.trees.backtracking import example_of
from maporl_agents.types import Rollout
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

GROUP = GRPOSettings(group_size=4, minibatches=1)


def debates(protocol: str, num_agents: int, num_turns: int = 1, **options: Any) -> BatchedDebate:
    """Return debates in which longer texts have higher scores."""
    given: dict[str, Any] = {"task": "shopping"} | LENGTHS | options
    config = DebateConfig(protocol=protocol, num_agents=num_agents, num_turns=num_turns, **given)
    return BatchedDebate(config, 2)


def settings(num_agents: int = 3, num_turns: int = 1, **mlpo: Any) -> MLPOConfig:
    return MLPOConfig(
        sampling=SAMPLING,
        grpo=GROUP,
        game=LeaderGameConfig(num_agents=num_agents, num_turns=num_turns),
        team=TeamConfig(train_agents=(num_agents - 1,)),
        mlpo=MLPOSettings(**mlpo),
    )


@pytest.fixture
def team(checkpoint: Checkpoint) -> Team:
    team = load_team(checkpoint("llama"), num_agents=3, num_turns=2, train_agents=(2,))
    stir(team)
    return team


def one_step(team: Team, config: MLPOConfig, questions: int = 2) -> tuple[list[Rollout], Any]:
    learner = GRPOLearner(team, config.grpo, steps=4)
    game = debates("leader", 3, config.training_game()[0].num_turns)
    return mlpo.train_step(learner, game, asked(questions), config, seed=1)


def test_a_leader_without_peers_is_grpo_bit_for_bit(checkpoint: Checkpoint) -> None:
    """K = 0, T = 1: equal weights and metrics after two steps."""
    ours, theirs = (load_team(checkpoint("llama"), num_agents=1, num_turns=1) for _ in range(2))
    for one in (ours, theirs):
        stir(one)
        one.refresh()
    leader, lone = GRPOLearner(ours, GROUP, steps=4), GRPOLearner(theirs, GROUP, steps=4)
    config = GRPOConfig(sampling=SAMPLING, grpo=GROUP)
    for step in range(2):
        _, told = mlpo.train_step(
            leader, debates("leader", 1), asked(3), settings(num_agents=1), seed=step
        )
        _, same = grpo.train_step(lone, debates("debate", 1), asked(3), config, seed=step)
        assert told.items() <= same.items()  # of partial turns there are no copy rates
        assert same.keys() - told.keys() == {"agreement/turn_1", "copy/turn_1", "invalid/turn_1"}
    mine, others = weights(ours), weights(theirs)
    assert all(torch.equal(mine[name], others[name]) for name in mine)


def test_the_peers_have_no_gradient_and_do_not_move(team: Team) -> None:
    leader = team.policy(2, 0)
    frozen = {
        (n, name): tensor.clone()
        for n, base in enumerate(team.bases)
        for name, tensor in base.model.named_parameters()
        if not tensor.requires_grad
    }
    assert [name for name, named in team.trainable().items() if named] == [leader]
    learnt = {name: p.detach().clone() for name, p in team.trainable()[leader].items()}
    rollouts, metrics = one_step(team, settings())
    for n, base in enumerate(team.bases):
        for name, tensor in base.model.named_parameters():
            if (n, name) in frozen:
                assert tensor.grad is None
                assert torch.equal(tensor, frozen[n, name])
    assert frozen
    after = team.trainable()[leader]
    assert any(not torch.equal(learnt[name], after[name]) for name in learnt)
    assert metrics["updates"] == 1
    for rollout in rollouts:
        assert not rollout.scored[:, :2].any()
        assert rollout.scored[:, 2].all()


@pytest.mark.parametrize("contexts", ["one", "each"])
def test_what_the_leader_of_a_group_reads(team: Team, contexts: Any) -> None:
    """One draw for all debates of a question, or draw g for debate g, which repeats."""
    rollouts, _ = one_step(team, settings(contexts=contexts, pool_size=2, drop_from=None))
    assert len(rollouts) == 8
    for group in (rollouts[:4], rollouts[4:]):
        prompts = [rollout.prompts[2] for rollout in group]
        assert len(set(prompts)) == (1 if contexts == "one" else 2)
        assert prompts[:2] == prompts[2:]
        assert len({rollout.completions[2].ids for rollout in group}) > 1
        texts = {rollout.transcript.messages[0].text for rollout in group}
        assert all(one.transcript.messages[0].text == one.completions[0].text for one in group)
        assert len(texts) == (1 if contexts == "one" else 2)


def test_the_game_of_a_run_is_its_first_turn() -> None:
    assert settings(num_turns=5).training_game()[0].num_turns == 1


# --- Worked values ------------------------------------------------------------------


def test_advantages_of_eight_leaders() -> None:
    rewards = torch.tensor([1, 0, 0, 1, 0, 0, 0, 0], dtype=torch.float64)
    plain = group_advantages(rewards, torch.zeros(8, dtype=torch.long), scale="none")
    assert plain.tolist() == [0.75, -0.25, -0.25, 0.75, -0.25, -0.25, -0.25, -0.25]
    scaled = plain / rewards.std(correction=0)
    assert scaled[:2].tolist() == pytest.approx([1.7321, -0.5774], abs=1e-4)
    ours = group_advantages(rewards, torch.zeros(8, dtype=torch.long), scale="std")
    assert ours[0] == pytest.approx(0.75 / (float(rewards.std(correction=1)) + 1e-4))


def test_a_leader_that_copies_a_peer_ends_at_the_best_one() -> None:
    """Peers right with .2, .5, .8; the leader's actions are "copy peer k", at first uniform."""
    accuracies = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(3, 1, dtype=torch.bool)

    def ascent() -> torch.Tensor:
        """Gradient of the expected reward: each action's surrogate, weighted by its probability."""
        logprobs = torch.log_softmax(logits, 0)
        shares = logprobs.detach().exp()
        advantages = accuracies - (shares * accuracies).sum()
        loss, _ = policy_loss(
            logprobs[:, None],
            logprobs.detach()[:, None],
            (3 * shares * advantages)[:, None],
            mask,
            clip_coef=0.2,
        )
        [gradient] = torch.autograd.grad(loss, logits)
        return -gradient

    assert ascent().tolist() == pytest.approx([-0.1, 0.0, 0.1], abs=1e-12)
    for _ in range(400):
        step = ascent()
        with torch.no_grad():
            logits += step
    assert float(torch.softmax(logits, 0)[2]) > 0.95


@pytest.mark.parametrize(("right", "kept"), [(9, False), (8, True), (12, False), (0, True)])
def test_the_filter(right: int, kept: bool) -> None:
    """Three peers, four answers each: 9 of 12 right are dropped, 8 of 12 kept."""
    questions = [Question("q", "How much?", "4"), Question("none right", "How much?", "5")]
    game = BatchedDebate(DebateConfig(task=questions, num_agents=4, protocol="leader"), 1)
    texts = ["\\boxed{4}"] * right + ["no"] * (12 - right)
    pool: dict[tuple[int, int], Sequence[Any]] = {
        (place, peer): [
            completion((1,), text="no" if place else texts[4 * peer + draw]) for draw in range(4)
        ]
        for place in range(2)
        for peer in range(3)
    }
    shares = mlpo.right_shares(game, questions, pool)
    assert shares == [right / 12, 0.0]
    assert mlpo.kept_of(shares, MLPOSettings()) == ([0, 1] if kept else [1])
    assert mlpo.kept_of(shares, MLPOSettings(drop_from=None)) == [0, 1]
    assert mlpo.kept_of([0.9, 1.0], MLPOSettings()) == [0, 1]  # rather than nothing


# --- The pool, and texts that recover --------------------------------------------------


def test_an_offline_pool_is_the_same_whenever_its_question_comes(team: Team) -> None:
    first, second, third = asked(3)
    game = debates("leader", 3)

    def texts(questions: list[Question], of: Question, *, by_question: bool) -> list[str]:
        pool = mlpo.pool_of(team, game, questions, SAMPLING, 2, seed=1, by_question=by_question)
        place = questions.index(of)
        return [one.text for peer in range(2) for one in pool[place, peer]]

    alone = texts([second], second, by_question=True)
    assert alone == texts([third, first, second], second, by_question=True)
    assert len(set(alone)) > 1
    moved = texts([third, first, second], second, by_question=False)
    assert moved != texts([second], second, by_question=False)


def test_the_pool_of_a_run_is_drawn_once_or_in_every_step(team: Team) -> None:
    questions = asked(2)

    def read(pool: Any, seed: int) -> list[str]:
        config = settings(pool=pool, drop_from=None)
        _, engine, _ = mlpo.with_peers(team, debates("leader", 3), questions, config, 1, seed=seed)
        game = debates("leader", 3)
        rollouts = mlpo.play(team, game, questions, SAMPLING, seed=seed, engine=engine)
        return [one.transcript.messages[0].text for one in rollouts]

    assert read("offline", 1) == read("offline", 2)
    assert read("step", 1) != read("step", 2)


SAMPLES = [completion((5, 6), text="a"), completion((7, 8), text="b"), completion((9,), text="c")]


@pytest.mark.parametrize(
    ("right", "case", "samples"),
    [
        ([False, False, False], "none right", ()),
        ([True, True, True], "all right", (0,)),
        ([True, False, True], "recovers", (1, 0)),
        ([False, False, True], "recovers", (0, 2)),
    ],
)
def test_what_is_imitated_of_the_samples_of_a_question(
    team: Team, right: list[bool], case: str, samples: tuple[int, ...]
) -> None:
    chat = team.bases[0].chat
    words = tuple(chat.encode("wait ,"))
    assert words
    example, found = example_of(SAMPLES, right, "wait ,", 20, chat)
    assert found == case
    if not samples:
        assert example is None
    elif len(samples) == 1:
        assert example is SAMPLES[samples[0]]
    else:
        wrong, good = (SAMPLES[place] for place in samples)
        assert example is not None
        assert example.ids == (*wrong.ids, *words, *good.ids)  # as sampled, never encoded again
        assert len(example.logprobs) == len(example.ids)


def test_a_wrong_try_loses_its_end_and_a_long_text_is_left_out(team: Team) -> None:
    chat = team.bases[0].chat
    assert chat.end_id is not None
    ended = [completion((5, chat.end_id)), completion((6, chat.end_id))]
    example, _ = example_of(ended, [False, True], "", 3, chat)
    assert example is not None
    assert example.ids == (5, 6, chat.end_id)
    assert example_of(ended, [False, True], "", 2, chat) == (None, "too long")


def test_the_warm_up_takes_the_texts_of_the_leader_alone(team: Team) -> None:
    """The first half of all messages is right; the other agents' have no row."""
    config = settings(backtracking="wait ,", pool_size=4, drop_from=None)
    calls: list[int] = []

    def every_other(questions: Any, responses: Any) -> list[float]:
        calls.extend(range(len(responses)))
        return [float(place % 2 == 0) for place in range(len(responses))]

    game = debates("leader", 3, verifier=every_other)
    made = mlpo.imitated(config, team, game, asked(2), seed=1)
    assert made is not None
    rows, rollouts, told = made
    assert len(rollouts) == 8
    assert {(row.agent, row.policy) for row in rows} <= {(2, team.policy(2, 0))}
    assert "texts of 2 questions: none right" in told
    for row in rows:
        group = rollouts[4 * row.episode : 4 * row.episode + 4]
        assert {one.prompts[2] for one in group} == {row.prompt}
    assert mlpo.imitated(settings(), team, game, asked(2), seed=1) is None


# --- Bad input -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (MLPOConfig(team=TeamConfig()), r"agent 1, and team.train_agents=\(0, 1\) names others"),
        (
            MLPOConfig(team=TeamConfig(train_agents=(0,))),
            "names another: set --team.train-agents 1",
        ),
        (MLPOConfig(game=LeaderGameConfig(protocol="debate")), "not of 'debate': grpo trains"),
    ],
)
def test_who_is_trained(config: MLPOConfig, words: str) -> None:
    game = debates(config.game.protocol, 2)
    with pytest.raises(ValueError, match=words):
        mlpo.check(config, game)


def test_whoever_is_never_paid_is_not_trained() -> None:
    config = GRPOConfig(game=LeaderGameConfig())
    with pytest.raises(ValueError, match="trains agent 0, which protocol 'leader' never rewards"):
        grpo.check(config, debates("leader", 3))


def test_settings_that_cannot_be() -> None:
    for name, value in (
        ("contexts", "two"),
        ("pool_size", 0),
        ("pool", "always"),
        ("drop_from", 1.5),
        ("drop_from", 0.0),
    ):
        with pytest.raises(ValueError, match=name):
            MLPOSettings(**{name: value})
