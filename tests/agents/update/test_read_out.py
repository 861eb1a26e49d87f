"""The head in chunks: equal to all tokens at once, in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maporl_agents.losses import full_kl
from maporl_agents.models.lm_head import chunks
from maporl_agents.update import read_out as module
from maporl_agents.update.read_out import read_out, read_out_kl


class Head:
    """A linear head, and another one for the reference policy."""

    def __init__(self, width: int, vocabulary: int, **options: Any) -> None:
        self.vocab_size = vocabulary
        if options.get("device") == "meta":
            self.weights = [torch.empty(vocabulary, width, **options) for _ in range(2)]
        else:
            generator = torch.Generator().manual_seed(1)
            self.weights = [
                torch.randn(vocabulary, width, generator=generator, **options) for _ in range(2)
            ]
        self.weights[0].requires_grad_()

    def logits(self, hidden: Tensor, *, reference: bool = False) -> Tensor:
        return hidden @ self.weights[reference].T


def plainly(head: Head, states: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies by the textbook, all tokens at once."""
    distribution = (head.logits(states) / temperature).log_softmax(-1)
    entropy = -(distribution.exp() * distribution).sum(-1)
    return distribution[torch.arange(len(ids)), ids], entropy


def drawn(tokens: int, head: Head) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(tokens, head.weights[0].shape[1], generator=generator).double()
    return states.requires_grad_(), torch.randint(head.vocab_size, (tokens,), generator=generator)


@pytest.mark.parametrize("block", [1, 21 * 3, 10**9])
@pytest.mark.parametrize("chunk", [1, 50, 21 * 4, 10**9])
@pytest.mark.parametrize("train_entropy", [False, True])
def test_chunks_and_blocks_equal_the_whole(
    monkeypatch: pytest.MonkeyPatch, chunk: int, block: int, train_entropy: bool
) -> None:
    """Values and gradients, of the states and of the head, in float64."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    monkeypatch.setattr(module, "BLOCK", block)
    head = Head(5, 21, dtype=torch.float64)
    states, ids = drawn(11, head)
    weights = torch.linspace(-1, 2, 11, dtype=torch.float64)
    inputs = [states, head.weights[0]]
    expected = plainly(head, states, ids, 0.7)
    found = read_out(
        head,  # type: ignore[arg-type]
        states,
        ids,
        0.7,
        with_entropy=True,
        train_entropy=train_entropy,
    )
    for mine, hand in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, hand, atol=1e-12, rtol=1e-12)
    gradients = []
    for logprobs, entropy in (expected, found):
        loss = (weights * logprobs).sum()
        loss = loss + (weights.flip(0) * entropy).sum() if train_entropy else loss
        gradients.append(torch.autograd.grad(loss, inputs))
    for hand, mine in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, hand, atol=1e-12, rtol=1e-12)
    assert found[1].requires_grad == train_entropy


@pytest.mark.parametrize("most", [1, 7, 10, 21, 50, 1000])
@pytest.mark.parametrize("vocabulary", [1, 3, 7, 21])
def test_no_chunk_is_larger_than_asked(vocabulary: int, most: int) -> None:
    """Each holds at most `most` logits, or one row; together they are all rows, in order."""
    for tokens in range(1, 30):
        rows = [range(tokens)[piece] for piece in chunks(tokens, vocabulary, most)]
        assert [row for piece in rows for row in piece] == list(range(tokens))
        assert all(piece for piece in rows)
        assert all(len(piece) == 1 or len(piece) * vocabulary <= most for piece in rows)


def test_entropies_are_zeros_unless_asked_for() -> None:
    head = Head(5, 21, dtype=torch.float64)
    states, ids = drawn(3, head)
    _, entropy = read_out(head, states, ids, 1.0)  # type: ignore[arg-type]
    assert entropy.tolist() == [0, 0, 0]


@pytest.mark.parametrize("chunk", [1, 21 * 4, 10**9])
def test_the_exact_kl_in_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    head = Head(5, 21, dtype=torch.float64)
    states, _ = drawn(11, head)
    other = states.flip(0)
    expected = full_kl(head.logits(states) / 0.7, head.logits(other, reference=True) / 0.7)
    found = read_out_kl(head, states, other, 0.7)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_no_tokens() -> None:
    head = Head(5, 21, dtype=torch.float64)
    states, ids = drawn(0, head)
    logprobs, entropy = read_out(head, states, ids, 1.0)  # type: ignore[arg-type]
    assert len(logprobs) == len(entropy) == len(read_out_kl(head, states, states, 1.0)) == 0  # type: ignore[arg-type]


class LargestTensor(TorchDispatchMode):
    """Remembers the most numbers in a tensor that was made inside, of those that no one gave."""

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.given = {tensor.shape for tensor in given}
        self.numbers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.shape not in self.given]
        self.numbers = max([self.numbers, *(x.numel() for x in made)])
        return out


@pytest.mark.parametrize("tokens", [2_000, 20_000])
def test_a_large_vocabulary_takes_no_more_however_many_tokens(tokens: int) -> None:
    """Forward and backward at 152,064 words, by shapes alone."""
    head = Head(8, 152_064, device="meta")
    states = torch.empty(tokens, 8, device="meta", requires_grad=True)
    ids = torch.empty(tokens, dtype=torch.long, device="meta")
    weight = head.weights[0]
    with LargestTensor(weight, weight.T, states) as largest:
        logprobs, _ = read_out(head, states, ids, 0.7, with_entropy=True)  # type: ignore[arg-type]
        logprobs.sum().backward()
        assert len(read_out_kl(head, states.detach(), states.detach(), 0.7)) == tokens  # type: ignore[arg-type]
    assert module.CHUNK // 2 < largest.numbers <= module.CHUNK
