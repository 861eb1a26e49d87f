"""From settings to a team: finds, checks and loads language models."""

from __future__ import annotations

import copy
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
from maporl_agents.bases import Base, FullBase
from maporl_agents.chat import Chat
from maporl_agents.config import TeamConfig, turns_of
from maporl_agents.lora import LoraBase
from maporl_agents.team import Team, critic_adapter, critic_name, policy_name


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
    pairs = trained_pairs(config, num_agents, num_turns)
    bases: list[Base] = []
    for model in dict.fromkeys(models):
        names = {
            trained: list(
                dict.fromkeys(
                    policy_name(config.sharing, seat, turn, trained=trained)
                    for seat in range(num_agents)
                    for turn in range(num_turns)
                    if models[seat] == model and ((seat, turn) in pairs) == trained
                )
            )
            for trained in (True, False)
        }
        bases += load_bases(config, model, names[True], names[False], seed)
    return Team(
        bases,
        sharing=config.sharing,
        num_agents=num_agents,
        num_turns=num_turns,
        trained=pairs,
        critic_width=config.critic_width,
        seed=seed,
    )


def trained_pairs(config: TeamConfig, num_agents: int, num_turns: int) -> set[tuple[int, int]]:
    """Return the (agent, turn) pairs that `train_agents` and `train_turns` name, both from 0.

    Raises:
        ValueError: one of them names an agent or a turn that does not exist.
    """
    beyond = [seat for seat in config.train_agents if not 0 <= seat < num_agents]
    if beyond:
        raise ValueError(
            f"train_agents names {beyond}, but the {num_agents} agents are 0 to {num_agents - 1}"
        )
    turns = turns_of(config.train_turns, num_turns)
    return {(seat, turn) for seat in config.train_agents or range(num_agents) for turn in turns}


def model_names(config: TeamConfig, num_agents: int) -> list[str]:
    """Return the model of each agent; a built-in one becomes the folder of its shipped weights."""
    if len(config.model) not in (1, num_agents):
        raise ValueError(
            f"{len(config.model)} models for {num_agents} agents: name one for all or one per agent"
        )
    named = list(config.model) * (num_agents if len(config.model) == 1 else 1)
    return [
        str(tiny.checkpoint(seat, name)) if name in tiny.MODELS else name
        for seat, name in enumerate(named)
    ]


def load_bases(
    config: TeamConfig, name: str, policies: Sequence[str], frozen: Sequence[str], seed: int
) -> list[Base]:
    """Return the bases of one model, which is read once.

    Args:
        config: how the model is tuned.
        name: a folder or a hub name.
        policies: those to train; each begins as the model.
        frozen: those that stay the model. They share its one copy with the reference policy.
        seed: names the initialisation of adapters.
    """
    model, chat = load_model(name, config)
    if config.tuning == "none" or not policies:
        return [FullBase(model, chat, [*policies, *frozen], trained=False)]
    if config.tuning == "lora":
        lora = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return [LoraBase(model, chat, policies, lora, frozen=frozen)]
    bases = [
        FullBase(copy.deepcopy(model), chat, [policy], trained=True, reference=model)
        for policy in policies
    ]
    return [*bases, FullBase(model, chat, frozen, trained=False)] if frozen else [*bases]


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
