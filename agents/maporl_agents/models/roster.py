"""Which policies and critics a team has, on which base models, and the adapters they begin as."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maporl_agents import tiny
from maporl_agents.config import TeamConfig, turns_of
from maporl_agents.models.critics import critic_adapter, critic_name
from maporl_agents.models.sources.model_download import local_name
from maporl_agents.models.team import policy_name


def trained_pairs(config: TeamConfig, num_agents: int, num_turns: int) -> set[tuple[int, int]]:
    """Return the (agent, turn) pairs that `train_agents` and `train_turns` name, both from 0.

    Raises:
        ValueError: one of them names an agent or a turn that does not exist.
    """
    beyond = [agent for agent in config.train_agents if not 0 <= agent < num_agents]
    if beyond:
        raise ValueError(
            f"train_agents names {beyond}, but the {num_agents} agents are 0 to {num_agents - 1}"
        )
    turns = turns_of(config.train_turns, num_turns)
    return {(agent, turn) for agent in config.train_agents or range(num_agents) for turn in turns}


@dataclass(frozen=True)
class Roster:
    """The policies and critics that share one base model, by name.

    Attributes:
        trained: policies that are trained.
        frozen: policies that keep their first weights.
        critics: critics with an adapter of their own.
        starts: policy -> folder of the adapter it begins as; the others begin as the base.
    """

    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    critics: tuple[str, ...] = ()
    starts: Mapping[str, Path] = field(default_factory=dict)

    def kinds(self) -> list[str]:
        """Return one policy of each kind: trained or frozen, and begun as the same adapter."""
        speakers = (*self.frozen, *self.trained)
        return list({(one in self.trained, self.starts.get(one)): one for one in speakers}.values())


def roster(
    config: TeamConfig,
    pairs: Sequence[tuple[int, int]],
    trained: Collection[tuple[int, int]],
    num_agents: int,
) -> Roster:
    """Return the policies and critics of the base model that answers in given (agent, turn) pairs.

    Raises:
        ValueError: the adapters to begin from are missing, or do not agree on a shared policy.
    """
    names = {pair: policy_name(config.sharing, *pair, trained=pair in trained) for pair in pairs}
    starts: dict[str, Path] = {}
    for (agent, turn), policy in names.items():
        if config.start_from:
            folder = start_folder(config, agent, turn, num_agents)
            if starts.setdefault(policy, folder) != folder:
                raise ValueError(
                    f"start_from lets the policy {policy!r} begin as {starts[policy]} and as "
                    f"{folder}: agents that share a policy share its beginning"
                )
    own_critics = [
        critic_adapter(critic_name(*pair))
        for pair in pairs
        if pair in trained and config.critic == "adapter"
    ]
    return Roster(
        trained=tuple(dict.fromkeys(name for pair, name in names.items() if pair in trained)),
        frozen=tuple(dict.fromkeys(name for pair, name in names.items() if pair not in trained)),
        critics=tuple(own_critics),
        starts=starts,
    )


def start_folder(config: TeamConfig, agent: int, turn: int, num_agents: int) -> Path:
    """Return the folder of the adapter that an agent's policy in a turn begins as.

    Raises:
        ValueError: `start_from` has the wrong length, or there is no adapter where it points.
    """
    if len(config.start_from) not in (1, num_agents):
        raise ValueError(
            f"start_from names {len(config.start_from)} folders for {num_agents} agents: name one "
            "for all or one per agent"
        )
    given = Path(config.start_from[agent if len(config.start_from) > 1 else 0])
    policy = policy_name(config.sharing, agent, turn)
    for folder in (given, given / policy, given / "policies" / policy):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise ValueError(
        f"start_from: {given} is no adapter (it has no adapter_config.json) and holds none named "
        f"{policy!r}"
    )


def model_names(config: TeamConfig, num_agents: int) -> list[str]:
    """Return the model of each agent; built-in and fetched ones become the folders of weights."""
    if len(config.model) not in (1, num_agents):
        raise ValueError(
            f"{len(config.model)} models for {num_agents} agents: name one for all or one per agent"
        )
    named = list(config.model) * (num_agents if len(config.model) == 1 else 1)
    return [
        str(tiny.checkpoint(agent, name)) if name in tiny.MODELS else local_name(name)
        for agent, name in enumerate(named)
    ]
