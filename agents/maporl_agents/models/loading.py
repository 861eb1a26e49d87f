"""Loads the language models and adapters that the settings of a team name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from maporl_agents.config import TeamConfig
from maporl_agents.models.bases import Base, FullBase
from maporl_agents.models.devices import agent_devices, pick_device, placement_options
from maporl_agents.models.loading_check import check, read_by_modules
from maporl_agents.models.mixed_precision import dtype_of
from maporl_agents.models.quantize import (
    quantization_options,
    require_means,
    require_plain,
    require_widths,
    settle,
)
from maporl_agents.models.roster import Roster, model_names, roster, trained_pairs
from maporl_agents.models.sources.hub_check import require_found
from maporl_agents.models.team import Team
from maporl_agents.models.trunk import ANOTHER_MODEL
from maporl_agents.text.chat import Chat
from maporl_agents.text.model_chat import chat_of, require_switches
from maporl_agents.text.tokenizer_files import first_line, load_tokenizer
from maporl_agents.text.vocabulary import rows_of, vocabulary_of
from maporl_env.user_functions import PYTHON, object_named

OTHER_TUNING = "its LoRA adapters cannot be run row by row, so choose team.tuning full or none"
MERGED_ADAPTERS = (
    "merge the adapter of start_from into its base with peft's merge_and_unload and name that "
    "model as team.model"
)
"""Advice for an adapter that `check` refuses."""

Load = Callable[[str, TeamConfig], tuple[PreTrainedModel, Chat]]
"""Makes a model and its chat border of a folder or hub name, as `load_model` does."""


def make_team(
    config: TeamConfig,
    *,
    num_agents: int,
    num_turns: int,
    seed: int,
    load: Load | None = None,
    critics: bool = True,
) -> Team:
    """Load the models and make the team.

    Args:
        config: which models, how they are tuned and shared.
        num_agents: A.
        num_turns: T.
        seed: names the initialisation of adapters and value heads.
        load: where models come from; None for `load_model`.
        critics: give the team value heads.

    Raises:
        ValueError: a model cannot be found or loaded, or the settings do not fit together.
    """
    models = model_names(config, num_agents)
    if config.sharing == "one" and len(set(models)) > 1:
        raise ValueError(
            f"sharing='one' needs one model for all agents, not {sorted(set(models))}; "
            "choose sharing='agent' or name one model"
        )
    trained = trained_pairs(config, num_agents, num_turns)
    devices = agent_devices(config, num_agents)
    places = list(zip(models, devices, strict=True))
    bases: list[Base] = []
    for model, device in dict.fromkeys(places):
        agents = [agent for agent in range(num_agents) if places[agent] == (model, device)]
        pairs = [(agent, turn) for agent in agents for turn in range(num_turns)]
        who = roster(config, pairs, trained, num_agents)
        on_device = replace(config, device=device, devices=())
        bases += load_bases(on_device, model, who, seed, load or load_model)
    require_switches((base.chat for base in bases), config)
    return Team(
        bases,
        sharing=config.sharing,
        num_agents=num_agents,
        num_turns=num_turns,
        trained=trained,
        critic_width=config.critic_width if critics else None,
        central=config.central,
        privileged=config.critic == "privileged",
        seed=seed,
    )


def load_bases(config: TeamConfig, name: str, who: Roster, seed: int, load: Load) -> list[Base]:
    """Return the bases of one model, which is read once.

    Args:
        config: how the model is tuned.
        name: a folder or a hub name.
        who: its policies. Frozen ones share the one copy of the model with the reference policy.
        seed: names the initialisation of adapters.
        load: where the model comes from.
    """
    _check_starts(who)  # before any weight is read
    model, chat = load(name, config)
    speakers = (*who.trained, *who.frozen)
    recompute = config.gradient_checkpointing
    bare = FullBase(model, chat, speakers, trained=False)
    check(bare, speakers[:1], ANOTHER_MODEL)
    if config.tuning == "none" or not (who.trained or who.starts):
        return [bare]
    if config.tuning == "lora":
        from maporl_agents.models.lora import LoraBase, lora_settings  # with peft, slow to import

        lora = lora_settings(config.lora_rank, config.lora_alpha)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            base = LoraBase(
                model,
                chat,
                who.trained,
                lora,
                frozen=who.frozen,
                critics=who.critics,
                starts=who.starts,
                gradient_checkpointing=recompute,
            )
        check(base, who.kinds(), MERGED_ADAPTERS if who.starts else OTHER_TUNING)
        return [base]
    bases: list[Base] = [
        FullBase(
            copy.deepcopy(model),
            chat,
            [policy],
            trained=True,
            reference=model,
            gradient_checkpointing=recompute,
        )
        for policy in who.trained
    ]
    bases += [FullBase(model, chat, who.frozen, trained=False)] if who.frozen else []
    for full in bases:
        full.packs = bare.packs
        if bare.readers[0].lean is None:
            read_by_modules(full)
    return bases


def _check_starts(who: Roster) -> None:
    """Raise ValueError if an adapter that a policy begins as cannot be taken."""
    if not who.starts:
        return
    from maporl_agents.models.adapter_config import adapter_config  # with peft, slow to import

    for folder in dict.fromkeys(who.starts.values()):
        adapter_config(folder)


def load_model(name: str, config: TeamConfig) -> tuple[PreTrainedModel, Chat]:
    """Load one checkpoint, from a folder or the hub, with its tokenizer.

    Code shipped inside a checkpoint is never run. A pair (model, tokenizer) that this process was
    given is copied.

    Raises:
        ValueError: one sentence that says what is missing and how to get it.
    """
    if name.startswith(f"{PYTHON}:"):
        return _given_model(name, config)
    tokenizer, architecture = examine(name, config)
    device = pick_device(config.device)
    options = quantization_options(config) | placement_options(config, device)
    model, report = read_weights(
        name,
        config=architecture,
        dtype=dtype_of(config.dtype),
        attn_implementation=None if config.attention == "auto" else config.attention,
        output_loading_info=True,
        **options,
    )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:5])
        raise ValueError(
            f"the weights of {name!r} are incomplete: {len(report['missing_keys'])} are missing "
            f"({missing}); save the model again with save_pretrained"
        )
    settle(model)
    chat = chat_of(tokenizer, model, config)
    return model if options else model.to(device), chat


def _given_model(name: str, config: TeamConfig) -> tuple[PreTrainedModel, Chat]:
    """Return a copy of a model that a Python program handed over, as `load_model` would load it."""
    pair = object_named(name)
    fits = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], PreTrainedModel)
    if not (fits and isinstance(pair[1], PreTrainedTokenizerBase)):
        raise ValueError(
            "a model is a name, a folder, or a pair (model, tokenizer) of transformers, not "
            f"{type(pair).__name__}"
        )
    model, tokenizer = pair
    if (config.quantization, config.device_map, config.attention) != ("none", "one", "auto"):
        raise ValueError(
            "a model that is handed over is neither quantised nor laid over devices here, and "
            "computes attention as it did: name its folder"
        )
    device, dtype = pick_device(config.device), dtype_of(config.dtype)
    model = copy.deepcopy(model).to(device=device, dtype=dtype)
    tokenizer = _speaking(copy.deepcopy(tokenizer), config)
    settle(model)
    return model, chat_of(tokenizer, model, config)


def examine(name: str, config: TeamConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedConfig]:
    """Return the tokenizer and settings of a model, checked against `config`; reads no weights.

    Raises:
        ValueError: one sentence that says what is missing, or does not go together.
    """
    folder = Path(name)
    if folder.exists() and not (folder / "config.json").exists():
        raise ValueError(
            f"{folder} is no model: it has no config.json; save it with save_pretrained"
        )
    require_means(config)
    device = pick_device(config.device)
    _require_attention(config, device)
    require_found(name)
    tokenizer = _speaking(load_tokenizer(name), config)
    architecture: PreTrainedConfig = _read(AutoConfig, name)
    vocabulary_of(tokenizer, rows_of(architecture))
    require_plain(name, architecture, config)
    if config.quantization == "nf4" and device.type == "cpu":
        require_widths(name, architecture, config)
    return tokenizer, architecture


def _speaking(tokenizer: PreTrainedTokenizerBase, config: TeamConfig) -> PreTrainedTokenizerBase:
    """Return a tokenizer without its chat template where prompts are plain text."""
    if config.prompts == "plain":
        tokenizer.chat_template = None
    return tokenizer


def read_weights(name: str, **options: Any) -> Any:
    """Load the weights of a folder or hub name by `AutoModelForCausalLM.from_pretrained`.

    Weights are read from safetensors alone: any other file is a pickle, which may run code.

    Raises:
        ValueError: they are not there, or cannot be read.
    """
    folder = Path(name)
    pickled = next(iter(sorted(folder.glob("*.bin"))), None)
    if pickled is not None and not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"the weights of {name!r} are a pickle ({pickled.name}), which may run code and is "
            "never opened: save them as safetensors with save_pretrained"
        )
    return _read(AutoModelForCausalLM, name, use_safetensors=True, **options)


def _read(kind: Any, name: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ValueError(f"cannot load the model {name!r}: {first_line(error)}") from error


def _require_attention(config: TeamConfig, device: torch.device) -> None:
    if config.attention == "flash_attention_2" and (
        device.type == "cpu" or config.dtype == "float32"
    ):
        raise ValueError(
            "attention='flash_attention_2' runs on GPUs in bfloat16 or float16, not on "
            f"{device.type!r} in {config.dtype}: choose attention='sdpa', or set dtype and device"
        )
