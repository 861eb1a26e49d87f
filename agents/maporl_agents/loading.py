"""From settings to a team: finds, checks and loads language models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from maporl_agents import tiny
from maporl_agents.chat import Chat
from maporl_agents.config import TeamConfig
from maporl_agents.team import Base, FullBase, LoraBase, Team, policy_name


def make_team(config: TeamConfig, *, num_agents: int, num_turns: int, seed: int) -> Team:
    """Load the models and make the team.

    Args:
        config: which models, how they are tuned and shared.
        num_agents: A.
        num_turns: T.
        seed: names the initialisation of adapters and value heads.

    Raises:
        ValueError: a model cannot be found or loaded, or the settings do not fit together.
    """
    models = model_names(config, num_agents)
    if config.sharing == "one" and len(set(models)) > 1:
        raise ValueError(
            f"sharing='one' needs one model for all agents, not {sorted(set(models))}; "
            "choose sharing='agent' or name one model"
        )
    bases: list[Base] = []
    for model in dict.fromkeys(models):
        policies = list(
            dict.fromkeys(
                policy_name(config.sharing, seat, turn)
                for seat in range(num_agents)
                if models[seat] == model
                for turn in range(num_turns)
            )
        )
        bases += load_bases(config, model, policies, seed)
    return Team(
        bases,
        sharing=config.sharing,
        num_agents=num_agents,
        num_turns=num_turns,
        critic_width=config.critic_width,
        seed=seed,
    )


def model_names(config: TeamConfig, num_agents: int) -> list[str]:
    """Return the model of each agent; "tiny" becomes the folder of the agent's shipped weights."""
    if len(config.model) not in (1, num_agents):
        raise ValueError(
            f"{len(config.model)} models for {num_agents} agents: name one for all or one per agent"
        )
    named = list(config.model) * (num_agents if len(config.model) == 1 else 1)
    return [
        str(tiny.checkpoint(seat)) if name == "tiny" else name for seat, name in enumerate(named)
    ]


def load_bases(config: TeamConfig, name: str, policies: Sequence[str], seed: int) -> list[Base]:
    """Return the bases that hold the given policies of one model."""
    if config.tuning == "lora":
        lora = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        model, chat = load_model(name, config)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return [LoraBase(model, chat, policies, lora)]
    if config.tuning == "none":
        return [FullBase(*load_model(name, config), policies, trained=False)]
    return [FullBase(*load_model(name, config), [policy], trained=True) for policy in policies]


def load_model(name: str, config: TeamConfig) -> tuple[PreTrainedModel, Chat]:
    """Load one checkpoint, from a folder or the hub, with its tokenizer.

    Code shipped inside a checkpoint is never run.

    Raises:
        ValueError: one sentence that says what is missing and how to get it.
    """
    folder = Path(name)
    if folder.exists() and not (folder / "config.json").exists():
        raise ValueError(
            f"{folder} is no model: it has no config.json; save it with save_pretrained"
        )
    device = pick_device(config.device)
    tokenizer = load_tokenizer(name)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=getattr(torch, config.dtype),
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"cannot load the model {name!r}: {_first_line(error)}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:5])
        raise ValueError(
            f"the weights of {name!r} are incomplete: {len(report['missing_keys'])} are missing "
            f"({missing}); save the model again with save_pretrained"
        )
    stop_ids = model.generation_config.eos_token_id if model.generation_config else None
    extra = [stop_ids] if isinstance(stop_ids, int) else list(stop_ids or [])
    return model.to(device), Chat(tokenizer, extra)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer; ValueError says in one sentence if the checkpoint has none."""
    folder = Path(name)
    if folder.exists() and not any(
        (folder / file).exists() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")
    ):
        raise ValueError(
            f"{folder} has no tokenizer (tokenizer.json); save one beside the model with "
            "tokenizer.save_pretrained"
        )
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot load the tokenizer of {name!r}: {_first_line(error)}") from error


def pick_device(device: str) -> torch.device:
    """Return the device; "auto" is a GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {device!r} cannot be used here ({_first_line(error)}); "
            "choose auto, cpu, or cuda where there is a GPU"
        ) from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
