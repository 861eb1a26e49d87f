"""Training a verifier: the loss, its mask, steps, seeds, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from miniatures import Checkpoint
from torch import Tensor
from verifier_cases import QUESTION, TEXTS, TUNINGS, make, scores, stir

from maporl_agents.verifier.config import FitConfig, VerifierConfig
from maporl_agents.verifier.data import Example
from maporl_agents.verifier.model import LearnedVerifier
from maporl_agents.verifier.training import accumulate, deal, fit, rate_factor, token_loss

# --- Training --------------------------------------------------------------------


def test_token_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, math.nan], [math.nan, math.nan, -1.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, True]])
    loss = token_loss(logits, mask, torch.tensor([True, False]))
    # log(1 + e^0) + log(1 + e^-2) for the right answer, log(1 + e^-1) for the wrong one
    expected = math.log(2) + math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    # dL/dz = sigmoid(z) - y, and nothing where no token stands
    gradient = [[-0.5, 1 / (1 + math.exp(-2)) - 1, 0], [0, 0, 1 / (1 + math.exp(1))]]
    torch.testing.assert_close(logits.grad, torch.tensor(gradient))


def test_the_loss_is_on_the_response_tokens_alone(checkpoint: Checkpoint) -> None:
    verifier = make(checkpoint("llama"))
    rows = [verifier.row(QUESTION, text) for text in TEXTS]
    _, mask = verifier.logits(rows)
    for i, row in enumerate(rows):
        places = list(range(len(row.prompt), len(row.prompt) + len(row.response)))
        assert mask[i].nonzero()[:, 0].tolist() == places


@pytest.mark.parametrize("tuning", TUNINGS)
def test_how_a_batch_is_cut_changes_nothing(checkpoint: Checkpoint, tuning: str) -> None:
    gradients = []
    for rows_at_once in (1, 3, 4):
        verifier = make(checkpoint("llama"), tuning)
        stir(verifier)
        rows = [(verifier.row(QUESTION, text), "4" in text) for text in TEXTS]
        accumulate(verifier, rows, rows_at_once)
        gradients.append({n: p.grad for n, p in verifier.trainable().items() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        for other in gradients[1:]:
            torch.testing.assert_close(gradient, other[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("tuning", TUNINGS)
def test_a_step_moves_what_is_trained_and_nothing_else(checkpoint: Checkpoint, tuning: str) -> None:
    verifier = make(checkpoint("llama"), tuning)
    stir(verifier)
    trained = verifier.trainable()
    model = dict(verifier.base.model.named_parameters())
    frozen = {n: p for n, p in model.items() if not p.requires_grad}
    before = {n: p.detach().clone() for n, p in [*trained.items(), *frozen.items()]}
    examples = [Example(QUESTION, text, "4" in text) for text in TEXTS]
    fit(verifier, examples, FitConfig(steps=1, rows_per_step=4))
    assert {"head.weight", "head.bias"} < trained.keys()
    unused = {n for n in trained if "lm_head" in n}
    still = {n for n, p in trained.items() if torch.equal(p, before[n])}
    assert still <= unused
    assert all(torch.equal(p, before[n]) for n, p in frozen.items())
    assert bool(frozen) == (tuning == "lora")


def test_training_and_scoring_see_the_same_ids(checkpoint: Checkpoint) -> None:
    verifier = make(checkpoint("llama", templated=True))
    seen: list[set[tuple[int, ...]]] = []
    plain = verifier.base.hidden

    def watch(ids: Tensor, attention: Tensor, *args: Any, **options: Any) -> Tensor:
        lengths = attention.sum(1).tolist()
        rows = zip(ids.tolist(), lengths, strict=True)
        seen.append({tuple(row[:length]) for row, length in rows})
        return plain(ids, attention, *args, **options)

    verifier.base.hidden = watch  # type: ignore[method-assign]
    texts = [*TEXTS, "<|im_end|> \ud800"]
    fit(verifier, [Example(QUESTION, t, "4" in t) for t in texts], FitConfig(1, rows_per_step=5))
    verifier.score([QUESTION] * 5, texts)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 5


def test_every_pass_deals_every_answer_once() -> None:
    config = FitConfig(rows_per_step=4, seed=3)
    batches = deal(6, config)
    dealt = [i for _ in range(3) for i in next(batches)]
    assert sorted(dealt[:6]) == sorted(dealt[6:]) == list(range(6))
    assert [next(deal(6, config)) for _ in range(2)] == [dealt[:4]] * 2


def test_the_rate_rises_and_falls() -> None:
    # 5 % of 100 steps are 5; then (100 - step) / 95
    rates = [rate_factor(step, 100) for step in range(100)]
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rates[5] == 1.0
    assert rates[99] == pytest.approx(1 / 95)
    assert all(rate > 0 for steps in (1, 2, 3) for rate in [rate_factor(0, steps)])


def test_equal_seeds_give_equal_verifiers(checkpoint: Checkpoint) -> None:
    examples = [Example(QUESTION, text, "4" in text) for text in TEXTS]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    made = []
    for seed in (0, 0, 1):
        verifier = LearnedVerifier(
            VerifierConfig(str(checkpoint("llama")), device="cpu"), seed=seed
        )
        losses = fit(verifier, examples, FitConfig(steps=3, rows_per_step=2, seed=seed)).losses
        made.append((losses, scores(verifier)))
    assert made[0] == made[1] != made[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_one_sided_or_oversized_data_is_refused(checkpoint: Checkpoint) -> None:
    verifier = make(checkpoint("llama"))
    long = Example(QUESTION, "\x01" * 3000, False)
    right = Example(QUESTION, "a", True)
    with pytest.raises(ValueError, match="1 answers to train on, not both right and wrong"):
        fit(verifier, [right, long], FitConfig(steps=1))
    wrong = Example(QUESTION, "b", False)
    result = fit(verifier, [right, wrong, long], FitConfig(steps=1, rows_per_step=2))
    assert (result.examples, result.too_long) == (2, 1)


def test_a_loss_that_is_not_finite_stops_before_the_weights(checkpoint: Checkpoint) -> None:
    verifier = make(checkpoint("llama"))
    with torch.no_grad():
        verifier.head.bias.fill_(math.inf)
    before = {n: p.detach().clone() for n, p in verifier.trainable().items()}
    examples = [Example(QUESTION, "a", True), Example(QUESTION, "b", False)]
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit(verifier, examples, FitConfig(steps=1, rows_per_step=2))
    for name, parameter in verifier.trainable().items():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_stops_before_the_weights(checkpoint: Checkpoint) -> None:
    """The loss is finite; a gradient overflows on its way back, as in float16."""
    verifier = make(checkpoint("llama"), "full")
    stir(verifier)
    verifier.trainable()["head.weight"].register_hook(lambda gradient: gradient * math.inf)
    before = {n: p.detach().clone() for n, p in verifier.trainable().items()}
    examples = [Example(QUESTION, "a", True), Example(QUESTION, "b", False)]
    with pytest.raises(FloatingPointError, match=r"gradient's norm became (inf|nan) in step 1"):
        fit(verifier, examples, FitConfig(steps=1, rows_per_step=2))
    for name, parameter in verifier.trainable().items():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0)
