"""One shift, one mask, one distribution: what a token's log-probability is in any layout."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from miniatures import load_team, make_rollout, stir
from torch import Tensor

from maporl_agents.losses import kl_estimate, policy_loss
from maporl_agents.models.team import Team
from maporl_agents.types import TokenBatch, TokenIds, TokenScores
from maporl_agents.update.batching import collate
from maporl_agents.update.token_logprobs import score_tokens

FAMILIES = ("llama", "gpt2")

# A debate of two agents and three turns in hand-made ids. Agent 0's rows nest: prompt t + 1 begins
# with prompt t and completion t. Lengths are ragged; one completion is a single token; agent 1's
# second prompt does not continue its first. Id 0 is padding and EOS, also inside a prompt.
PROMPTS: list[TokenIds] = [
    (5, 6, 7),
    (9, 8),
    (5, 6, 7, 11, 12, 0, 21, 22),
    (9, 0, 8, 13, 23),
    (5, 6, 7, 11, 12, 0, 21, 22, 14, 24, 25, 26),
    (9, 0, 8, 13, 23, 15, 16, 17, 18, 19, 0, 27),
]
IDS: list[TokenIds] = [(11, 12, 0), (13,), (14,), (15, 16, 17, 18, 19, 0), (30, 31), (32, 33, 0)]


def make_batch(team: Team, rows: Sequence[int] | None = None) -> TokenBatch:
    rollout = make_rollout(team, PROMPTS, IDS, rewards=np.zeros((3, 2)))
    batch, _ = collate(team, [rollout])
    return batch if rows is None else batch.select(list(rows))


def make_team(checkpoint, family: str, *, tuning: str = "full", **settings: object) -> Team:
    """A team whose policies differ from their reference and from each other."""
    team = load_team(checkpoint(family), tuning=tuning, **settings)
    stir(team)
    return team


def by_hand(
    team: Team, batch: TokenBatch, row: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, values and entropies of one full-weight row, from a plain forward pass."""
    model = team.base_of(batch.policies[row]).model
    length = int(batch.mask[row].sum())
    whole = torch.tensor([[*batch.prompts[row], *batch.ids[row, :length].tolist()]])
    output = model(input_ids=whole, output_hidden_states=True)
    start = len(batch.prompts[row])
    logprobs, values, entropies = [], [], []
    for x in range(length):
        distribution = (output.logits[0, start + x - 1] / temperature).log_softmax(-1)
        logprobs.append(distribution[whole[0, start + x]])
        values.append(team.critics[batch.critics[row]](output.hidden_states[-1][0, start + x - 1]))
        entropies.append(-(distribution.exp() * distribution).sum())
    return torch.stack(logprobs), torch.stack(values), torch.stack(entropies)


def score(team: Team, batch: TokenBatch, temperature: float = 0.7, **options: bool) -> TokenScores:
    with torch.no_grad():
        return score_tokens(team, batch, temperature=temperature, with_entropy=True, **options)


@pytest.mark.parametrize("family", [*FAMILIES, "qwen2"])
@pytest.mark.parametrize("double", [False, True])
@torch.no_grad()
def test_every_row_agrees_with_a_plain_forward_pass(checkpoint, family: str, double: bool) -> None:
    team = make_team(checkpoint, family, double=double)
    batch = make_batch(team)
    scores = score(team, batch, with_values=True)
    tolerance = 1e-12 if double else 1e-5
    for row in range(len(batch)):
        length = int(batch.mask[row].sum())
        found = (scores.logprobs[row], scores.values[row], scores.entropy[row])
        for mine, hand in zip(found, by_hand(team, batch, row, 0.7), strict=True):
            torch.testing.assert_close(mine[:length], hand, atol=tolerance, rtol=tolerance)
            assert not mine[length:].any()  # 0 outside the mask


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize(("double", "tolerance"), [(False, 1e-5), (True, 1e-12)])
def test_a_logprob_does_not_depend_on_its_layout(
    checkpoint, family: str, tuning: str, double: bool, tolerance: float
) -> None:
    """Alone, nested in a longer row, permuted, beside longer neighbours: the same (failure A5)."""
    team = make_team(checkpoint, family, tuning=tuning, double=double)
    whole = score(team, make_batch(team), with_values=True)

    def compare(rows: list[int]) -> None:
        batch = make_batch(team, rows)
        scores = score(team, batch, with_values=True)
        width = batch.mask.shape[1]
        for name in ("logprobs", "values", "entropy"):
            expected = getattr(whole, name)[rows, :width]
            torch.testing.assert_close(
                getattr(scores, name), expected, atol=tolerance, rtol=tolerance
            )

    for row in range(6):
        compare([row])
    compare([4, 2, 0])
    compare([5, 3, 1])
    compare([3, 0])
    compare([2, 5, 1, 0, 4, 3])


@pytest.mark.parametrize("batches", [25, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("double", "tolerance"), [(False, 1e-5), (True, 1e-12)])
@torch.no_grad()
def test_random_layouts_agree_with_rows_read_alone(
    checkpoint, family: str, double: bool, tolerance: float, batches: int
) -> None:
    """Conversations of random lengths that nest or not, in random order (figure R4)."""
    team = make_team(checkpoint, family, double=double)
    rng = random.Random(5)

    def words(most: int) -> TokenIds:
        return tuple(rng.randrange(300) for _ in range(rng.randint(1, most)))

    for _ in range(batches):
        prompts, ids = [], []
        for turn in range(3):
            for seat in range(2):
                said = prompts[2 * turn - 2 + seat] + ids[2 * turn - 2 + seat] if turn else ()
                kept = said if rng.random() < 0.7 else said[1:]
                prompts.append(kept + words(9))
                ids.append(words(6))
        rollout = make_rollout(team, prompts, ids, rewards=np.zeros((3, 2)))
        batch = collate(team, [rollout])[0].select(rng.sample(range(6), rng.randint(1, 6)))
        scores = score(team, batch, with_values=True)
        row = rng.randrange(len(batch))
        length = int(batch.mask[row].sum())
        found = (scores.logprobs[row], scores.values[row], scores.entropy[row])
        for mine, hand in zip(found, by_hand(team, batch, row, 0.7), strict=True):
            torch.testing.assert_close(mine[:length], hand, atol=tolerance, rtol=tolerance)


def test_without_position_ids_left_padding_moves_an_absolute_position_model(checkpoint) -> None:
    """The negative control of the test above: 1e-2 off, a thousand times the tolerance."""
    model = load_team(checkpoint("gpt2"), num_agents=1, num_turns=1).bases[0].model
    ids = torch.tensor([[0, 0, 0, 5, 6, 7, 11]])
    attention = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        alone = model(input_ids=ids[:, 3:]).logits[0]
        careless = model(
            input_ids=ids, attention_mask=attention, position_ids=torch.arange(7)[None]
        ).logits[0, 3:]
    assert (alone - careless).abs().max() > 1e-2


class TestMask:
    def test_what_stands_outside_the_mask_changes_nothing(self, checkpoint) -> None:
        team = make_team(checkpoint, "llama")
        batch = make_batch(team)
        before = score(team, batch, with_values=True)
        batch.ids[~batch.mask] = 7
        after = score(team, batch, with_values=True)
        assert torch.equal(before.logprobs, after.logprobs)
        assert torch.equal(before.values, after.values)

    def test_the_terminating_eos_is_scored_though_it_is_padding_too(self, checkpoint) -> None:
        team = make_team(checkpoint, "llama")
        batch = make_batch(team)
        assert team.bases[0].chat.pad_id in team.bases[0].chat.stop_ids
        scores = score(team, batch)
        for row in (0, 3, 5):
            last = len(IDS[row]) - 1
            assert IDS[row][last] == team.bases[0].chat.pad_id
            assert bool(batch.mask[row, last])
            assert scores.logprobs[row, last] < 0

    @pytest.mark.parametrize("row", [0, 3])
    def test_a_token_is_not_seen_by_its_own_value(self, checkpoint, row: int) -> None:
        """Failure A10: changing token 1 leaves values 0 and 1 bitwise equal and moves value 2."""
        team = make_team(checkpoint, "gpt2")
        batch = make_batch(team, [row])
        before = score(team, batch, with_values=True).values[0]
        batch.ids[0, 1] = 40
        after = score(team, batch, with_values=True).values[0]
        assert torch.equal(before[:2], after[:2])
        assert (before[2] - after[2]).abs() > 1e-4


class TestOneDistribution:
    @pytest.mark.parametrize("tuning", ["full", "lora"])
    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("temperature", [0.6, 1.0, 1.3])
    def test_a_fresh_policy_has_no_distance_to_its_reference(
        self, checkpoint, tuning: str, family: str, temperature: float
    ) -> None:
        """Failure A2: KL 0 within rounding, for every estimator, on every token."""
        team = load_team(checkpoint(family), tuning=tuning, num_turns=3)
        batch = make_batch(team)
        own = score(team, batch, temperature).logprobs
        reference = score(team, batch, temperature, reference=True).logprobs
        for estimator in ("k1", "k2", "k3"):
            assert kl_estimate(own, reference, estimator).abs().max() <= 1e-5

    def test_that_holds_where_two_agents_say_the_same(self, checkpoint) -> None:
        """Under the shared reference one agent's row lies inside another's; not laid out so."""
        team = load_team(checkpoint("gpt2"), tuning="lora", num_turns=2)
        long = (5, 6, 7, 11, 12, 21)
        prompts = [(5, 6, 7), (5, 6, 7), long, (5, 6)]
        ids = [(11, 12), (11,), (13, 14), (7, 11, 12, 21)]
        batch, _ = collate(team, [make_rollout(team, prompts, ids, rewards=np.zeros((2, 2)))])
        [base] = team.bases
        read: list[Tensor] = []
        forward = base.hidden

        def watched(ids: Tensor, *arguments: object, **options: object) -> Tensor:
            read.append(ids)
            return forward(ids, *arguments, **options)  # type: ignore[arg-type]

        base.hidden = watched  # type: ignore[method-assign]
        own = score(team, batch).logprobs
        assert torch.equal(own, score(team, batch, reference=True).logprobs)
        assert len(read) == 2
        assert torch.equal(*read)

    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_a_moved_policy_has_and_the_reference_stays(self, checkpoint, tuning: str) -> None:
        team = make_team(checkpoint, "llama", tuning=tuning)
        batch = make_batch(team)
        reference = score(team, batch, reference=True).logprobs
        assert (score(team, batch).logprobs - reference)[batch.mask].abs().min() > 1e-6
        fresh = score(load_team(checkpoint("llama"), tuning=tuning), batch).logprobs
        torch.testing.assert_close(reference, fresh, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_the_ratio_is_one_before_the_first_update(
        self, checkpoint, family: str, tuning: str
    ) -> None:
        """Failures A3, A28: at any temperature, bitwise at equal shapes, with and without grad."""
        team = make_team(checkpoint, family, tuning=tuning)
        batch = make_batch(team)
        for temperature in (0.6, 0.7, 1.0, 1.3):
            old = score(team, batch, temperature).logprobs
            new = score_tokens(team, batch, temperature=temperature).logprobs
            assert torch.equal(new.detach(), old)
            loss, stats = policy_loss(new, old, torch.ones_like(old), batch.mask, clip_coef=0.2)
            assert loss.item() == pytest.approx(-1, abs=1e-6)
            assert stats["clip_frac"] == 0
            assert stats["approx_kl"] == 0

    def test_temperature_divides_the_logits(self, checkpoint) -> None:
        team = make_team(checkpoint, "llama")
        batch = make_batch(team)
        assert not torch.allclose(
            score(team, batch, 0.7).logprobs, score(team, batch, 1.0).logprobs
        )
