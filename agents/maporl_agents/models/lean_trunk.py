"""A forward pass of plain decoder trunks, in fewer operations than the modules of transformers.

Llama, Mistral (without a sliding window), Qwen2 and Qwen3 share one layer: RMSNorm, grouped-query
attention with rotary positions, RMSNorm, SwiGLU. `lean_trunk` recognises such a trunk, and
`LeanTrunk` computes with the weights of its modules, which it looks up in each pass, so that it
follows optimiser steps, `refresh` and loading. The mask and the rotations are computed once per
pass. Trunks with any other part keep the modules' forward pass, and `models.loading_check` compares
the results of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, PreTrainedModel

from maporl_agents.models.gradient_checkpointing import recomputing
from maporl_agents.models.lean_layers import (
    PackedAttention,
    gathered,
    grouped_attention,
    rms_norm,
    rotate,
    swiglu,
    to_add,
)
from maporl_agents.models.packed_texts import PackedTexts
from maporl_agents.models.trunk import NewIds, read, trunk_of

Linears = Callable[[Sequence[Any], Tensor], Sequence[Tensor]]
"""Applies linear layers to the same inputs: (layers, (N, S, I)) -> (N, S, O) of each layer."""

_FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Rotations that depend on the position alone."""


class KeyValues(Protocol):
    """The part of transformers' `Cache` that a pass uses."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Append keys and values, (N, K, S, D) each, and return all of a layer, (N, K, C + S, D).

        N rows, K key-value heads of size D, S new ids, C cached ones.
        """


def called(layers: Sequence[Any], inputs: Tensor) -> list[Tensor]:
    """Call each layer, whatever its class: with adapters, hooks or quantised weights."""
    return [layer(inputs) for layer in layers]


class TrunkReader:
    """Runs a model's trunk: by `LeanTrunk` if the trunk is plain, else by the model's modules.

    Args:
        model: the whole model; only its linear layers may be replaced later.
        linears: applies linear layers of the trunk; must equal calling them.

    Attributes:
        lean: the lean forward pass; None runs the modules.
    """

    def __init__(self, model: PreTrainedModel, linears: Linears = called) -> None:
        self._model = model
        self._linears = linears
        self.lean = lean_trunk(model)

    def __call__(self, new: NewIds, cache: Cache | None = None, *, at_end: bool = False) -> Tensor:
        """Return the trunk's last hidden states, (N, S, H); see `LeanTrunk.read`.

        With `at_end` those of the last column alone, (N, 1, H).
        """
        if self.lean is not None:
            return self.lean.read(new, cache, self._linears, at_end=at_end)
        with recomputing(self._model):
            states = read(self._model, *new, cache)
        return states[:, -1:] if at_end else states

    def states(self, texts: PackedTexts) -> Tensor:
        """Return the states that packed texts ask for, (W, H); by the lean forward pass alone."""
        assert self.lean is not None, "packed texts have no plain forward pass"
        return self.lean.states(texts, self._linears)


def lean_trunk(model: PreTrainedModel) -> LeanTrunk | None:
    """Return the lean forward pass of a model's trunk; None for a trunk that is not plain.

    Every module but the linear layers must be of a class known here, without hooks, and every
    setting that changes what such modules compute must be the plain one. Linear layers may be of
    any class: they are called, or applied as `LeanTrunk.read` is told.
    """
    family = next((one for one in _FAMILIES if type(model).__name__ == f"{one}ForCausalLM"), None)
    if family is None:
        return None
    trunk: Any = trunk_of(model)
    if not (_plain_settings(model.config) and _plain_modules(trunk, family)):
        return None
    # Adapters of a model without content (device "meta") are made on the CPU first.
    if len({p.device for p in trunk.parameters() if p.device.type != "meta"}) > 1:
        return None
    return LeanTrunk(trunk)


def _plain_settings(config: Any) -> bool:
    """Return whether the settings ask for plain causal attention over all columns."""
    layer_types = getattr(config, "layer_types", None) or ("full_attention",)
    return (
        config._attn_implementation == "sdpa"
        and config.hidden_act == "silu"
        and getattr(config, "sliding_window", None) is None
        and set(layer_types) == {"full_attention"}
        and config.rope_parameters.get("rope_type") in _ROPE_TYPES
        and getattr(config, "attn_logit_softcapping", None) is None
    )


def _plain_modules(trunk: Any, family: str) -> bool:
    """Return whether a trunk consists of the modules that `LeanTrunk` replaces, and of no other.

    The classes are those of transformers' own file of the family: a subclass is not taken.
    """
    here = f"transformers.models.{family.lower()}.modeling_{family.lower()}"

    def known(module: Any, part: str) -> bool:
        kind = type(module)
        return (kind.__module__, kind.__name__) == (here, f"{family}{part}") and _bare(module)

    head = _head_size(trunk.config)
    vectors = {p.dtype for name, p in trunk.named_parameters() if "norm" in name or "embed" in name}
    return (
        len(vectors) == 1
        and known(trunk, "Model")
        and type(trunk.embed_tokens) is nn.Embedding
        and trunk.embed_tokens.max_norm is None
        and _bare(trunk.embed_tokens)
        and known(trunk.norm, "RMSNorm")
        and known(trunk.rotary_emb, "RotaryEmbedding")
        and 2 * len(trunk.rotary_emb.inv_freq) == head
        and len(trunk.layers) == trunk.config.num_hidden_layers
        and all(
            known(layer, "DecoderLayer")
            and known(layer.input_layernorm, "RMSNorm")
            and known(layer.post_attention_layernorm, "RMSNorm")
            and known(layer.mlp, "MLP")
            and type(layer.mlp.act_fn).__name__ in ("SiLUActivation", "SiLU")
            and known(layer.self_attn, "Attention")
            and layer.self_attn.head_dim == head
            and layer.self_attn.scaling == head**-0.5
            and getattr(layer.self_attn, "sliding_window", None) is None
            and all(known(norm, "RMSNorm") for norm in _head_norms(layer.self_attn))
            for layer in trunk.layers
        )
    )


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _head_norms(attention: Any) -> tuple[Any, ...]:
    """Return the norms of queries and keys: two in Qwen3, else none."""
    norms = (getattr(attention, "q_norm", None), getattr(attention, "k_norm", None))
    return tuple(norm for norm in norms if norm is not None)


def _bare(module: nn.Module) -> bool:
    """Return whether calling a module runs its class's `forward` and nothing else."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return not (any(hooks) or "forward" in vars(module) or hasattr(module, "_hf_hook"))


@dataclass(frozen=True)
class _Layer:
    """The modules of one layer, found once: look-ups in modules are slow."""

    module: Any
    index: int
    input_norm: Any
    heads: tuple[Any, Any, Any]
    head_norms: tuple[Any, ...]
    out: tuple[Any]
    middle_norm: Any
    gate_and_up: tuple[Any, Any]
    down: tuple[Any]


@dataclass(frozen=True)
class _Pass:
    """Values that all layers of one forward pass share.

    Attributes:
        linears: applies linear layers.
        rotation: cosines and signed sines, (..., 1, D) each; see `rotate`.
        attend: returns the heads' outputs side by side, (..., heads x D), of queries, keys and
            values of a layer, (..., heads, D) each.
        trains: layers may be recomputed, as no cache is filled.
    """

    linears: Linears
    rotation: tuple[Tensor, Tensor]
    attend: Callable[[Tensor, Tensor, Tensor, _Layer], Tensor]
    trains: bool


Select = Callable[[Tensor], Tensor]
"""Returns some rows of states (..., H) or of rotations (..., 1, D)."""


def _last_column(states: Tensor) -> Tensor:
    return states[:, -1:]


class LeanTrunk:
    """The forward pass of a plain trunk; it holds no weights of its own."""

    def __init__(self, trunk: Any) -> None:
        self._embed = trunk.embed_tokens
        self._rotary = trunk.rotary_emb
        self._norm = trunk.norm
        self._head_size = _head_size(trunk.config)
        self._layers = [_layer(module, index) for index, module in enumerate(trunk.layers)]

    def read(
        self,
        new: NewIds,
        cache: KeyValues | None = None,
        linears: Linears = called,
        *,
        at_end: bool = False,
    ) -> Tensor:
        """Return the trunk's last hidden states, (N, S, H), as `trunk.read` does.

        States at padding are finite but meaningless.

        Args:
            new: the ids after the cached ones.
            cache: keys and values of earlier ids; grows by these ids.
            linears: applies linear layers of the trunk.
            at_end: return the states of the last column alone, (N, 1, H); the last layer then
                computes no others.
        """
        ids, attention, positions = new
        states = F.embedding(ids, self._embed.weight)  # (N, S, H)
        mask, causal = _visible(attention, ids.shape[1], states.dtype)
        rotation = _rotation(self._rotary, states, positions)
        some = _last_column if at_end and ids.shape[1] > 1 else None
        real, _ = _visible(attention, 1, states.dtype) if some else (None, False)

        def attend(queries: Tensor, keys: Tensor, values: Tensor, layer: _Layer) -> Tensor:
            keys, values = keys.transpose(1, 2), values.transpose(1, 2)  # (N, heads, S, D)
            if cache is not None:
                keys, values = cache.update(keys, values, layer.index)
            if queries.shape[1] == ids.shape[1]:
                return grouped_attention(queries, keys, values, mask, causal=causal)
            return grouped_attention(queries, keys, values, real, causal=False)  # last column

        return self._run_all(states, _Pass(linears, rotation, attend, cache is None), some)

    def states(self, texts: PackedTexts, linears: Linears = called) -> Tensor:
        """Return the states that packed texts ask for, (W, H), as `read` gives them.

        Args:
            texts: T ids, W asked states.
            linears: applies linear layers of the trunk to rows, (T, I) or (W, I).
        """
        states = F.embedding(texts.ids, self._embed.weight)  # (T, H)
        rotation = _rotation(self._rotary, states, texts.positions)
        every, last = (PackedAttention(x, states.dtype) for x in (texts.every, texts.last))
        some = None if len(texts.asked) == len(texts.ids) else partial(gathered, texts.asked)

        def attend(queries: Tensor, keys: Tensor, values: Tensor, layer: _Layer) -> Tensor:
            attention = every if len(queries) == len(keys) else last
            return attention(queries, keys, values)

        return self._run_all(states, _Pass(linears, rotation, attend, True), some)

    def _run_all(self, states: Tensor, shared: _Pass, some: Select | None) -> Tensor:
        """Run all layers, the last one for some rows alone; return their normed states."""
        for layer in self._layers:
            selected = some if layer is self._layers[-1] else None
            states = self._kept_or_run(layer, states, shared, selected)
        return rms_norm(self._norm, states)

    def _kept_or_run(
        self, layer: _Layer, states: Tensor, shared: _Pass, some: Select | None
    ) -> Tensor:
        """Run a layer, with gradient checkpointing if its module is set to it."""
        module = layer.module
        if module.gradient_checkpointing and torch.is_grad_enabled() and shared.trains:

            def run(given: Tensor) -> Tensor:
                return self._run(layer, given, shared, some)

            kept: Tensor = module._gradient_checkpointing_func(run, states)
            return kept
        return self._run(layer, states, shared, some)

    def _run(self, layer: _Layer, states: Tensor, shared: _Pass, some: Select | None) -> Tensor:
        """Return the states (..., H) after a layer of those before it, of all rows or of some."""
        heads = self._heads(layer, rms_norm(layer.input_norm, states), shared, some)
        attended = shared.attend(*heads, layer)  # (..., heads x D)
        if some is not None:
            states = some(states)
        states = _added(states, *shared.linears(layer.out, attended))
        inner = rms_norm(layer.middle_norm, states)
        gated = swiglu(*shared.linears(layer.gate_and_up, inner))  # (..., I)
        return _added(states, *shared.linears(layer.down, gated))

    def _heads(
        self, layer: _Layer, states: Tensor, shared: _Pass, some: Select | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (..., heads, D), with queries of some rows alone."""
        rotation = shared.rotation
        if some is None:
            found = shared.linears(layer.heads, states)
        else:
            found = [*shared.linears(layer.heads[:1], some(states))]
            found += shared.linears(layer.heads[1:], states)
            rotation = (some(rotation[0]), some(rotation[1]))
        queries, keys, values = (y.view(*y.shape[:-1], -1, self._head_size) for y in found)
        if layer.head_norms:
            query_norm, key_norm = layer.head_norms
            queries, keys = rms_norm(query_norm, queries), rms_norm(key_norm, keys)
        return rotate(queries, *rotation), rotate(keys, *shared.rotation), values


def _layer(module: Any, index: int) -> _Layer:
    attention, mlp = module.self_attn, module.mlp
    return _Layer(
        module=module,
        index=index,
        input_norm=module.input_layernorm,
        heads=(attention.q_proj, attention.k_proj, attention.v_proj),
        head_norms=_head_norms(attention),
        out=(attention.o_proj,),
        middle_norm=module.post_attention_layernorm,
        gate_and_up=(mlp.gate_proj, mlp.up_proj),
        down=(mlp.down_proj,),
    )


def _added(states: Tensor, change: Tensor) -> Tensor:
    # In place only without a graph: backward would read what was overwritten.
    return states + change if torch.is_grad_enabled() else change.add_(states)


def _rotation(rotary: Any, states: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines, (..., 1, D) each, of the trunk's own frequencies."""
    angles = (positions[..., None].float() * rotary.inv_freq.float())[..., None, :]  # (..., 1, D/2)
    cosines, sines = angles.cos(), angles.sin()
    if rotary.attention_scaling != 1:
        cosines, sines = cosines * rotary.attention_scaling, sines * rotary.attention_scaling
    cosines, sines = cosines.to(states.dtype), sines.to(states.dtype)
    return torch.cat((cosines, cosines), -1), torch.cat((-sines, sines), -1)


def _visible(attention: Tensor, width: int, dtype: torch.dtype) -> tuple[Tensor | None, bool]:
    """Return the mask of a pass and whether it is causal; see `_Pass`.

    Padding after a text needs no mask, since no id of the text comes after it. Padding attends to
    itself, so that every row of scores has a visible column.

    Args:
        attention: (N, C + S), 1 = real id.
        width: S.
        dtype: format of the scores.
    """
    columns = attention.shape[1]
    real = attention.bool()
    holes = not bool(real.all())
    if width == 1:
        lost = (attention - 1).to(dtype).mul_(torch.finfo(dtype).max)[:, None, None]
        return lost if holes else None, False
    if width == columns and not (holes and bool((real[:, 1:] > real[:, :-1]).any())):
        return None, True
    place = torch.arange(columns, device=attention.device)
    rows = place[columns - width :, None]  # (S, 1), the column of each id
    # (N or 1, 1, S, C + S), True = visible.
    seen = (place < rows) & real[:, None, None] if holes else (place < rows)[None, None]
    seen = seen | (place == rows)
    return to_add(seen, dtype), False
