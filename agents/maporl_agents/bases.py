"""Language models in memory, and the policies that live on them.

Two ways to hold the policies of a base model, behind one small interface (`Base`):
- `FullBase`: one policy, all its weights trained, or frozen weights that speak for any number.
- `LoraBase`: one frozen base in memory for any number of policies, an adapter each; the reference
  policy is the base with adapters off.

Models always run in eval mode: there is no dropout between sampling and scoring.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from maporl_agents.arguments import working_dtype
from maporl_agents.chat import Chat

WeightPair = tuple[Tensor, Tensor]
"""A weight of a team, and the saved one that belongs into it."""


NO_ADAPTER = "__base__"
"""The name under which peft runs a row through the base alone."""


def temper(logits: Tensor, temperature: float) -> Tensor:
    """Return logits of the sampled distribution; temperature 0 (greedy) leaves them as is.

    In float32, or float64 if the model is. Sampling and scoring both come through here.
    """
    logits = logits.to(working_dtype(logits))
    return logits if temperature in (0, 1) else logits / temperature


class Base(Protocol):
    """One language model in memory and the policies that live on it."""

    model: PreTrainedModel
    chat: Chat
    policies: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def vocab_size(self) -> int:
        """Number of ids that can be sampled: those the tokenizer knows."""

    def hidden(
        self,
        ids: Tensor,
        attention: Tensor,
        positions: Tensor,
        policies: Sequence[str],
        *,
        cache: Cache | None = None,
        reference: bool = False,
    ) -> Tensor:
        """Return the trunk's last hidden states, (N, S, H); row i is read by `policies[i]`."""

    def logits(self, hidden: Tensor, *, reference: bool = False) -> Tensor:
        """Return logits (..., V) of hidden states (..., H), V = `vocab_size`."""

    def trainable(self, policy: str) -> dict[str, nn.Parameter]:
        """Return the parameters that belong to one policy and to no other, by name."""

    def save(self, folder: Path) -> None:
        """Write every policy as a sub-folder that plain transformers or peft loads."""

    def read(self, folder: Path) -> list[WeightPair]:
        """Read what `save` wrote; ValueError names missing, unknown or misshapen weights."""


class FullBase:
    """A base without adapters: one policy whose weights are all trained, or frozen ones.

    Args:
        model: the causal language model; adopted, not copied.
        chat: its border between text and tokens.
        policies: names; exactly one if trained, else any number that speak alike.
        trained: whether the weights are trained. If not, the model is its own reference, has no
            gradient, and nothing of it is saved.
        reference: the frozen model a trained policy is held against, which bases may share; None
            for a copy of `model`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        policies: Sequence[str],
        *,
        trained: bool,
        reference: PreTrainedModel | None = None,
    ) -> None:
        if trained and len(policies) != 1:
            raise ValueError(f"one set of trained weights is one policy, not {list(policies)}")
        self.model = model.eval()
        self.chat = chat
        self.policies = tuple(policies)
        self.trained = trained
        if reference is None:
            reference = copy.deepcopy(model) if trained else model
        self.reference = reference.eval().requires_grad_(False)
        self.model.requires_grad_(trained)
        self._head = Head(model, chat)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def vocab_size(self) -> int:
        """Number of ids that can be sampled."""
        return self._head.vocab_size

    def hidden(
        self,
        ids: Tensor,
        attention: Tensor,
        positions: Tensor,
        policies: Sequence[str],
        *,
        cache: Cache | None = None,
        reference: bool = False,
    ) -> Tensor:
        """Return the trunk's last hidden states, (N, S, H)."""
        trunk = (self.reference if reference else self.model).base_model
        return trunk(
            input_ids=ids,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def logits(self, hidden: Tensor, *, reference: bool = False) -> Tensor:
        """Return logits (..., V) of hidden states (..., H)."""
        return self._head(self.reference if reference else self.model, hidden)

    def trainable(self, policy: str) -> dict[str, nn.Parameter]:
        """Return all weights that have a gradient."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer to ``folder/<policy>``; nothing if it is frozen."""
        if self.trained:
            self.model.save_pretrained(folder / self.policies[0])
            self.chat.tokenizer.save_pretrained(folder / self.policies[0])

    def read(self, folder: Path) -> list[WeightPair]:
        """Read the saved weights; frozen ones have none, nor has the reference policy."""
        if not self.trained:
            return []
        own = dict(self.model.named_parameters())
        place = folder / self.policies[0]
        return pair(own, _read_shards(place), place)


class LoraBase:
    """A frozen base shared by any number of policies, each a LoRA adapter of its own.

    Rows of different policies run in one batch (peft's per-row adapters). Adapters are addressed by
    exact name, never by substring, so "agent_1" and "agent_10" do not meet.

    Args:
        model: the causal language model; frozen and wrapped in place.
        chat: its border between text and tokens.
        policies: names of the trained ones, one adapter each; at least one.
        lora: rank, alpha, targets.
        frozen: names of policies that speak as the reference policy: they need no weights.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        policies: Sequence[str],
        lora: LoraConfig,
        *,
        frozen: Sequence[str] = (),
    ) -> None:
        self.model = model.eval()
        self.chat = chat
        self.trained = tuple(policies)
        self.policies = (*policies, *frozen)
        self._head = Head(model, chat)
        self.peft = get_peft_model(model, lora, adapter_name=self.trained[0])
        for policy in self.trained[1:]:
            self.peft.add_adapter(policy, lora)
        self.peft.eval()
        self.peft.set_requires_grad(list(self.trained), True)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def vocab_size(self) -> int:
        """Number of ids that can be sampled."""
        return self._head.vocab_size

    def hidden(
        self,
        ids: Tensor,
        attention: Tensor,
        positions: Tensor,
        policies: Sequence[str],
        *,
        cache: Cache | None = None,
        reference: bool = False,
    ) -> Tensor:
        """Return the trunk's last hidden states, (N, S, H)."""
        names = [p if p in self.trained and not reference else NO_ADAPTER for p in policies]
        with _output_of(self.model.base_model) as output:
            self.peft(
                input_ids=ids,
                attention_mask=attention,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=1,
                adapter_names=names,
            )
        return output["value"].last_hidden_state

    def logits(self, hidden: Tensor, *, reference: bool = False) -> Tensor:
        """Return logits (..., V) of hidden states (..., H); the head has no adapter."""
        return self._head(self.model, hidden)

    def trainable(self, policy: str) -> dict[str, nn.Parameter]:
        """Return the parameters of one adapter, matched by exact name; none of a frozen policy."""
        if policy not in self.trained:
            return {}
        return {name: p for name, p in self.peft.named_parameters() if policy in name.split(".")}

    def save(self, folder: Path) -> None:
        """Write each adapter to ``folder/<policy>`` in peft's own format."""
        for policy in self.trained:
            (folder / policy).mkdir(parents=True, exist_ok=True)
            weights = get_peft_model_state_dict(self.peft, adapter_name=policy)
            save_file(
                {name: weight.contiguous() for name, weight in weights.items()},
                folder / policy / "adapter_model.safetensors",
                metadata={"format": "pt"},
            )
            self.peft.peft_config[policy].save_pretrained(str(folder / policy))
            self.chat.tokenizer.save_pretrained(folder / policy)

    def read(self, folder: Path) -> list[WeightPair]:
        """Read the saved adapters."""
        pairs: list[WeightPair] = []
        for policy in self.trained:
            own = get_peft_model_state_dict(self.peft, adapter_name=policy)
            pairs += pair(own, _read_shards(folder / policy), folder / policy)
        return pairs


def _read_shards(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of the safetensors files in a folder."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} holds no *.safetensors file, so there are no weights to load")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def pair(own: Mapping[str, Tensor], given: Mapping[str, Tensor], where: Path) -> list[WeightPair]:
    """Match weights by name and shape; ValueError names what does not fit."""
    if own.keys() != given.keys():
        missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
        raise ValueError(f"{where} does not fit the model: missing {missing}, unknown {unknown}")
    for name, weight in own.items():
        if weight.shape != given[name].shape:
            raise ValueError(
                f"{where}: {name} has shape {tuple(given[name].shape)}, "
                f"the model wants {tuple(weight.shape)}"
            )
    return [(weight, given[name]) for name, weight in own.items()]


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
        self.vocab_size = len(chat.tokenizer)
        if self.vocab_size > config.vocab_size:
            raise ValueError(
                f"the tokenizer of {chat.tokenizer.name_or_path!r} knows {self.vocab_size} tokens, "
                f"its model only {config.vocab_size}: save the model after "
                "model.resize_token_embeddings(len(tokenizer))"
            )
        self._probe(model)

    def __call__(self, model: PreTrainedModel, hidden: Tensor) -> Tensor:
        """Return logits (..., V), without the ids that the tokenizer does not know."""
        logits = model.get_output_embeddings()(hidden)[..., : self.vocab_size]
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    @torch.no_grad()
    def _probe(self, model: PreTrainedModel) -> None:
        ids = torch.arange(4, device=model.device)[None] % self.vocab_size
        hidden = model.base_model(input_ids=ids).last_hidden_state
        expected = model(input_ids=ids).logits[..., : self.vocab_size]
        if not torch.allclose(self(model, hidden), expected, rtol=1e-2, atol=1e-2):
            raise ValueError(
                f"{type(model).__name__} changes its logits after the output head in a way this "
                "package does not know; please report the architecture"
            )


@contextmanager
def _output_of(module: nn.Module) -> Iterator[dict[str, Any]]:
    """Catch what `module` returns during the block."""
    caught: dict[str, Any] = {}
    handle = module.register_forward_hook(lambda _m, _a, out: caught.update(value=out))
    try:
        yield caught
    finally:
        handle.remove()
