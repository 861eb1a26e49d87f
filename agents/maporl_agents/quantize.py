"""Base models in 4 or 8 bits, by bitsandbytes, on GPUs and on CPUs.

A quantised base is frozen; adapters on it train in float32 (QLoRA: Dettmers et al., arXiv
2305.14314; LLM.int8: arXiv 2208.07339). What is played and what is scored has to be one function of
the tokens, so `settle` turns off what makes bitsandbytes compute them differently.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from maporl_agents.config import TeamConfig


def require_means(config: TeamConfig) -> None:
    """Check that what the settings need is installed, before anything is loaded.

    Raises:
        ValueError: one sentence that names the missing package and how to get it.
    """
    if config.quantization != "none" and not _installed("bitsandbytes"):
        raise ValueError(
            f"quantization={config.quantization!r} needs bitsandbytes, which is not installed: "
            "pip install 'maporl[quant]'"
        )
    spread = config.device_map == "auto" or config.quantization != "none"
    if spread and not _installed("accelerate"):
        raise ValueError(
            f"device_map={config.device_map!r} with quantization={config.quantization!r} needs "
            "accelerate, which is not installed: pip install accelerate"
        )


def require_plain(name: str, architecture: PreTrainedConfig, config: TeamConfig) -> None:
    """Check that a checkpoint that is quantised already is not quantised or trained as a whole.

    Raises:
        ValueError: it is, and the settings ask for that.
    """
    if getattr(architecture, "quantization_config", None) is None:
        return
    if config.quantization != "none":
        raise ValueError(
            f"{name!r} is quantised already, so quantization={config.quantization!r} cannot be "
            "applied: leave it out, or name the unquantised model"
        )
    if config.tuning == "full":
        raise ValueError(
            f"{name!r} is quantised, so its weights cannot be trained: choose tuning='lora', or "
            "name the unquantised model"
        )


def load_options(config: TeamConfig, device: torch.device) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that say how and where weights are kept."""
    if config.quantization == "none":
        return {"device_map": "auto"} if config.device_map == "auto" else {}
    if config.quantization == "nf4":
        how = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=config.double_quant,
            bnb_4bit_compute_dtype=getattr(torch, config.dtype),
        )
    else:
        how = BitsAndBytesConfig(load_in_8bit=True)
    # Layers are quantised as they arrive at a device, so it is named while loading.
    where = "auto" if config.device_map == "auto" else {"": device}
    return {"quantization_config": how, "device_map": where}


def settle(model: PreTrainedModel) -> None:
    """Let quantised layers compute alike with and without gradient, and alone or in a batch.

    - On some CPUs bitsandbytes repacks a 4-bit layer when it is first evaluated, for a kernel that
      rounds to bfloat16, takes widths of multiples of 32 only and passes no gradient back. That
      stays off.
    - An 8-bit layer in evaluation rounds its inputs too, to scales and outliers that depend on the
      rest of the batch. On CPUs, where this is also slow, it keeps to rounded weights alone, as in
      training. On GPUs it is left as it is.

    A model without such layers stays as it is.
    """
    for layer in model.modules():
        if type(layer).__name__ == "Linear4bit":
            layer.support_avx512bf16_for_cpu = False
        elif type(layer).__name__ == "Linear8bitLt":
            logging.getLogger("bitsandbytes.autograd._functions").addFilter(_no_news_of_casts)
            layer.register_forward_pre_hook(_round_weights_only)


def _round_weights_only(layer: nn.Module, _arguments: Any) -> None:
    if layer.weight.device.type == "cpu":
        layer.training = True  # what this layer alone looks at; it has no dropout


def _no_news_of_casts(record: logging.LogRecord) -> bool:
    """Drop a line that bitsandbytes writes at every call of every layer."""
    return "inputs will be cast" not in record.getMessage()


def _installed(package: str) -> bool:
    return find_spec(package) is not None
