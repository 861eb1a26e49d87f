"""A team with adapters, servers that hold its base, and requests of several debates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from miniatures import load_team, stir
from vllm_stand_in import StandIn

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.vllm_client import VLLMClient
from maporl_agents.play.vllm_engine import Served
from maporl_agents.types import Request

SAMPLING = Sampling(max_new_tokens=4, temperature=0.7, engine="vllm", url=("http://unused:1",))


def adapted(folder: Path, **settings: object) -> Team:
    """Return a team of two adapters that have moved away from the base."""
    team = load_team(folder, **{"tuning": "lora", "num_turns": 2} | settings)  # type: ignore[arg-type]
    learn(team, seed=1)
    return team


def learn(team: Team, seed: int, scale: float = 0.05) -> None:
    """Change the adapters as an optimiser step would."""
    stir(team, seed, scale)
    team.refresh()


def requests_of(team: Team, debates: int = 2) -> list[Request]:
    """Return a request per debate and agent."""
    return [
        Request(team.policy(agent, 0), tuple(range(5, 11 + agent + debate)), agent, debate)
        for debate in range(debates)
        for agent in range(team.num_agents)
    ]


def clients(servers: Sequence[StandIn], retries: int = 1, seconds: float = 30) -> list[VLLMClient]:
    """Return clients that lose no time between attempts."""
    return [
        VLLMClient(one.url, timeout_seconds=seconds, retries=retries, pause_seconds=0.01)
        for one in servers
    ]


@contextmanager
def engine(
    team: Team,
    servers: Sequence[StandIn],
    folder: Path,
    sampling: Sampling = SAMPLING,
    **limits: float,
) -> Iterator[Served]:
    """Let servers write for a team inside the block."""
    made = Served(team, clients(servers, **limits), sampling, folder)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()
