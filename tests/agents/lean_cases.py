"""Models that the lean forward pass takes, and padded batches for them."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from maporl_agents.models.lean_trunk import LeanTrunk, lean_trunk
from maporl_agents.models.trunk import NewIds

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, one head a group": ("Llama", {"num_key_value_heads": 4}),
    "llama, three heads a group": ("Llama", {"num_attention_heads": 6, "head_dim": 10}),
    "smollm": ("Llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "yarn": ("Llama", {"rope_parameters": YARN}),
    "linear": ("Llama", {"rope_parameters": LINEAR}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 8}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
}


def make_model(name: str, **settings: Any) -> PreTrainedModel:
    """Return a random model; biases and norms are random too."""
    config = getattr(transformers, f"{name}Config")(**SHAPE | settings)
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            mean = 1.0 if parameter.dim() == 1 and parameter.mean() == 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + mean)
    return model


def lean_of(model: PreTrainedModel) -> LeanTrunk:
    lean = lean_trunk(model)
    assert lean is not None
    return lean


def batch(padding: str) -> NewIds:
    """Return ids, mask and positions, (4, 9) each, of texts of lengths 9, 4, 6 and 1."""
    ids = torch.randint(1, 50, (4, 9), generator=torch.Generator().manual_seed(1))
    attention = torch.zeros(4, 9, dtype=torch.long)
    for row, length in enumerate((9, 4, 6, 1)):
        if padding == "none":
            attention[row] = 1
        elif padding == "right":
            attention[row, :length] = 1
        elif padding == "left":
            attention[row, 9 - length :] = 1
        else:
            attention[row, :: 9 // length] = 1
    return NewIds(ids, attention, (attention.cumsum(1) - 1).clamp(min=0))
