"""Trains a verifier: binary cross-entropy on every token of every answer (Park et al.)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from maporl_agents.seeding import seed_of
from maporl_agents.update.finite_checks import require_finite
from maporl_agents.verifier.config import FitConfig
from maporl_agents.verifier.data import Example
from maporl_agents.verifier.model import LearnedVerifier, Row


@dataclass(frozen=True, slots=True)
class Fit:
    """The record of a training.

    Attributes:
        losses: mean token loss of every step.
        examples: answers that were trained on.
        too_long: answers left out because they do not fit the model's window.
    """

    losses: tuple[float, ...]
    examples: int
    too_long: int


def token_loss(logits: Tensor, mask: Tensor, right: Tensor) -> Tensor:
    """Return the sum over response tokens of -y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)).

    Args:
        logits: z, (N, S).
        mask: (N, S), True on response tokens; what stands elsewhere, NaN included, never matters.
        right: y, (N,) booleans; every token of an answer has the answer's label.
    """
    labels = right[:, None].expand_as(logits)
    return binary_cross_entropy_with_logits(
        logits[mask], labels[mask].to(logits.dtype), reduction="sum"
    )


def fit(
    verifier: LearnedVerifier,
    examples: Sequence[Example],
    config: FitConfig,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Fit:
    """Train a verifier in place on labelled answers.

    Raises:
        ValueError: no answer fits the model's window, or all have the same label.
        FloatingPointError: the loss or its gradient is not finite, and the weights are those of the
            step before; or a weight is not finite after a step.
    """
    rows = [(verifier.row(e.question, e.response), e.right) for e in examples]
    fitting = [(row, right) for row, right in rows if verifier.fits(row)]
    if len({right for _, right in fitting}) < 2:
        raise ValueError(
            f"{len(fitting)} answers to train on, not both right and wrong ones: sample more, or "
            "at another temperature"
        )
    parameters = verifier.trainable()
    head = [p for name, p in parameters.items() if name.startswith("head.")]
    body = [p for name, p in parameters.items() if not name.startswith("head.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": body, "lr": config.learning_rate},
            {"params": head, "lr": config.head_learning_rate},
        ],
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, config.steps)
    )
    losses = []
    batches = deal(len(fitting), config)
    for step in range(config.steps):
        chosen = [fitting[i] for i in next(batches)]
        losses.append(accumulate(verifier, chosen, config.rows_at_once))
        norm = float(nn.utils.clip_grad_norm_([*body, *head], config.max_grad_norm))
        for name, value in (("loss", losses[-1]), ("gradient's norm", norm)):
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the {name} became {value} in step {step + 1}: lower the learning rate"
                )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        require_finite({"the verifier": [*body, *head]})
        verifier.base.refresh()
        schedule.step()
        on_step(step + 1, losses[-1])
    return Fit(tuple(losses), len(fitting), len(rows) - len(fitting))


def accumulate(
    verifier: LearnedVerifier, rows: Sequence[tuple[Row, bool]], rows_at_once: int
) -> float:
    """Add up the gradient of the mean token loss of some answers; return that loss.

    The mean is over the tokens of all these answers, so the size of the parts changes nothing.
    """
    num_tokens = sum(len(row.response) for row, _ in rows)
    total = 0.0
    for start in range(0, len(rows), rows_at_once):
        part = rows[start : start + rows_at_once]
        logits, mask = verifier.logits([row for row, _ in part])
        right = torch.tensor([right for _, right in part], device=logits.device)
        loss = token_loss(logits, mask, right) / num_tokens
        loss.backward()
        total += float(loss.detach())
    return total


def deal(count: int, config: FitConfig) -> Iterator[list[int]]:
    """Yield the answers of each step, for ever: every pass over them in a new random order."""
    rng = random.Random(seed_of(config.seed, "verifier batches"))
    waiting: list[int] = []
    while True:
        while len(waiting) < config.rows_per_step:
            waiting += rng.sample(range(count), count)
        yield waiting[: config.rows_per_step]
        del waiting[: config.rows_per_step]


def rate_factor(step: int, steps: int) -> float:
    """Return the fraction of the peak rate: linear warm-up over 5 %, then linear to 0."""
    warm = max(round(0.05 * steps), 1)
    return min((step + 1) / warm, (steps - step) / max(steps - warm, 1), 1.0)
