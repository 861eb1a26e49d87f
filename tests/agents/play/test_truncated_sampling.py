"""Truncated sampling: what is drawn has the exact distribution, and training scores that one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from miniatures import load_team, stir
from ppo_cases import CONFIG, PPO, QUESTIONS, make_debates
from torch import Tensor

from maporl_agents.algorithms import iac, magrpo, maporl
from maporl_agents.config import (
    IACConfig,
    MAGRPOConfig,
    MAGRPOSettings,
    PPOConfig,
    Sampling,
    Truncation,
)
from maporl_agents.models.team import Team
from maporl_agents.models.truncation import kept_mask, only
from maporl_agents.play.local_engine import sample
from maporl_agents.play.rollout import play
from maporl_agents.play.speak import speak
from maporl_agents.trees.samples import Sample
from maporl_agents.types import Completion, KeptIds, Request, StopReason, TokenBatch, TokenIds
from maporl_agents.update.batching import Row, batch_of, collate
from maporl_agents.update.optimiser import PolicyLearner, PPOLearner
from maporl_agents.update.reference_logprobs import reference_and_kl
from maporl_agents.update.token_logprobs import score_tokens
from maporl_agents.update.token_tables import token_tables

CUTS = [Truncation(top_k=5), Truncation(top_p=0.8), Truncation(min_p=0.2), Truncation(9, 0.9, 0.05)]
HEAT = 0.8
PROMPT: TokenIds = (5, 6, 7)


def sampling_of(cut: Truncation, **options: Any) -> Sampling:
    return Sampling(temperature=HEAT, **cut._asdict(), **{"max_new_tokens": 4, **options})


def make_team(checkpoint: Callable[..., Path], **options: Any) -> Team:
    team = load_team(checkpoint("llama"), num_turns=2, **options)
    stir(team)
    return team


def played(team: Team, cut: Truncation) -> TokenBatch:
    rollouts = play(team, make_debates(), QUESTIONS, sampling_of(cut), seed=1, with_values=True)
    return collate(team, rollouts)[0]


def plain_logits(team: Team, policy: str, ids: Sequence[int]) -> Tensor:
    """After each id, at the sampling temperature, by the model's own forward pass."""
    with torch.no_grad():
        return team.base_of(policy).plain_logits(torch.tensor(ids), policy) / HEAT


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_every_token_is_drawn_from_the_set_of_its_distribution(
    checkpoint, tuning: str, cut: Truncation
) -> None:
    """The sets and renormalised log-probabilities are those of a plain pass over the text."""
    team = make_team(checkpoint, tuning=tuning, double=True)
    policies = ["agent_0", "agent_1"] * 3
    prompts: list[TokenIds] = [PROMPT, (9, 8), (20,)] * 2
    for prompt, policy, one in zip(
        prompts, policies, sample(team, prompts, policies, sampling_of(cut), seed=1), strict=True
    ):
        logits = plain_logits(team, policy, (*prompt, *one.ids[:-1]))[len(prompt) - 1 :]
        mask = kept_mask(logits, cut)
        assert one.kept is not None
        assert one.kept.sets() == [tuple(row.nonzero()[:, 0].tolist()) for row in mask]
        assert all(x in own for x, own in zip(one.ids, one.kept.sets(), strict=True))
        expected = only(logits, mask).log_softmax(-1)[torch.arange(len(one.ids)), list(one.ids)]
        torch.testing.assert_close(
            torch.tensor(one.logprobs, dtype=torch.float64), expected, atol=1e-9, rtol=1e-9
        )


@pytest.mark.thorough
@pytest.mark.parametrize("cut", CUTS)
def test_drawn_as_often_as_the_exact_distribution_says(checkpoint, cut: Truncation) -> None:
    """Pearson's chi-square over the kept ids, against its quantile at 1e-4; noise is seeded."""
    team = make_team(checkpoint)
    count = 4000
    said = sample(
        team, [PROMPT] * count, ["agent_0"] * count, sampling_of(cut, max_new_tokens=1), seed=3
    )
    logits = plain_logits(team, "agent_0", PROMPT)[-1:]
    exact = only(logits, kept_mask(logits, cut)).softmax(-1)[0].double()
    seen = Counter(one.ids[0] for one in said)
    kept = exact.nonzero()[:, 0].tolist()
    assert set(seen) <= set(kept)
    assert 2 < len(kept) < 200
    assert chi_square(seen, exact, kept, count) < quantile(len(kept) - 1, 3.719)
    # The test can fail: the same temperature without truncation is another distribution.
    whole = logits.softmax(-1)[0].double()
    assert chi_square(seen, whole, kept, count) > quantile(len(kept), 3.719)


def chi_square(seen: Counter[int], exact: Tensor, ids: Sequence[int], count: int) -> float:
    expected = [(v, count * float(exact[v])) for v in ids]
    rest = count - sum(n for _, n in expected)
    inside = sum((seen[v] - n) ** 2 / n for v, n in expected)
    return inside + (rest if rest > 1e-6 else 0.0)  # none was seen outside


def quantile(freedom: int, z: float) -> float:
    """Wilson and Hilferty's approximation of the chi-square quantile at the normal deviate z."""
    share = 2 / (9 * freedom)
    return freedom * (1 - share + z * share**0.5) ** 3


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_sampler_and_trainer_agree(checkpoint, tuning: str, cut: Truncation) -> None:
    """Ratio 1 before the first update: 1e-5 in float32; and the sampler's numbers are taken."""
    team = make_team(checkpoint, tuning=tuning)
    batch = played(team, cut)
    with torch.no_grad():
        scores = score_tokens(team, batch, temperature=HEAT, with_values=True)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(scores.logprobs, batch.sampled_logprobs, **close)
    # Critics read the states of the whole policy: truncation does not touch their values.
    whole = score_tokens(team, replace(batch, kept=None), temperature=HEAT, with_values=True)
    assert torch.equal(whole.values, scores.values)
    torch.testing.assert_close(scores.values, batch.sampled_values, **close)
    found = token_tables(
        team, batch, temperature=HEAT, micro_tokens=50, with_values=True, sampled=True
    )
    assert found.fault == 0
    assert not found.rescored.all()


def test_the_set_of_sampling_counts_after_an_update(checkpoint) -> None:
    """Ids that the new policy would leave out keep a finite ratio, and others get none."""
    cut = Truncation(top_p=0.5)
    team = make_team(checkpoint, double=True)
    batch = played(team, cut)
    stir(team, seed=2, scale=0.2)
    with torch.no_grad():
        scores = score_tokens(team, batch, temperature=HEAT, with_entropy=True)
    left_out = 0
    for row, sets in enumerate(batch.kept or ()):
        assert sets is not None
        length = int(batch.mask[row].sum())
        ids = batch.ids[row, :length].tolist()
        prompt = batch.prompts[row]
        logits = plain_logits(team, batch.policies[row], (*prompt, *ids[:-1]))[len(prompt) - 1 :]
        for x, (own, now) in enumerate(zip(sets.sets(), logits, strict=True)):
            expected = now[list(own)].log_softmax(-1)
            assert float(scores.logprobs[row, x]) == pytest.approx(
                float(expected[own.index(ids[x])]), abs=1e-9
            )
            assert float(scores.entropy[row, x]) == pytest.approx(
                float(-(expected.exp() * expected).sum()), abs=1e-9
            )
            left_out += not kept_mask(now[None], cut)[0, ids[x]]
    assert left_out > 3


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_kl_to_the_reference_is_over_the_kept_set(checkpoint, tuning: str) -> None:
    """0 while the policy is the reference, and the closed form once it is not."""
    team = load_team(checkpoint("llama"), num_turns=2, tuning=tuning, double=True)
    batch = played(team, CUTS[1])
    reference, kl = reference_and_kl(team, batch, temperature=HEAT)
    with torch.no_grad():
        own = score_tokens(team, batch, temperature=HEAT).logprobs
    torch.testing.assert_close(reference, own, atol=1e-12, rtol=1e-12)
    assert kl.abs().max() <= 1e-12
    assert own[batch.mask].lt(0).any()
    stir(team)
    _, kl = reference_and_kl(team, batch, temperature=HEAT)
    row, sets = 0, (batch.kept or ())[0]
    assert sets is not None
    text = torch.tensor(batch.prompts[row])
    with torch.no_grad():
        base, policy = team.base_of(batch.policies[row]), batch.policies[row]
        now, first = (
            (base.plain_logits(text, policy, reference=r)[-1, list(sets.sets()[0])] / HEAT)
            for r in (False, True)
        )
    expected = (first.softmax(0) * (first.log_softmax(0) - now.log_softmax(0))).sum()
    assert float(kl[row, 0]) == pytest.approx(float(expected), abs=1e-9)


def test_chunks_of_the_head_keep_their_own_sets(
    checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maporl_agents.update import read_out

    team = make_team(checkpoint, double=True)
    batch = played(team, CUTS[1])

    def everything() -> tuple[Tensor, list[Tensor]]:
        scores = score_tokens(team, batch, temperature=HEAT, train_entropy=True)
        loss = (scores.logprobs + 0.1 * scores.entropy).sum()
        parameters = [p for one in team.trainable().values() for p in one.values()]
        return loss.detach(), list(torch.autograd.grad(loss, parameters, allow_unused=True))

    whole = everything()
    monkeypatch.setattr(read_out, "CHUNK", 3 * team.bases[0].vocab_size)
    torch.testing.assert_close(everything(), whole, atol=1e-9, rtol=1e-9)


def test_rows_with_and_without_sets_stand_in_one_batch(checkpoint) -> None:
    """Such as those of two models of which one truncates."""
    team = make_team(checkpoint, double=True)
    [cut], [whole] = (
        sample(team, [PROMPT], ["agent_0"], sampling_of(one), seed=4)
        for one in (CUTS[0], Truncation())
    )
    assert whole.kept is None
    rows = [Row(PROMPT, one, "agent_0", i, 0, 0, 0.0) for i, one in enumerate((cut, whole, cut))]
    batch = batch_of(team, rows)
    with torch.no_grad():
        both = score_tokens(team, batch, temperature=HEAT).logprobs
        alone = [score_tokens(team, batch.select([i]), temperature=HEAT).logprobs for i in range(3)]
    for i, one in enumerate(alone):
        torch.testing.assert_close(both[i : i + 1, : one.shape[1]], one, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(both, batch.sampled_logprobs, atol=1e-12, rtol=1e-12)


def test_sixteen_bits_are_scored_again_over_the_same_sets(checkpoint) -> None:
    """There the sampler's numbers are not taken: the trainer's renormalise over its sets."""
    team = load_team(checkpoint("llama"), num_turns=2, dtype="bfloat16")
    batch = played(team, CUTS[0])
    found = token_tables(team, batch, temperature=HEAT, micro_tokens=500, sampled=True)
    assert found.rescored.all()
    whole = token_tables(team, replace(batch, kept=None), temperature=HEAT, micro_tokens=500)
    assert (found.logprobs >= whole.logprobs)[batch.mask].all()
    assert (found.logprobs > whole.logprobs)[batch.mask].any()
    assert torch.equal(found.logprobs, found.ref_logprobs)


def test_greedy_ignores_truncation(checkpoint) -> None:
    team = make_team(checkpoint)
    plain = Sampling(max_new_tokens=4, temperature=0.0)
    expected = sample(team, [PROMPT], ["agent_0"], plain, seed=1)
    assert sample(team, [PROMPT], ["agent_0"], replace(plain, top_k=3), seed=1) == expected


def test_learning_from_given_messages_is_over_the_whole_vocabulary(checkpoint) -> None:
    """As MALT does from its files, which hold no sets but those of forced tokens."""
    batch = played(make_team(checkpoint), CUTS[0])
    assert batch.untruncated().kept is None
    forced = KeptIds.of_forced({1: 7}, 3)
    assert forced is not None
    assert forced.sets() == [(), (7,), ()]
    narrow = KeptIds((2, 1, 1), b"".join(x.to_bytes(4, "little") for x in (4, 5, 7, 8)), (1,))
    assert narrow.whole() == forced
    said = Completion((4, 7, 8), (-1.0, 0.0, 0.0), "", StopReason.EOS, kept=narrow)
    row = Sample(0, (0,), "q", 0, 0, "agent_0", PROMPT, said)
    assert Sample.from_dict(row.to_dict()).completion.kept == forced
    plain = replace(row, completion=replace(said, kept=None))
    assert "forced" not in plain.to_dict()


def test_an_engine_must_say_what_it_kept(checkpoint) -> None:
    team = make_team(checkpoint)
    asked = [Request("agent_0", PROMPT, 0, 0)]
    cut = sampling_of(CUTS[0])

    def engine(*_: object) -> list[Completion]:
        return sample(team, [PROMPT], ["agent_0"], replace(cut, top_k=0), seed=1)

    with pytest.raises(ValueError, match="does not say which ids its tokens were drawn from"):
        speak(team, asked, cut, 1, engine=engine)
    assert speak(team, asked, replace(cut, top_k=0), 1, engine=engine)


ONCE = PPOConfig(**{**vars(PPO), "epochs": 1})
TRAINERS: dict[str, tuple[Any, Any, Any]] = {
    "maporl": (maporl, CONFIG, lambda team: PPOLearner(team, ONCE, 10)),
    "magrpo": (
        magrpo,
        MAGRPOConfig(magrpo=MAGRPOSettings(group_size=2)),
        lambda team: PolicyLearner(team, MAGRPOSettings(group_size=2), 10),
    ),
    "iac": (
        iac,
        IACConfig(),
        lambda team: PolicyLearner(team, IACConfig().iac, 10, critic_learning_rate=0.1),
    ),
}


@pytest.mark.parametrize("scheme", TRAINERS)
def test_schemes_train_on_the_truncated_distribution(checkpoint, scheme: str) -> None:
    """Before the first update no ratio moves; the entropy is that of kept sets."""
    module, config, learner_of = TRAINERS[scheme]
    seen = {}
    for cut in (Truncation(), Truncation(top_k=3)):
        learner = learner_of(make_team(checkpoint))
        settings = replace(config, sampling=sampling_of(cut))
        rollouts, metrics = module.train_step(learner, make_debates(), QUESTIONS, settings, seed=1)
        assert metrics["approx_kl"] == pytest.approx(0, abs=1e-9)
        assert metrics["clip_frac"] == 0
        assert all(bool(c.kept) == bool(cut.top_k) for r in rollouts for c in r.completions)
        seen[cut] = metrics["entropy"]
    whole, narrow = seen.values()
    assert 0 < narrow < torch.tensor(3.0).log() + 1e-6 < whole
