"""Reads the settings of saved LoRA adapters that policies start from, and refuses other kinds."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, PeftConfig

_MERGE = (
    "merge it into its base with peft's merge_and_unload, save that model and name it as team.model"
)

_PLAIN = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "trainable_token_indices",
    "use_rslora",
}
"""Settings that change only the size, place and first values of an adapter's own matrices."""

_HARMLESS_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` by which peft leaves the base as it is."""


def adapter_config(folder: Path) -> LoraConfig:
    """Read the settings of a saved adapter.

    Raises:
        ValueError: the settings cannot be read, or the adapter is more than plain LoRA.
    """
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"cannot read the adapter {str(folder)!r}: {error}") from error
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{folder} is no LoRA adapter but one of type {config.peft_type}")
    if config.init_lora_weights not in _HARMLESS_BEGINNINGS:
        raise ValueError(
            f"the adapter {str(folder)!r} changes its base when it is loaded (init_lora_weights="
            f"{config.init_lora_weights!r}), which agents share: save it again with peft's "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...), or " + _MERGE
        )
    plain = LoraConfig()
    for name, value in vars(config).items():
        if name not in _PLAIN and value != getattr(plain, name, None) and value:
            raise ValueError(
                f"the adapter {str(folder)!r} is more than plain LoRA ({name}={value!r}), which "
                f"cannot be run row by row beside others: {_MERGE}"
            )
    config.inference_mode = False
    return config
