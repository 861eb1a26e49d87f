"""SWEET-RL: its two normalisations, the critic, the toy of asking, and a step on small models."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from miniatures import Checkpoint, load_team, stir
from torch import Tensor

from maporl_agents.algorithms import sweet_rl
from maporl_agents.config import (
    DialogueGameConfig,
    Sampling,
    SweetConfig,
    SweetSettings,
    TeamConfig,
)
from maporl_agents.losses import Normalisation, episode_gains, preference_loss
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.text.hidden_reference import REFERENCE, with_reference
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.turn_critic import halves, turn_advantages
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

SAMPLING = Sampling(max_new_tokens=4)
SECRETS = ["three apples", "seven red apples"]
QUESTIONS = [Question(f"q/{n}", "how many ?", "3", hidden=text) for n, text in enumerate(SECRETS)]


# --- Normalisation ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normalisation", "expected"), [("turn", 0.0), ("episode", 1 / 6 - 1 / 12), ("none", 0.0)]
)
def test_the_weight_of_a_shared_turn(normalisation: Normalisation, expected: float) -> None:
    """A first turn of 4 tokens in both episodes; second turns of 2 and 8 tokens."""
    shared = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)  # log-ratio per token
    gains = torch.stack([4 * shared, torch.zeros_like(shared)] * 2)
    lengths, episodes = torch.tensor([4, 2, 4, 8]), torch.tensor([0, 0, 1, 1])
    better, worse = episode_gains(gains, lengths, episodes, 2, normalisation=normalisation)
    [weight] = torch.autograd.grad(better - worse, shared)
    assert float(weight) / 4 == pytest.approx(expected, abs=1e-12)


def test_values_of_episodes() -> None:
    gains = torch.tensor([2.0, 3.0, 8.0, 1.0], dtype=torch.float64)
    lengths, episodes = torch.tensor([2, 3, 4, 1]), torch.tensor([1, 0, 1, 1])
    found = {
        name: episode_gains(gains, lengths, episodes, 3, normalisation=name).tolist()
        for name in ("turn", "episode", "none")
    }
    assert found["turn"] == [1.0, 1.0 + 2.0 + 1.0, 0.0]
    assert found["episode"] == [1.0, 11 / 7, 0.0]
    assert found["none"] == [3.0, 11.0, 0.0]
    with pytest.raises(ValueError, match="normalisation='mean'"):
        episode_gains(gains, lengths, episodes, 3, normalisation="mean")  # type: ignore[arg-type]


def test_one_turn_without_reference_is_dpo_on_means() -> None:
    gains, lengths = torch.randn(8, dtype=torch.float64), torch.randint(1, 9, (8,))
    sides = episode_gains(gains, lengths, torch.arange(8), 8)
    nothing = torch.zeros(4, dtype=torch.float64)
    means = gains / lengths
    assert torch.equal(
        preference_loss(sides[::2], sides[1::2], nothing, nothing, beta=0.1),
        preference_loss(means[::2], means[1::2], nothing, nothing, beta=0.1),
    )


# --- The toy: ask, then answer ------------------------------------------------------------

ASK, CHAT = 0, 1
BIT_UNKNOWN = 2


class Tabular:
    """A policy of two turns, each one token: ask or chat, then the guess given what was told.

    With `reads_bit` it reads the hidden bit too, as the critic does.
    """

    def __init__(self, reads_bit: bool) -> None:
        self.first = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)  # (bit, action)
        self.guess = torch.zeros(2, 3, 2, dtype=torch.float64, requires_grad=True)
        self.reads_bit = reads_bit
        self.optimiser = torch.optim.Adam([self.first, self.guess], lr=0.05)

    def logprobs(self, bit: int, asked: int, guess: int) -> tuple[Tensor, Tensor]:
        row = bit if self.reads_bit else 0
        told = bit if asked == ASK else BIT_UNKNOWN
        first = torch.log_softmax(self.first[row], -1)[asked]
        return first, torch.log_softmax(self.guess[row, told], -1)[guess]

    def step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def success(self) -> float:
        """Probability of a right guess, exactly, over both bits."""
        total = 0.0
        for bit, asked in itertools.product(range(2), range(2)):
            first, right = self.logprobs(bit, asked, bit)
            total += 0.5 * math.exp(float((first + right).detach()))
        return total


UNIFORM = math.log(0.5)


@pytest.mark.thorough
def test_ask_then_answer_is_learnt() -> None:
    """The critic reads the bit; the agent, which does not, learns to ask: .5 becomes 1."""
    critic, agent = Tabular(reads_bit=True), Tabular(reads_bit=False)
    assert agent.success() == pytest.approx(0.5)
    episodes = [
        (bit, asked, guess, float(guess == bit))
        for bit, asked, guess in itertools.product(range(2), repeat=3)
    ]
    # An agent that has not been told guesses at random, as often right as wrong.
    weights = {ASK: [1.0, 0.25], CHAT: [0.5, 0.5]}  # who was told is right more often
    for _ in range(400):
        losses = []
        for good, bad in itertools.product(episodes, episodes):
            if good[0] != bad[0] or good[3] <= bad[3]:
                continue
            weight = weights[good[1]][0] * weights[bad[1]][1]
            gains = torch.stack([x - UNIFORM for e in (good, bad) for x in critic.logprobs(*e[:3])])
            sides = episode_gains(gains, torch.ones(4), torch.tensor([0, 0, 1, 1]), 2)
            none = torch.zeros(1, dtype=torch.float64)
            losses.append(weight * preference_loss(sides[:1], sides[1:], none, none, beta=0.5))
        critic.step(torch.stack(losses).sum())

    with torch.no_grad():
        worth = {
            (bit, asked): float(critic.logprobs(bit, asked, 0)[0]) - UNIFORM
            for bit, asked in itertools.product(range(2), range(2))
        }
    assert all(worth[bit, ASK] > worth[bit, CHAT] for bit in range(2))

    for _ in range(400):
        losses = []
        for bit, asked in itertools.product(range(2), range(2)):
            with torch.no_grad():
                seconds = [float(critic.logprobs(bit, asked, guess)[1]) for guess in range(2)]
            for best, worst in halves(seconds, 1):
                pair = [agent.logprobs(bit, asked, guess)[1][None] for guess in (best, worst)]
                losses.append(dpo(pair))
            for best, worst in halves([worth[bit, ASK], worth[bit, CHAT]], 1):
                losses.append(dpo([agent.logprobs(bit, a, 0)[0][None] for a in (best, worst)]))
        agent.step(torch.stack(losses).mean())
    assert agent.success() > 0.97


def dpo(pair: list[Tensor]) -> Tensor:
    reference = torch.full((1,), UNIFORM, dtype=torch.float64)
    return preference_loss(pair[0], pair[1], reference, reference, beta=0.1)


# --- The lemmas, exactly ------------------------------------------------------------------

BETA = 0.5
REWARD = torch.tensor([[1.0, 0.0, -0.5], [0.25, 2.0, 0.0]], dtype=torch.float64)  # (first, second)
FIRST_REF = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
SECOND_REF = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64).log()


def test_the_sum_of_advantages_is_the_return_less_the_first_value() -> None:
    """Two turns of one token, soft-optimal critic: sum A = sum r - V(o_1, c), and not sum r.

    beta log(pi / pi_ref) of that policy is Q - V, and Q of the first turn is V of the second.
    """
    second_value = BETA * torch.logsumexp(SECOND_REF + REWARD / BETA, 1)
    second = SECOND_REF + (REWARD - second_value[:, None]) / BETA
    first_value = BETA * torch.logsumexp(FIRST_REF + second_value / BETA, 0)
    first = FIRST_REF + (second_value - first_value) / BETA
    assert second.exp().sum(1).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)
    paths = list(itertools.product(range(2), range(3)))
    gains = torch.stack(
        [x for a, b in paths for x in (first[a] - FIRST_REF[a], second[a, b] - SECOND_REF[a, b])]
    )
    episodes = torch.arange(len(paths)).repeat_interleave(2)
    sums = BETA * episode_gains(gains, torch.ones(len(gains)), episodes, len(paths))
    returns = torch.stack([REWARD[a, b] for a, b in paths])
    assert torch.allclose(sums, returns - first_value, rtol=0, atol=1e-12)
    assert abs(float(first_value)) > 0.5
    # In the loss V cancels: it is the one of the returns themselves.
    nothing = torch.zeros(1, dtype=torch.float64)
    for good, bad in itertools.permutations(range(len(paths)), 2):
        loss, expected = (
            preference_loss(x[good : good + 1], x[bad : bad + 1], nothing, nothing, beta=1.0)
            for x in (sums, returns)
        )
        assert float(loss) == pytest.approx(float(expected), abs=1e-12)


def test_advantages_that_read_the_reference_leave_the_gradient_unbiased() -> None:
    """Ask or chat, then guess a hidden bit: E[sum A(o, a, c) grad log pi(a | o)] = grad J."""
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(2, generator=generator, dtype=torch.float64).requires_grad_()
    guess = torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    acts, guesses = torch.log_softmax(first, 0), torch.log_softmax(guess, 1)

    def told(bit: int, act: int) -> int:
        return bit if act == ASK else BIT_UNKNOWN

    def right(bit: int, act: int) -> Tensor:
        """Probability of the right guess, which is Q(act, c)."""
        return guesses[told(bit, act), bit].exp()

    success = sum(
        0.5 * acts[act].exp() * right(bit, act)
        for bit, act in itertools.product(range(2), range(2))
    )
    exact = torch.autograd.grad(success, (first, guess), retain_graph=True)
    surrogate = torch.zeros((), dtype=torch.float64)
    for bit, act, said in itertools.product(range(2), range(2), range(2)):
        value = sum(acts[a].exp() * right(bit, a) for a in range(2))
        known = guesses[told(bit, act), said]
        weight = (0.5 * acts[act].exp() * known.exp()).detach()
        first_advantage = (right(bit, act) - value).detach()
        second_advantage = (float(said == bit) - right(bit, act)).detach()
        surrogate = surrogate + weight * (first_advantage * acts[act] + second_advantage * known)
    found = torch.autograd.grad(surrogate, (first, guess))
    for ours, theirs in zip(found, exact, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert any(bool(one.abs().max() > 0.01) for one in exact)


def test_halves() -> None:
    assert halves([0.1, 0.9, 0.5, -1.0, 0.2], 4) == [(1, 3), (2, 0)]
    assert halves([0.1, 0.9], 1) == [(1, 0)]
    assert halves([0.3, 0.3, 0.3], 2) == []


# --- On small models ------------------------------------------------------------------------


def by_length(questions: Any, responses: Any) -> list[float]:
    return [min(len(text), 40) / 40 for text in responses]


@pytest.fixture
def team(checkpoint: Checkpoint) -> Team:
    """The agent, the user, and the critic."""
    team = load_team(checkpoint("llama"), num_agents=3, num_turns=2, train_agents=(0, 2))
    stir(team)
    return team


def game() -> BatchedDebate:
    config = DebateConfig(
        task=QUESTIONS, protocol="dialogue", num_agents=2, num_turns=2, verifier=by_length
    )
    return BatchedDebate(config, 2)


def settings(**given: Any) -> SweetConfig:
    small: dict[str, Any] = {"group_size": 3, "actions": 4, "pairs": 2, "batch_size": 4}
    return SweetConfig(
        sampling=SAMPLING,
        game=DialogueGameConfig(num_turns=2),
        sweet_rl=SweetSettings(**small | given),
    )


def test_a_step_moves_agent_and_critic_and_nobody_else(team: Team) -> None:
    before = {
        policy: [p.detach().clone() for p in named.values()]
        for policy, named in team.trainable().items()
        if named
    }
    assert set(before) == {team.policy(0, 0), team.policy(2, 0)}
    user = team.base_of(team.policy(1, 0)).model
    frozen = [p.detach().clone() for p in user.parameters()]
    learner = PolicyLearner(team, settings().sweet_rl, steps=2)
    rollouts, metrics = sweet_rl.train_step(learner, game(), QUESTIONS, settings(), seed=1)
    assert len(rollouts) == 6
    for policy, old in before.items():
        now = team.trainable()[policy].values()
        assert any(not torch.equal(a, b) for a, b in zip(old, now, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(frozen, user.parameters(), strict=True))
    assert metrics["critic/pairs"] > 0
    assert metrics["critic/loss"] == pytest.approx(math.log(2), abs=0.05)
    assert metrics["preference_loss"] == pytest.approx(math.log(2), abs=0.3)
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_critic_reads_the_reference_and_the_agent_never(team: Team) -> None:
    config = settings()
    copies = [question for question in QUESTIONS for _ in range(3)]
    room = BatchedDebate(game().game, 6)
    rollouts = play(team, room, copies, SAMPLING, seed=1)
    pairs = sweet_rl.episode_pairs(rollouts, 3)
    taught = sweet_rl.episodes_as_read(team, rollouts, pairs, config)
    chosen, _ = sweet_rl.preferred_messages(team, rollouts, config, seed=1)
    chat = team.bases[0].chat
    told = [tuple(chat.encode(REFERENCE.format(reference=text))) for text in SECRETS]

    def holds(prompt: tuple[int, ...], part: tuple[int, ...]) -> bool:
        return any(prompt[i : i + len(part)] == part for i in range(len(prompt)))

    for prompt, pair in zip(taught.batch.prompts, taught.batch.episodes.tolist(), strict=True):
        question = pairs[pair][0] // 3
        assert [holds(prompt, one) for one in told] == [n == question for n in range(2)]
    assert not any(holds(p, one) for p in chosen.batch.prompts for one in told)
    assert set(chosen.batch.policies) == {team.policy(0, 0)}
    assert set(taught.batch.policies) == {team.policy(2, 0)}
    blind = sweet_rl.episodes_as_read(team, rollouts, pairs, settings(privileged=False))
    assert not any(holds(p, one) for p in blind.batch.prompts for one in told)


def test_the_best_of_a_group_is_paired_with_each_worse_one(team: Team) -> None:
    copies = [question for question in QUESTIONS for _ in range(3)]
    rollouts = play(team, BatchedDebate(game().game, 6), copies, SAMPLING, seed=1)
    scores = [sweet_rl.score_of(rollout) for rollout in rollouts]
    pairs = sweet_rl.episode_pairs(rollouts, 3)
    for better, worse in pairs:
        assert better // 3 == worse // 3
        start = 3 * (better // 3)
        assert scores[better] == max(scores[start : start + 3])  # type: ignore[type-var]
        assert scores[worse] < scores[better]  # type: ignore[operator]
    assert len(pairs) == sum(
        score < max(scores[3 * (i // 3) : 3 * (i // 3) + 3])  # type: ignore[operator, type-var]
        for i, score in enumerate(scores)
    )


def test_a_critic_that_is_its_reference_has_no_opinion(checkpoint: Checkpoint) -> None:
    fresh = load_team(checkpoint("llama"), num_agents=3, num_turns=2, train_agents=(0, 2))
    rollouts = play(fresh, game(), QUESTIONS, SAMPLING, seed=1)
    pairs = [(0, 1)]
    batch = sweet_rl.episodes_as_read(fresh, rollouts, pairs, settings()).batch
    assert torch.equal(turn_advantages(fresh, batch, 512, 1.0), torch.zeros(len(batch)))


def test_where_the_reference_stands(team: Team) -> None:
    chat = team.bases[0].chat
    bos = chat.tokenizer.bos_token_id
    told = tuple(chat.encode(REFERENCE.format(reference="c")))
    assert with_reference(chat, (bos, 5, 6), "c") == (bos, *told, 5, 6)
    assert with_reference(chat, (5, 6), "") == (5, 6)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SweetConfig(team=TeamConfig()), "names the user: set --team.train-agents 0"),
        (SweetConfig(game=DialogueGameConfig(protocol="debate")), "grpo trains the agents of any"),
    ],
)
def test_who_is_trained(config: SweetConfig, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sweet_rl.check(config, game())


def test_settings_that_cannot_be() -> None:
    for name, value in (("normalisation", "mean"), ("actions", 1), ("group_size", 1), ("beta", 0)):
        with pytest.raises(ValueError, match=name):
            SweetSettings(**{name: value})
