"""LoRA: several policies on one frozen base model, an adapter each, run in one batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from maporl_agents.models.adapter_config import adapter_config
from maporl_agents.models.bases import Base
from maporl_agents.models.gradient_checkpointing import enable_recompute, without_notice
from maporl_agents.models.grouped_adapters import AdapterRoute, grouped_linears
from maporl_agents.models.grouped_products import RowRuns
from maporl_agents.models.lean_trunk import TrunkReader
from maporl_agents.models.lm_head import Head
from maporl_agents.models.packed_texts import PackedTexts
from maporl_agents.models.reference_policy import NO_ADAPTER, reference_adapters
from maporl_agents.models.sources.weight_files import WeightPair, pair, read_shards
from maporl_agents.text.chat import Chat
from maporl_agents.text.tokenizer_files import first_line


class LoraBase(Base):
    """A frozen base shared by any number of policies, each a LoRA adapter of its own.

    Rows of different policies run in one batch (`grouped_adapters`). Adapters are addressed by
    exact name, never by substring, so "agent_1" and "agent_10" do not meet. The reference policy is
    the base with adapters off, or the frozen adapter that a policy began as (`reference_policy`).

    Args:
        model: the causal language model; frozen and wrapped in place.
        chat: its border between text and tokens.
        policies: names of the trained ones, one adapter each.
        lora: rank, alpha and targets of the adapters that begin as the base.
        frozen: names of policies that equal the reference policy and need no adapter.
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
        self._references, frozen_starts = reference_adapters(self.policies, starts)
        own = {name: name for name in (*self.trained, *self.critics)}
        self._adapters = self._references | own
        origins = {policy: starts.get(policy) for policy in own}
        origins |= frozen_starts
        lora = _inner_layers(lora, model)
        self.peft = _with_adapters(
            model,
            {name: adapter_config(folder) if folder else lora for name, folder in origins.items()},
        )
        _require_inner_layers(model)
        self._begin({name: folder for name, folder in origins.items() if folder})
        self.peft.eval()
        self._train_own()
        self.readers = (TrunkReader(model, grouped_linears),)
        self._route = AdapterRoute(self.peft)
        self._route.lay_out_for_few_rows()
        if gradient_checkpointing:
            enable_recompute(model, context_fn=self._route.again)

    @torch.no_grad()
    def _begin(self, origins: Mapping[str, Path]) -> None:
        """Copy the weights of saved adapters into the adapters that start from them."""
        for name, folder in origins.items():
            own = self.adapter_weights(name)
            for weight, saved in pair(own, read_shards(folder), folder):
                weight.copy_(saved)

    def _train_own(self) -> None:
        """Require gradients of the trained adapters alone."""
        self.peft.requires_grad_(False)
        self.peft.set_requires_grad([*self.trained, *self.critics], True)

    @contextmanager
    def _reading(
        self, policies: Sequence[str], width: int, *, reference: bool
    ) -> Iterator[TrunkReader]:
        adapters = self._references if reference else self._adapters
        groups = self._route.grouped([adapters[policy] for policy in policies], width)
        with self._route.through(groups):
            yield self.readers[0]

    @contextmanager
    def _reading_packed(self, texts: PackedTexts, *, reference: bool) -> Iterator[TrunkReader]:
        runs = [
            (owner if reference else self._adapters[owner], ids, asked)
            for owner, ids, asked in texts.runs
        ]
        with self._route.through(RowRuns(runs)):
            yield self.readers[0]

    def weights_of(self, policy: str) -> str:
        """Return the name of a policy's adapter."""
        return self._adapters[policy]

    def weights_of_reference(self, policy: str) -> str:
        """Return the name of the adapter that a policy began as."""
        return self._references[policy]

    def logits(self, hidden: Tensor, *, reference: bool = False) -> Tensor:
        """Return logits (..., V) of hidden states (..., H); the head has no adapter."""
        return self._head(self.model, hidden)

    def plain_logits(self, ids: Tensor, policy: str, *, reference: bool = False) -> Tensor:
        """Return logits (S, V) after each of S ids, by peft with that adapter alone."""
        adapter = (self._references if reference else self._adapters)[policy]
        return self.logits_of(ids, None if adapter == NO_ADAPTER else adapter)

    def adapter_of(self, policy: str) -> str | None:
        """Return the name of a policy's adapter; None for the bare base."""
        adapter = self._adapters[policy]
        return None if adapter == NO_ADAPTER else adapter

    def logits_of(self, ids: Tensor, adapter: str | None) -> Tensor:
        """Return logits (S, V) after each of S ids, by peft with one adapter or none."""
        before = self.peft.active_adapter
        try:
            if adapter is None:
                with self.peft.disable_adapter():
                    return self._head.known(self.model(input_ids=ids[None]).logits[0])
            self.peft.set_adapter(adapter)
            return self._head.known(self.model(input_ids=ids[None]).logits[0])
        finally:
            self.peft.set_adapter(before)
            self._train_own()

    def trainable(self, policy: str) -> dict[str, nn.Parameter]:
        """Return the parameters of one adapter, matched by exact name; none of a frozen policy."""
        if policy not in (*self.trained, *self.critics):
            return {}
        return {name: p for name, p in self.peft.named_parameters() if policy in name.split(".")}

    def refresh(self) -> None:
        """Forget the stacked matrices of earlier weights; peft reads the parameters directly."""
        self._route.forget()

    def save(self, folder: Path, *, critics: bool = False) -> None:
        """Write each trained adapter to ``folder/<name>`` in peft's own format."""
        for name in self.critics if critics else self.trained:
            self.save_adapter(name, folder / name)
            self.chat.tokenizer.save_pretrained(folder / name)

    def save_adapter(self, name: str, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write an adapter to a folder in peft's own format, rounded to `dtype` if one is given."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {
                key: weight.to(dtype).contiguous()
                for key, weight in self.adapter_weights(name).items()
            },
            folder / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        self.peft.peft_config[name].save_pretrained(str(folder))

    def adapter_weights(self, name: str) -> dict[str, Tensor]:
        """Return the weights of an adapter themselves, by the names that peft saves them under."""
        return dict(get_peft_model_state_dict(self.peft, adapter_name=name))

    def read(self, folder: Path, *, critics: bool = False) -> list[WeightPair]:
        """Read the saved adapters."""
        pairs: list[WeightPair] = []
        for name in self.critics if critics else self.trained:
            own = self.adapter_weights(name)
            pairs += pair(own, read_shards(folder / name), folder / name)
        return pairs


def lora_settings(rank: int, alpha: int) -> LoraConfig:
    """Return the settings of new adapters on all linear layers, scaled by alpha / rank."""
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def _with_adapters(model: PreTrainedModel, configs: Mapping[str, LoraConfig]) -> Any:
    """Return the model wrapped in place, with an adapter of each name."""
    (first, config), *others = configs.items()
    try:
        with without_notice():
            wrapped = get_peft_model(model, config, adapter_name=first)
        for name, config in others:
            wrapped.add_adapter(name, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"peft cannot put adapters on {type(model).__name__} ({first_line(error)}): choose "
            "team.tuning full or none"
        ) from error
    return wrapped


def _inner_layers(lora: LoraConfig, model: PreTrainedModel) -> LoraConfig:
    """Return settings that leave out the layers that peft cannot run row by row.

    - Experts of a mixture: for some families peft itself turns "all-linear" into adapters on their
      fused weights.
    - A router that is a linear layer by inheritance and returns more than a tensor.
    """
    narrow = copy.deepcopy(lora)
    wide = copy.deepcopy(lora)
    convert_peft_config_for_transformers(wide, model, None)
    if wide.target_parameters:
        narrow.target_modules = wide.target_modules
    routers = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and type(layer).__module__.startswith("transformers.models")
    ]
    narrow.exclude_modules = routers or lora.exclude_modules
    return narrow


def _require_inner_layers(model: PreTrainedModel) -> None:
    """Check that adapters sit where rows can be routed, and not on the output head.

    Raises:
        ValueError: an adapter to begin from sits elsewhere.
    """
    away = "merge it into its base with peft's merge_and_unload and name that model as team.model"
    head = model.get_output_embeddings()
    if isinstance(head, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
        raise ValueError(
            f"an adapter of start_from changes the output head, which all agents share: {away}"
        )
    if any(isinstance(layer, ParamWrapper) for layer in model.modules()):
        raise ValueError(
            "an adapter of start_from sits on experts of a mixture, which peft cannot run row by "
            f"row: {away}"
        )
