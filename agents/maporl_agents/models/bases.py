"""Base models in memory and the policies that share them: forward pass, saving, loading.

Two ways to hold the policies of a base model, behind one small interface (`Base`):
- `FullBase`: one policy, all its weights trained, or frozen weights that speak for any number.
- `LoraBase` (module `lora`): one frozen base in memory for any number of policies, an adapter each.

Models always run in eval mode: there is no dropout between sampling and scoring.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from maporl_agents.models.gradient_checkpointing import enable_recompute
from maporl_agents.models.lean_trunk import TrunkReader
from maporl_agents.models.lm_head import Head
from maporl_agents.models.mixed_precision import MasterWeights, pairs_of
from maporl_agents.models.packed_texts import PackedTexts
from maporl_agents.models.reference_policy import frozen_copy
from maporl_agents.models.sources.weight_files import WeightPair, pair, read_trained, save_model
from maporl_agents.models.trunk import NewIds
from maporl_agents.text.chat import Chat


def window_of(model: PreTrainedModel) -> int | None:
    """Return the longest text a model can read, in tokens; None if its settings give no limit.

    Models with LongRoPE (Phi-3-mini-128k) rotate *all* positions by other angles as soon as one
    text of a batch is longer than `original_max_position_embeddings`. Beyond that a log-probability
    depends on the other rows, and cached keys have other angles than new ones, so the window ends
    there.
    """
    config = model.config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None)]
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if kind.get("rope_type") == "longrope":
            limits.append(kind.get("original_max_position_embeddings"))
    return min((limit for limit in limits if limit is not None), default=None)


class Base(ABC):
    """One language model in memory and the policies that live on it."""

    model: PreTrainedModel
    chat: Chat
    policies: tuple[str, ...]
    critics: tuple[str, ...]
    readers: tuple[TrunkReader, ...]
    """Run the trunks of the policies and of the reference policy."""
    packs: bool = False
    """Whether rows of unequal length may be packed into one cache; `loading_check` finds out."""
    sharded: bool = False
    """Whether the layers are spread over the processes of the run (`models.fsdp`)."""
    _head: Head

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return self.model.device

    @property
    def vocab_size(self) -> int:
        """Number of ids that can be sampled: those the tokenizer knows."""
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
        at_end: bool = False,
    ) -> Tensor:
        """Return the trunk's last hidden states, (N, S, H); row i is read by `policies[i]`.

        `policies[i]` may also be one of `critics`, those with a trunk of their own. With `at_end`
        the states of the last column alone are returned, (N, 1, H), and the last layer computes
        no others.
        """
        with self._reading(policies, ids.shape[1], reference=reference) as reader:
            return reader(NewIds(ids, attention, positions), cache, at_end=at_end)

    @property
    def reads_packed(self) -> bool:
        """Whether `states` works: every trunk is read by the lean forward pass."""
        return all(reader.lean is not None for reader in self.readers)

    def states(self, texts: PackedTexts, *, reference: bool = False) -> Tensor:
        """Return the states that packed texts ask for, (W, H).

        Owners of texts are policies or critics, or with `reference` reference policies by
        `weights_of_reference`.
        """
        with self._reading_packed(texts, reference=reference) as reader:
            return reader.states(texts)

    @abstractmethod
    def _reading_packed(
        self, texts: PackedTexts, *, reference: bool
    ) -> AbstractContextManager[TrunkReader]:
        """Return the reader that runs packed texts inside the block."""

    @abstractmethod
    def weights_of_reference(self, policy: str) -> str:
        """Return the name of the weights of a policy's reference policy, as `weights_of` does."""

    @abstractmethod
    def _reading(
        self, policies: Sequence[str], width: int, *, reference: bool
    ) -> AbstractContextManager[TrunkReader]:
        """Return the reader that runs text i, of `width` ids, by `policies[i]` inside the block."""

    @abstractmethod
    def weights_of(self, policy: str) -> str:
        """Return the name of a policy's weights: policies with equal names compute the same."""

    @abstractmethod
    def logits(self, hidden: Tensor, *, reference: bool = False) -> Tensor:
        """Return logits (..., V) of hidden states (..., H), V = `vocab_size`."""

    def adapter_of(self, policy: str) -> str | None:
        """Return the name of the adapter that a policy speaks by; None for the model itself."""
        return None

    @abstractmethod
    def logits_of(self, ids: Tensor, adapter: str | None) -> Tensor:
        """Return `plain_logits` of the model with an adapter; None for the model itself."""

    @abstractmethod
    def plain_logits(self, ids: Tensor, policy: str, *, reference: bool = False) -> Tensor:
        """Return logits (S, V) after each of S ids, as transformers and peft compute them.

        One text, no padding, no cache, no routing of rows. `hidden` and `logits` must agree with
        it; `loading_check` compares them when a model is loaded.
        """

    @abstractmethod
    def trainable(self, policy: str) -> dict[str, nn.Parameter]:
        """Return the parameters that belong to one policy or critic and to no other, by name.

        They are float32 (float64 in a model of that format) whatever the model computes in.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Copy the trainable parameters into the model, after an optimiser step or a load."""

    @abstractmethod
    def save(self, folder: Path, *, critics: bool = False) -> None:
        """Write every trained policy as a sub-folder that plain transformers or peft loads.

        With `critics`, write instead the critics that have a trunk of their own.
        """

    @abstractmethod
    def read(self, folder: Path, *, critics: bool = False) -> list[WeightPair]:
        """Read what `save` wrote; ValueError names missing, unknown or misshapen weights."""


class FullBase(Base):
    """A base without adapters: one policy with all weights trained, or any number of frozen ones.

    Args:
        model: the causal language model; adopted, not copied.
        chat: its border between text and tokens.
        policies: names; exactly one if trained, else any number with equal weights.
        trained: whether the weights are trained. If not, the model is its own reference, has no
            gradient, and nothing of it is saved.
        reference: the frozen reference model of a trained policy, which bases may share; None for
            a copy of `model`.
        gradient_checkpointing: recompute activations in the backward pass instead of keeping them.
    """

    critics: tuple[str, ...] = ()

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        policies: Sequence[str],
        *,
        trained: bool,
        reference: PreTrainedModel | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        if trained and len(policies) != 1:
            raise ValueError(f"one set of trained weights is one policy, not {list(policies)}")
        self.model = model.eval()
        self.chat = chat
        self.policies = tuple(policies)
        self.trained = trained
        self.reference = frozen_copy(model, trained=trained, given=reference)
        self.model.requires_grad_(trained)
        self._masters = MasterWeights(pairs_of(model))
        self._head = Head(model, chat)
        self.readers = (TrunkReader(model), TrunkReader(self.reference))
        if gradient_checkpointing and trained:
            enable_recompute(self.model)

    @contextmanager
    def _reading(
        self, policies: Sequence[str], width: int, *, reference: bool
    ) -> Iterator[TrunkReader]:
        yield self.readers[reference]

    @contextmanager
    def _reading_packed(self, texts: PackedTexts, *, reference: bool) -> Iterator[TrunkReader]:
        yield self.readers[reference]

    def weights_of(self, policy: str) -> str:
        """Return "model": all policies of this base have the same weights."""
        return "model"

    def weights_of_reference(self, policy: str) -> str:
        """Return "reference": there is one."""
        return "reference"

    def logits(self, hidden: Tensor, *, reference: bool = False) -> Tensor:
        """Return logits (..., V) of hidden states (..., H)."""
        return self._head(self.reference if reference else self.model, hidden)

    def logits_of(self, ids: Tensor, adapter: str | None) -> Tensor:
        """Return `plain_logits` of the model; it has no adapters."""
        return self.plain_logits(ids, self.policies[0])

    def plain_logits(self, ids: Tensor, policy: str, *, reference: bool = False) -> Tensor:
        """Return logits (S, V) after each of S ids, by the model's own forward pass."""
        model = self.reference if reference else self.model
        return self._head.known(model(input_ids=ids[None]).logits[0])

    def trainable(self, policy: str) -> dict[str, nn.Parameter]:
        """Return all weights of a trained model: its own, or the float32 copies of 16-bit ones."""
        named = self.model.named_parameters()
        return {name: self._masters.of(name, p) for name, p in named if p.requires_grad}

    def refresh(self) -> None:
        """Round the float32 copies of 16-bit weights, if there are any, into the model."""
        self._masters.round()

    def save(self, folder: Path, *, critics: bool = False) -> None:
        """Write the model and its tokenizer to ``folder/<policy>``; nothing if it is frozen."""
        if self.trained and not critics:
            save_model(self.model, self.trainable(self.policies[0]), folder / self.policies[0])
            self.chat.tokenizer.save_pretrained(folder / self.policies[0])

    def read(self, folder: Path, *, critics: bool = False) -> list[WeightPair]:
        """Read the saved weights; frozen ones have none, nor has the reference policy."""
        if critics or not self.trained:
            return []
        own, place = self.trainable(self.policies[0]), folder / self.policies[0]
        return pair(own, read_trained(place), place)
