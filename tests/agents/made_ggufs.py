"""GGUF files of miniature models, written by the library `gguf` as its converters do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from maporl_agents.models.sources.model_download import Origin

gguf = pytest.importorskip("gguf")

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""Kinds of tokens."""


def write_gguf(
    path: Path,
    source: Path,
    *,
    architecture: str = "llama",
    rules: str = "gpt-2",
    quantised: bool = False,
    without: Collection[str] = (),
    parts: int = 1,
    poison: str = "",
) -> Path:
    """Write a Llama of a folder as GGUF.

    Args:
        path: of the file.
        source: folder of the model and a byte-level tokenizer.
        architecture: the kind that the file names.
        rules: its `tokenizer.ggml.pre`; "" for none.
        quantised: keep matrices in Q8_0.
        without: tensors and "tokenizer" or "eos" that are left out.
        parts: of how many files it says to be one.
        poison: tensor that gets a NaN.
    """
    model = AutoModelForCausalLM.from_pretrained(source)
    writer = gguf.GGUFWriter(path, architecture)
    config = model.config
    writer.add_name("miniature")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if parts > 1:
        writer.add_uint16("split.count", parts)
    if "tokenizer" not in without:
        _add_tokenizer(writer, source, rules, config.vocab_size, eos="eos" not in without)
    for name, weight in _tensors(model).items():
        if name in without:
            continue
        if name == poison:
            weight[0] = np.nan
        kind = gguf.GGMLQuantizationType.Q8_0
        if quantised and weight.ndim == 2:
            writer.add_tensor(name, gguf.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: Any, source: Path, rules: str, rows: int, *, eos: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(source)
    saved = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["id"]: token["special"] for token in saved["added_tokens"]}
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    kinds = {True: CONTROL, False: USER_DEFINED, None: NORMAL}
    writer.add_tokenizer_model("gpt2")
    if rules:
        writer.add_tokenizer_pre(rules)
    writer.add_token_list([by_id[number] for number in range(rows)])
    writer.add_token_types([kinds[special.get(number)] for number in range(rows)])
    writer.add_token_merges([" ".join(pair) for pair in saved["model"]["merges"]])
    if eos:
        writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _tensors(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Return a Llama's weights by their names and in their order of rows in a GGUF."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    heads = {
        "q_proj": model.config.num_attention_heads,
        "k_proj": model.config.num_key_value_heads,
    }
    made = {}
    for name, weight in model.state_dict().items():
        inner = name.removesuffix(".weight")
        if count := heads.get(inner.rpartition(".")[2]):  # halves of rotated pairs side by side
            rows, columns = weight.shape
            pairs = weight.view(count, 2, rows // count // 2, columns)
            weight = pairs.transpose(1, 2).reshape(rows, columns)
        array = weight.to(torch.float32).contiguous().numpy().copy()
        made[names.get_name(inner) + ".weight"] = array
    return made


def origin_of(path: Path) -> Origin:
    """Return an origin, on the hub and in a wheel, whose file is the one at a path."""
    return Origin(
        about="a miniature",
        hub="somebody/mini-GGUF",
        revision="0" * 40,
        wheel="maporl-test-mini==0.1",
        file=path.name,
        package="maporl_test_mini",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
