"""From a trunk's hidden states to logits, and to the distribution that is sampled."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from maporl_agents.arguments import working_dtype
from maporl_agents.chat import Chat


def temper(logits: Tensor, temperature: float) -> Tensor:
    """Return logits of the sampled distribution; temperature 0 (greedy) leaves them as is.

    In float32, or float64 if the model is. Sampling and scoring both come through here.
    """
    logits = logits.to(working_dtype(logits))
    return logits if temperature in (0, 1) else logits / temperature


def require_embeddings(tokenizer: PreTrainedTokenizerBase, architecture: PreTrainedConfig) -> None:
    """Check that a model has an embedding for every id of its tokenizer.

    Raises:
        ValueError: the tokenizer knows more.
    """
    has = architecture.get_text_config().vocab_size
    if len(tokenizer) > has:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path!r} knows {len(tokenizer)} tokens, "
            f"its model only {has}: save the model after "
            "model.resize_token_embeddings(len(tokenizer))"
        )


class Head:
    """The map from trunk states to logits, applied only where it is needed.

    Some families transform logits after the linear head (soft-capping, scaling). Rather than know
    them all, a probe at construction compares this shortcut with the model's own logits.

    Raises:
        ValueError: the model's logits are not its head applied to its trunk, or the tokenizer has
            ids that the model has no embedding for.
    """

    def __init__(self, model: PreTrainedModel, chat: Chat) -> None:
        config = model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        require_embeddings(chat.tokenizer, model.config)
        self.vocab_size = len(chat.tokenizer)
        if model.device.type != "meta":  # weights without content: a plan
            self._probe(model)

    def __call__(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """Return logits (..., V), without the ids that the tokenizer does not know."""
        logits = model.get_output_embeddings()(hidden)[..., : self.vocab_size].to(hidden.device)
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    @torch.no_grad()
    def _probe(self, model: PreTrainedModel) -> None:
        ids = torch.arange(4, device=model.device)[None] % self.vocab_size
        hidden = model.base_model(input_ids=ids).last_hidden_state
        expected = model(input_ids=ids).logits[..., : self.vocab_size]
        if not torch.allclose(
            self(model, hidden).to(expected.device), expected, rtol=1e-2, atol=1e-2
        ):
            raise ValueError(
                f"{type(model).__name__} changes its logits after the output head in a way this "
                "package does not know; please report the architecture"
            )
