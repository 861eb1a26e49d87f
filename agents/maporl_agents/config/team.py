"""Settings of the language models: which, how they are tuned and shared, on what device."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from maporl_agents.config import checks
from maporl_env.reading.written_values import value_of

Sharing = Literal["agent", "turn", "first_turn", "one"]

Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"]

Quantization = Literal["none", "nf4", "int8"]

Prompts = Literal["chat", "plain"]

Thoughts = Literal["hidden", "shown"]

_OF_RENDERING = frozenset(
    (
        *("conversations", "messages", "chat_template", "add_generation_prompt", "tools"),
        *("documents", "continue_final_message", "return_assistant_tokens_mask"),
    )
)
"""Names that a chat template is always told; no switches."""


@dataclass(frozen=True)
class TeamConfig(checks.Checked):
    """The language models."""

    model: tuple[str, ...] = ("tiny",)
    """One for all agents, or one per agent: built in ("tiny", "tiny-sharing"), fetched
    ("smollm2-135m", see `maporl fetch`), a folder, or a Hugging Face hub name."""
    prompts: Prompts = "chat"
    """Prompts of a model that has a chat template: by that template ("chat"), or the bare text of
    the debate ("plain"), which it continues. A model without one always reads "plain"."""
    tuning: Literal["full", "lora", "none"] = "full"
    """All weights of each policy, a LoRA adapter per policy on one frozen base, or nothing."""
    sharing: Sharing = "agent"
    """Sharing of policies: each agent its own ("agent"), each (turn, agent) its own ("turn"), each
    agent two, the first turn apart ("first_turn"), or all agents one ("one")."""
    train_turns: str = ">=1"
    """Turns that are trained, counted from 1: ">=1" or "all", ">=2", or a list such as "2,3". In
    the others agents speak as they began and learn nothing. Paper: ">=2" in experiment 1."""
    train_agents: tuple[int, ...] = ()
    """Agents that are trained, counted from 0; empty for all. The others stay as they began."""
    partners: tuple[str, ...] = ()
    """Agents that are no models of the run, AGENT=NAME each, counted from 0: a simulated user of
    the tasks "bills", "prices" and "backend" by these names,
    endpoint:http://host:port/v1,model=NAME, or one's own as module:function or file.py:function,
    which takes a list of what the agent reads and returns as many texts. They are never trained."""
    lora_rank: int = 8
    """Rank of the adapters. Paper: 8."""
    lora_alpha: int = 16
    """Scale of the adapters (alpha / rank). Paper: 16."""
    start_from: tuple[str, ...] = ()
    """With "lora": adapters from which the policies start, and which are their reference instead of
    the bare base. One folder for all agents or one each: an adapter, or adapters by the policies'
    names, as below a checkpoint's "policies". Rank and scale are then theirs."""
    critic: Literal["trunk", "adapter", "central", "privileged"] = "trunk"
    """The layers below a critic's value head: those of its policy, which it helps to train, or with
    "lora" an "adapter" of its own. "central" is one critic for all agents (MAPPO, MAAC): it reads
    the joint history with the model as it began, and trains no layers of a policy. "privileged" is
    a central one that also reads the hidden reference of each question, as no agent does."""
    critic_width: int = 64
    """Hidden units of each value head. Tiny."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, slower."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the base model's weights."""
    device: str = "auto"
    """ "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU if there is one."""
    devices: tuple[str, ...] = ()
    """A device per agent in place of `device`: each model is loaded once on every device that its
    agents name."""
    device_map: Literal["one", "auto"] = "one"
    """The whole model on the "one" device above, or spread over all there are ("auto")."""
    attention: Attention = "auto"
    """Implementation of attention; "auto" leaves it to transformers (as a rule "sdpa")."""
    quantization: Quantization = "none"
    """Keep the base model's linear layers in 4 ("nf4": QLoRA) or 8 bits ("int8"), by bitsandbytes;
    needs "lora", or "none" for a team that only plays. `dtype` is then that of the arithmetic."""
    shard_base: bool = False
    """Spread the layers of a frozen base over the processes of the run (FSDP2), where it is too
    large for each of them; needs "lora" and no `quantization`. One process keeps it whole."""
    double_quant: bool = False
    """With "nf4": quantise the scales too, which saves another 0.4 bits per weight."""

    template: tuple[str, ...] = ()
    """Switches of the models' chat template, KEY=VALUE each, such as enable_thinking=false or
    reasoning_effort=low: true, false, none and numbers are values, all else is text."""
    thoughts: Thoughts = "hidden"
    """Of models whose chat template marks thoughts: "hidden" from the other agents, the verifier
    and the agent itself in later turns, or "shown". They are trained on in either case."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _read_turns(self.train_turns)
        template_switches(self.template)
        partner_names(self.partners)
        if self.devices and self.device_map == "auto":
            raise ValueError(
                "device_map='auto' spreads each model over all devices, and devices places it on "
                "one: choose one of the two"
            )
        if self.tuning == "full":
            self._require_own_weights()
        if self.shard_base and (
            self.tuning != "lora" or self.quantization != "none" or self.device_map != "one"
        ):
            raise ValueError(
                "shard_base spreads the layers of a frozen base that is not quantised: it needs "
                "tuning='lora', quantization='none' and device_map='one'"
            )
        if self.double_quant and self.quantization != "nf4":
            raise ValueError(
                f"double_quant quantises the scales of 'nf4', and quantization is "
                f"{self.quantization!r}: leave it out, or choose quantization='nf4'"
            )
        if self.central and len(set(self.devices)) > 1:
            raise ValueError(
                f"critic={self.critic!r} reads all messages on one device, and devices names "
                f"{', '.join(dict.fromkeys(self.devices))}: choose critic='trunk', or one device"
            )
        if self.central and len(set(self.model)) > 1:
            raise ValueError(
                f"critic={self.critic!r} reads the token ids of all agents with one model, and "
                f"`model` names {', '.join(dict.fromkeys(self.model))}: choose critic='trunk', or "
                "one model"
            )
        if self.tuning != "lora" and self.critic == "adapter":
            raise ValueError(f"critic='adapter' needs tuning='lora', not {self.tuning!r}")
        if self.tuning != "lora" and self.start_from:
            raise ValueError(
                f"start_from names adapters, so it needs tuning='lora', not {self.tuning!r}; whole "
                "models to begin from are named by `model`"
            )

    @property
    def central(self) -> bool:
        """Whether one critic reads what all agents know."""
        return self.critic in ("central", "privileged")

    def _require_own_weights(self) -> None:
        """Refuse what full tuning, which copies and trains all weights, cannot do."""
        frozen = {
            "quantization": ("none", "freezes the weights"),
            "device_map": ("one", "spreads one frozen model over devices"),
        }
        for name, (trainable, why) in frozen.items():
            if getattr(self, name) != trainable:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} {why}, so it needs tuning='lora' (or 'none' "
                    "for a team that only plays), not 'full'"
                )


def with_extra(config: TeamConfig, num_agents: int, extra: int) -> TeamConfig:
    """Return the settings of a team with trained policies behind its agents; see `Scheme`."""
    if not extra:
        return config
    trained = config.train_agents or tuple(range(num_agents))
    return replace(config, train_agents=(*trained, *range(num_agents, num_agents + extra)))


def partner_names(given: Sequence[str]) -> dict[int, str]:
    """Return what plays the agents that are no models, by agent index.

    Raises:
        ValueError: a text is not AGENT=NAME, or names an agent twice.
    """
    names: dict[int, str] = {}
    for text in given:
        agent, equals, name = text.partition("=")
        if not (equals and name and agent.isascii() and agent.isdecimal()):
            raise ValueError(f"partners are written AGENT=NAME, such as 1=bills, not {text!r}")
        if int(agent) in names:
            raise ValueError(f"partners names agent {int(agent)} twice")
        names[int(agent)] = name
    return names


def template_switches(given: Sequence[str]) -> dict[str, bool | int | float | str | None]:
    """Return the switches of a chat template from texts KEY=VALUE.

    Raises:
        ValueError: a text has another form, repeats a key, or names what every template is told.
    """
    switches: dict[str, bool | int | float | str | None] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (equals and re.fullmatch(r"[A-Za-z_]\w*", name)):
            raise ValueError(f"template switches are written KEY=VALUE, not {text!r}")
        if name in switches:
            raise ValueError(f"template sets {name} twice")
        if name in _OF_RENDERING or name.endswith("_token"):
            raise ValueError(f"template: {name!r} is set for every prompt and is no switch")
        switches[name] = value_of(value)
    return switches


def turns_of(text: str, num_turns: int) -> frozenset[int]:
    """Return the turns, counted from 0, that a text such as ">=2", "all" or "2,3" names.

    Raises:
        ValueError: the text has another form, or names a turn that is not played.
    """
    first, listed = _read_turns(text)
    turns = range(first, num_turns + 1) if first else listed
    if not turns or max(turns) > num_turns:
        raise ValueError(
            f"train_turns={text!r} names a turn that is not played: there are {num_turns}, from 1"
        )
    return frozenset(turn - 1 for turn in turns)


def _read_turns(text: str) -> tuple[int, tuple[int, ...]]:
    """Return (first, ()) of "from the first on", or (0, turns) of a list; all counted from 1."""
    plain = "".join(text.split())
    if plain == "all":
        return 1, ()
    if re.fullmatch(r">=0*[1-9]\d*", plain, re.ASCII):
        return int(plain[2:]), ()
    if re.fullmatch(r"0*[1-9]\d*(,0*[1-9]\d*)*", plain, re.ASCII):
        return 0, tuple(map(int, plain.split(",")))
    raise ValueError(
        f"train_turns={text!r} is not understood: write 'all', '>=2' or a list such as '2,3', "
        "turns counted from 1"
    )
