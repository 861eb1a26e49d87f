"""Team: the agents' policies and critics, and which (agent, turn) uses which of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

from maporl_agents.config import Sharing
from maporl_agents.models.bases import Base
from maporl_agents.models.critics import ValueHead, critic_adapter, critic_name, units_of
from maporl_agents.models.sources.weight_files import WeightPair, pair, read_file
from maporl_agents.models.trunk import width_of


def policy_name(sharing: Sharing, agent: int, turn: int, *, trained: bool = True) -> str:
    """Return the name of the policy that speaks for an agent in a turn (both from 0).

    Where it is not trained, that is the policy it would have begun as: "agent_0_start".
    """
    return _name(sharing, agent, turn) + ("" if trained else "_start")


def _name(sharing: Sharing, agent: int, turn: int) -> str:
    match sharing:
        case "agent":
            return f"agent_{agent}"
        case "turn":
            return f"agent_{agent}_turn_{turn}"
        case "first_turn":
            return f"agent_{agent}_{'first' if turn == 0 else 'later'}"
        case "one":
            return "all"
    raise ValueError(f"unknown sharing {sharing!r}; choose one of agent, turn, first_turn, one")


class DebateLength(NamedTuple):
    """How long a debate is: its number of turns, and whether the agents of a turn write at once."""

    turns: int
    at_once: bool


CENTRAL = "central"
"""Name of the critic of a team with one for all agents."""
CRITICS_FILE = "critics.safetensors"
"""In a checkpoint: the value heads of a team that has some."""


class Team:
    """The agents of a debate.

    Args:
        bases: language models, each with its policies.
        base_of: name of a policy -> index into `bases`.
        sharing: which (agent, turn) uses which policy.
        num_agents: A.
        num_turns: T; each of these turns has critics of its own, later turns use the last ones.
        trained: the (agent, turn) pairs that are trained; None for all. The others speak as the
            policies the run started from and have no critic.
        critic_width: hidden units of each value head; None for a team without critics.
        central: one critic for all agents and turns, which reads the joint history of a debate
            with the first base as it began (`update.joint_history`).
        privileged: the central critic also reads the hidden reference of the question.
        seed: names the initialisation of the value heads.

    Attributes:
        engine: writes the messages (`play.speak.Engine`); None for the models of this process.
        partners: agents that are none of the models, by index (`play.partners`).
        refreshed: how often the trained parameters have changed.
    """

    engine: Callable[..., Any] | None = None
    partners: Mapping[int, Callable[[Sequence[str]], Sequence[str]]] = MappingProxyType({})
    refreshed: int = 0

    def __init__(
        self,
        bases: Sequence[Base],
        *,
        sharing: Sharing,
        num_agents: int,
        num_turns: int,
        trained: Collection[tuple[int, int]] | None = None,
        critic_width: int | None = 64,
        central: bool = False,
        privileged: bool = False,
        seed: int = 0,
    ) -> None:
        self.bases = list(bases)
        self.sharing: Sharing = sharing
        self.num_agents = num_agents
        self.num_turns = num_turns
        pairs = [(agent, turn) for agent in range(num_agents) for turn in range(num_turns)]
        self._trained = frozenset(pairs if trained is None else trained)
        self._base_of = {policy: base for base in self.bases for policy in base.policies}
        self._seed = seed
        self.central = central and critic_width is not None
        self.privileged = self.central and privileged
        self.critics = nn.ModuleDict() if critic_width is None else self._value_heads(critic_width)

    def _value_heads(self, hidden: int) -> nn.ModuleDict:
        """Return a fresh value head of `hidden` units for each trained (agent, turn)."""
        generator = torch.Generator().manual_seed(self._seed)
        heads = nn.ModuleDict()
        if self.central:
            head = ValueHead(width_of(self.bases[0].model), hidden, generator)
            heads[CENTRAL] = head.to(self.bases[0].device)
            return heads
        for agent, turn in sorted(self._trained):
            base = self.base_of(self.policy(agent, turn))
            head = ValueHead(width_of(base.model), hidden, generator)
            heads[self.critic(agent, turn)] = head.to(base.device)
        return heads

    def trains(self, agent: int, turn: int) -> bool:
        """Return whether agent `agent` learns from what it says in `turn`.

        Turns and agents beyond those the team was made for are as the last ones.
        """
        return (min(agent, self.num_agents - 1), min(turn, self.num_turns - 1)) in self._trained

    def policy(self, agent: int, turn: int) -> str:
        """Return the name of the policy that speaks for agent `agent` in `turn`."""
        turn = min(turn, self.num_turns - 1)
        return policy_name(self.sharing, agent, turn, trained=self.trains(agent, turn))

    def partner_of(self, agent: int) -> Callable[[Sequence[str]], Sequence[str]] | None:
        """Return what speaks for an agent that is none of the models; None for the models."""
        return self.partners.get(agent)

    @property
    def speakers(self) -> int:
        """Number of agents that speak in a debate."""
        return self.num_agents

    def writes_later(self, agent: int, turn: int, length: DebateLength) -> bool:
        """Return whether the weights of a message may write another one after it."""
        own = self.policy(agent, turn)
        base = self.base_of(own)
        first = turn + 1 if length.at_once else turn
        later = {
            self.policy(other, at)
            for at in range(first, length.turns)
            for other in range(self.speakers)
            if (other, at) != (agent, turn)
        }
        weights = {base.weights_of(one) for one in later if self.base_of(one) is base}
        return base.weights_of(own) in weights

    def critic(self, agent: int, turn: int) -> str:
        """Return the name of the value head for agent `agent` in `turn`: one each, or one."""
        if self.central:
            return CENTRAL
        return critic_name(agent, min(turn, self.num_turns - 1))

    def base_of(self, policy: str) -> Base:
        """Return the base model that a policy runs on; ValueError for an unknown policy."""
        if policy not in self._base_of:
            raise ValueError(
                f"no policy {policy!r} in this team; it has {sorted(self._base_of)}. "
                f"The team was made for {self.num_agents} agents"
            )
        return self._base_of[policy]

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of all policies."""
        return tuple(self._base_of)

    def trainable(self) -> Mapping[str, dict[str, nn.Parameter]]:
        """Return the trained parameters by policy, then by name; none of a frozen policy."""
        return {policy: base.trainable(policy) for policy, base in self._base_of.items()}

    def trainable_critics(self) -> dict[str, dict[str, nn.Parameter]]:
        """Return the parameters of the critics by critic, then by name: head, then adapter."""
        trunks = {name: base for base in self.bases for name in base.critics}
        found = {name: dict(head.named_parameters()) for name, head in self.critics.items()}
        for critic, owned in found.items():
            adapter = critic_adapter(critic)
            owned |= trunks[adapter].trainable(adapter) if adapter in trunks else {}
        return found

    def refresh(self) -> None:
        """Copy the trained parameters into the models, after an optimiser step or after loading."""
        self.refreshed += 1
        for base in self.bases:
            base.refresh()

    def save(self, folder: Path) -> None:
        """Write policies, tokenizers and critics below a folder."""
        for base in self.bases:
            base.save(folder / "policies")
            base.save(folder / "critics", critics=True)
        if self.critics:
            save_file(self.critics.state_dict(), folder / CRITICS_FILE)

    def load(self, folder: Path) -> None:
        """Read back what `save` wrote, all of it or, with an error of `read`, nothing."""
        self.take_over(self.read(folder))

    def read(self, folder: Path) -> list[WeightPair]:
        """Pair all trained weights with those that `save` wrote, always in the same order.

        Raises:
            ValueError: names or shapes are not those of this team.
            CheckpointError: a file is missing, damaged, or holds what is no finite number.
        """
        pairs = [pair for base in self.bases for pair in base.read(folder / "policies")]
        for base in self.bases:
            pairs += base.read(folder / "critics", critics=True)
        return pairs + self._read_critics(folder / CRITICS_FILE)

    def _read_critics(self, place: Path) -> list[WeightPair]:
        """Pair the value heads with those of a file.

        Earlier versions gave critics to every team. Where this team has none, a file of theirs is
        checked as ever, since it belongs to the checkpoint's fingerprint, and has no other use.
        """
        heads = self.critics
        if not heads:
            if not place.exists():
                return []
            heads = self._value_heads(units_of(read_file(place)))
        return pair(heads.state_dict(), read_file(place), place)

    @torch.no_grad()
    def take_over(self, pairs: Sequence[WeightPair]) -> None:
        """Copy the saved values into the trained weights they are paired with."""
        for own, saved in pairs:
            own.copy_(saved)
        self.refresh()
