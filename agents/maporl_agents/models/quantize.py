"""Quantisation: base models in 4 or 8 bits, by bitsandbytes, on GPUs and CPUs.

A quantised base is frozen; adapters on it train in float32 (QLoRA: Dettmers et al., arXiv
2305.14314; LLM.int8: arXiv 2208.07339). What is played and what is scored has to be one function of
the tokens, so `settle` turns off what makes bitsandbytes compute them differently.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from maporl_agents.config import TeamConfig
from maporl_agents.models.mixed_precision import dtype_of
from maporl_env.missing_extra import is_installed, missing_extra

_BLOCK = 64
"""Weights that share a scale in "nf4"."""
_PROBED_ROWS = 64
"""Rows begin at each place of a block that they can begin at."""
_PROBED_SCALES = 97
"""Different scales in turn; a prime, so that no block a row away has the same one."""


def require_means(config: TeamConfig) -> None:
    """Check that the packages which the settings need are installed, before a model is loaded.

    Raises:
        ValueError: one sentence that names the missing package and how to get it.
    """
    quantization = f"quantization={config.quantization!r}"
    if config.quantization != "none" and not is_installed("bitsandbytes"):
        raise ValueError(missing_extra(quantization, "bitsandbytes", "quant"))
    spread = config.device_map == "auto" or config.quantization != "none"
    if spread and not is_installed("accelerate"):
        asked = f"device_map={config.device_map!r} with {quantization}"
        raise ValueError(missing_extra(asked, "accelerate", None))


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


def require_widths(name: str, architecture: PreTrainedConfig, config: TeamConfig) -> None:
    """Check that this CPU reads a model's 4-bit weights correctly, from the shapes alone.

    Raises:
        ValueError: it does not: see `reads_width`.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(architecture, trust_remote_code=False)
    for place, layer in model.named_modules():
        if layer is model.get_output_embeddings():  # is not quantised
            continue
        if (inputs := _inputs(layer)) and not reads_width(inputs, dtype_of(config.dtype)):
            raise ValueError(
                f"quantization={config.quantization!r} does not work with {name!r} on this CPU: "
                f"bitsandbytes reads the weights of {place}, which has {inputs} inputs, with the "
                "scales of others; choose quantization='int8', or a GPU"
            )


@cache
def reads_width(inputs: int, dtype: torch.dtype) -> bool:
    """Return whether this CPU reads the 4-bit weights of layers with `width` inputs correctly.

    bitsandbytes 0.50 counts the blocks of 64 weights that share a scale from the start of the whole
    matrix, but its kernels for some processors count them from the start of each row: where these
    differ, weights are read with the scales of others, and nothing is said. So a few rows are
    rounded and read back whose weights lose nothing by it: +c and -c in a block of scale c.
    """
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    place = torch.arange(_PROBED_ROWS * inputs)
    scales = place // _BLOCK % _PROBED_SCALES + 1
    weight = (scales * (1 - 2 * (place % 2))).to(dtype).view(_PROBED_ROWS, inputs)
    return torch.equal(dequantize_4bit(*quantize_4bit(weight, quant_type="nf4")), weight)


def _inputs(layer: nn.Module) -> int:
    """Return the inputs of a layer that would be quantised, 0 of any other."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return layer.weight.shape[0] if isinstance(layer, Conv1D) else 0


def quantization_options(config: TeamConfig) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for quantisation; none without."""
    if config.quantization == "none":
        return {}
    if config.quantization == "nf4":
        how = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=config.double_quant,
            bnb_4bit_compute_dtype=dtype_of(config.dtype),
        )
    else:
        how = BitsAndBytesConfig(load_in_8bit=True)
    return {"quantization_config": how}


def settle(model: PreTrainedModel) -> None:
    """Make quantised layers compute the same with and without gradient, alone and in a batch.

    - On some CPUs bitsandbytes repacks a 4-bit layer when it is first evaluated, for a kernel that
      rounds to bfloat16, takes widths of multiples of 32 only and passes no gradient back. That
      stays off.
    - An 8-bit layer in evaluation rounds its inputs too, to scales and outliers that depend on the
      rest of the batch. On CPUs, where this is also slow, it keeps to rounded weights alone, as in
      training. On GPUs it is left as it is.
    - What a layer returns becomes a tensor of its own, which adapters may add to in place: else
      autograd refuses, or not, by the layer's shape.

    A model without such layers stays as it is.
    """
    for layer in model.modules():
        if type(layer).__name__ == "Linear4bit":
            layer.support_avx512bf16_for_cpu = False
            layer.register_forward_hook(_own_output)
        elif type(layer).__name__ == "Linear8bitLt":
            logging.getLogger("bitsandbytes.autograd._functions").addFilter(_no_news_of_casts)
            layer.register_forward_pre_hook(_round_weights_only)
            layer.register_forward_hook(_own_output)


def _round_weights_only(layer: nn.Module, _arguments: Any) -> None:
    if layer.weight.device.type == "cpu":
        layer.training = True  # what this layer alone looks at; it has no dropout


def _own_output(_layer: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
    return output.clone() if torch.is_grad_enabled() else output


def _no_news_of_casts(record: logging.LogRecord) -> bool:
    """Silence a line that bitsandbytes writes at every call of every layer."""
    return "inputs will be cast" not in record.getMessage()
