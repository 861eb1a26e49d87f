"""The output head: from hidden states to logits, and logits at the sampling temperature."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from maporl_agents.models.truncation import NEVER
from maporl_agents.models.trunk import ANOTHER_MODEL, failing_as, trunk_of
from maporl_agents.tensor_checks import working_dtype
from maporl_agents.text.chat import Chat


def temper(logits: Tensor, temperature: float) -> Tensor:
    """Return logits of the sampled distribution; temperature 0 (greedy) leaves them as is.

    In float32, or float64 if the model is. Sampling and training both use this function.
    """
    logits = logits.to(working_dtype(logits))
    return logits if temperature in (0, 1) else logits / temperature


def chunks(tokens: int, vocabulary: int, most: int) -> Iterator[slice]:
    """Yield slices of about equal length that cover `tokens` rows; at least one slice.

    The logits of a slice are at most `most`, or those of a single row where V is more than `most`.
    """
    count = -(-max(tokens, 1) // max(1, most // vocabulary))
    size = -(-max(tokens, 1) // count)
    for start in range(0, max(tokens, 1), size):
        yield slice(start, start + size)


class Head:
    """The map from trunk states to logits, applied only where it is needed.

    Some families transform logits after the linear head; soft-capping and scaling are done here. At
    construction a probe compares the result with the model's own logits, which finds any other
    transformation.

    Raises:
        ValueError: the model's logits are not its head applied to its trunk.
    """

    def __init__(self, model: PreTrainedModel, chat: Chat) -> None:
        config = model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.scale = _scale_of(config)
        self.vocab_size = chat.vocabulary.size
        self._gaps = torch.tensor(chat.vocabulary.gaps, dtype=torch.long)
        if model.device.type != "meta":  # weights without content: a plan
            self._probe(model)

    def __call__(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """Return logits (..., V); ids that the tokenizer does not know are never drawn."""
        logits = model.get_output_embeddings()(hidden)[..., : self.vocab_size].to(hidden.device)
        if self.scale is not None:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return self._without_gaps(logits)

    def known(self, logits: Tensor) -> Tensor:
        """Return the part of a model's own logits that can be sampled, (..., V)."""
        return self._without_gaps(logits[..., : self.vocab_size])

    def _without_gaps(self, logits: Tensor) -> Tensor:
        if not len(self._gaps):
            return logits
        least = max(torch.finfo(logits.dtype).min, NEVER)
        return logits.index_fill(-1, self._gaps.to(logits.device), least)

    @torch.no_grad()
    def _probe(self, model: PreTrainedModel) -> None:
        ids = torch.arange(4, device=model.device)[None] % self.vocab_size
        trunk = trunk_of(model)
        failure = (
            f"{type(model).__name__} cannot read a text of four tokens as a causal language model "
            "does"
        )
        with failing_as(failure, ANOTHER_MODEL):
            expected = self.known(model(input_ids=ids).logits)
            found = self(model, trunk(input_ids=ids).last_hidden_state).to(expected.device)
            same = torch.allclose(found, expected, rtol=1e-2, atol=1e-2)
        if not same:
            raise ValueError(
                f"{type(model).__name__} changes its logits after the output head in a way this "
                f"package does not know: {ANOTHER_MODEL}"
            )


def _scale_of(config: PreTrainedConfig) -> float | None:
    """Return the factor of a model's logits (Cohere, Granite); None if it has none."""
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        return 1 / float(divisor)
    factor = getattr(config, "logit_scale", None)
    return None if factor is None else float(factor)
