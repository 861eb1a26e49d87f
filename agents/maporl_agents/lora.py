"""Any number of policies on one frozen language model, a LoRA adapter each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from maporl_agents.chat import Chat
from maporl_agents.heads import Head
from maporl_agents.recompute import enable_recompute, recomputing
from maporl_agents.weights import WeightPair, pair, read_shards

NO_ADAPTER = "__base__"
"""The name under which peft runs a row through the base alone."""


class LoraBase:
    """A frozen base shared by any number of policies, each a LoRA adapter of its own.

    Rows of different policies run in one batch (peft's per-row adapters). Adapters are addressed by
    exact name, never by substring, so "agent_1" and "agent_10" do not meet. The reference policy is
    the base with adapters off, or the frozen adapter that a policy began as.

    Args:
        model: the causal language model; frozen and wrapped in place.
        chat: its border between text and tokens.
        policies: names of the trained ones, one adapter each.
        lora: rank, alpha, targets of adapters that begin as the base.
        frozen: names of policies that speak as the reference policy: they need no weights.
        critics: names of critics with an adapter of their own.
        starts: policy, trained or frozen -> folder of the adapter it begins as, in peft's format;
            its rank and scale are kept. The others begin as the base.
        gradient_checkpointing: recompute activations in the backward pass instead of keeping them.

    Raises:
        ValueError: an adapter to begin from cannot be read or does not fit the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        policies: Sequence[str],
        lora: LoraConfig,
        *,
        frozen: Sequence[str] = (),
        critics: Sequence[str] = (),
        starts: Mapping[str, Path] | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.model = model.eval()
        self.chat = chat
        self.trained = tuple(policies)
        self.critics = tuple(critics)
        self.policies = (*policies, *frozen)
        self._head = Head(model, chat)
        starts = starts or {}
        folders = {folder: f"start_{i}" for i, folder in enumerate(dict.fromkeys(starts.values()))}
        begun = {policy: folders[folder] for policy, folder in starts.items()}
        self._references = {policy: begun.get(policy, NO_ADAPTER) for policy in self.policies}
        own = {name: name for name in (*self.trained, *self.critics)}
        self._adapters = self._references | own
        origins = {policy: starts.get(policy) for policy in own}
        origins |= {adapter: folder for folder, adapter in folders.items()}
        self.peft = _with_adapters(
            model, {name: _config(folder) if folder else lora for name, folder in origins.items()}
        )
        self._begin({name: folder for name, folder in origins.items() if folder})
        self.peft.eval()
        self.peft.requires_grad_(False)
        self.peft.set_requires_grad(list(own), True)
        self._route = _Route()
        for layer in self.peft.modules():
            if isinstance(layer, LoraLayer):
                layer.register_forward_pre_hook(self._route, with_kwargs=True)
        if gradient_checkpointing:
            enable_recompute(model, context_fn=self._route.again)

    @torch.no_grad()
    def _begin(self, origins: Mapping[str, Path]) -> None:
        """Copy saved weights into adapters."""
        for name, folder in origins.items():
            own = get_peft_model_state_dict(self.peft, adapter_name=name)
            for weight, saved in pair(own, read_shards(folder), folder):
                weight.copy_(saved)

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
        adapters = self._references if reference else self._adapters
        names = [adapters[policy] for policy in policies]
        with self._route.through(names), recomputing(self.model):
            return self.model.base_model(
                input_ids=ids,
                attention_mask=attention,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
            ).last_hidden_state.to(ids.device)

    def logits(self, hidden: Tensor, *, reference: bool = False) -> Tensor:
        """Return logits (..., V) of hidden states (..., H); the head has no adapter."""
        return self._head(self.model, hidden)

    def trainable(self, policy: str) -> dict[str, nn.Parameter]:
        """Return the parameters of one adapter, matched by exact name; none of a frozen policy."""
        if policy not in (*self.trained, *self.critics):
            return {}
        return {name: p for name, p in self.peft.named_parameters() if policy in name.split(".")}

    def save(self, folder: Path, *, critics: bool = False) -> None:
        """Write each trained adapter to ``folder/<name>`` in peft's own format."""
        for name in self.critics if critics else self.trained:
            (folder / name).mkdir(parents=True, exist_ok=True)
            weights = get_peft_model_state_dict(self.peft, adapter_name=name)
            save_file(
                {key: weight.contiguous() for key, weight in weights.items()},
                folder / name / "adapter_model.safetensors",
                metadata={"format": "pt"},
            )
            self.peft.peft_config[name].save_pretrained(str(folder / name))
            self.chat.tokenizer.save_pretrained(folder / name)

    def read(self, folder: Path, *, critics: bool = False) -> list[WeightPair]:
        """Read the saved adapters."""
        pairs: list[WeightPair] = []
        for name in self.critics if critics else self.trained:
            own = get_peft_model_state_dict(self.peft, adapter_name=name)
            pairs += pair(own, read_shards(folder / name), folder / name)
        return pairs


def _with_adapters(model: PreTrainedModel, configs: Mapping[str, LoraConfig]) -> Any:
    """Return the model wrapped in place, with an adapter of each name."""
    (first, config), *others = configs.items()
    wrapped = get_peft_model(model, config, adapter_name=first)
    for name, config in others:
        wrapped.add_adapter(name, config)
    return wrapped


def _config(folder: Path) -> LoraConfig:
    """Read the settings of a saved adapter."""
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"cannot read the adapter {str(folder)!r}: {error}") from error
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{folder} is no LoRA adapter but one of type {config.peft_type}")
    config.inference_mode = False
    return config


class _Route:
    """Which adapter reads each row; peft's layers are told as they are called.

    peft's own way to say it ends with the forward pass, but a layer that is recomputed in the
    backward pass has to hear it again.
    """

    def __init__(self) -> None:
        self.names: list[str] | None = None

    def __call__(self, _layer: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        """Add the names to a layer's arguments: a forward pre-hook."""
        return args, options if self.names is None else options | {"adapter_names": self.names}

    @contextmanager
    def through(self, names: list[str] | None) -> Iterator[None]:
        """Run what is inside by these adapters, row by row."""
        before, self.names = self.names, names
        try:
            yield
        finally:
            self.names = before

    def again(self) -> tuple[Any, Any]:
        """Return the contexts of a layer's first run and of its second, which repeats the first."""
        return nullcontext(), self.through(self.names)
