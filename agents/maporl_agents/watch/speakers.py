"""Who writes the messages of a watched debate: a team's models, functions, endpoints, people.

A speaker takes what an agent reads and returns one message. `named` makes the speakers of a roster
such as ("model", "human", "http://127.0.0.1:8000/v1,model=NAME", "mine.py:answer").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from maporl_agents.seeding import seed_of
from maporl_agents.watch.debate import Own
from maporl_env.batched import Prompt
from maporl_env.bridges.endpoint import endpoint_named
from maporl_env.user_functions import function_named, is_own_name, texts_of

if TYPE_CHECKING:
    from maporl_agents.config import Sampling
    from maporl_agents.models.team import Team
    from maporl_env.tools import Toolbox

Speaker = Callable[[Prompt, Sequence[Own], int], Own]
"""Writes a message: takes the prompt, the agent's own messages in it, and how many tries of this
message there were before."""

MODEL, HUMAN = "model", "human"
ROSTER = (
    "model (of the team), human (typed in the page), URL,model=NAME (an OpenAI-compatible server), "
    "or module:function or file.py:function (a function prompts -> texts)"
)


class TeamSpeaker:
    """A team's models; where every message is approved they write what `maporl play` shows.

    Args:
        team: the models.
        sampling: how messages are drawn.
        seed: names the sampling noise.
        tools: that it may call inside its messages; None for none.
    """

    def __init__(
        self, team: Team, sampling: Sampling, seed: int, tools: Toolbox | None = None
    ) -> None:
        from maporl_agents.models.caches.kept_caches import KeptCaches

        self.team, self.sampling, self.seed, self.tools = team, sampling, seed, tools
        self._kept = KeptCaches(team.bases, sampling.cache_gb)

    def __call__(self, prompt: Prompt, own: Sequence[Own], tries: int) -> Own:
        """Return one message; ValueError where the prompt is too long for the model's window."""
        from maporl_agents.play.speak import requests, speak
        from maporl_agents.types import StopReason

        chat = self.team.base_of(self.team.policy(prompt.agent_index, prompt.turn)).chat
        ids = [chat.message_ids(o.text, cut=o.cut) if o.ids is None else o.ids for o in own]
        names = ("play",) if not tries else ("again", tries)
        stream = seed_of(self.seed, *names, prompt.turn, prompt.agent_index)
        asked = requests(self.team, [prompt], [ids])
        [said] = speak(self.team, asked, self.sampling, stream, kept=self._kept, tools=self.tools)
        results, shown = getattr(said.text, "results", ()), getattr(said.text, "shown", True)
        return Own(str(said.text), said.stop is StopReason.LENGTH, said.ids, results, shown)


class FunctionSpeaker:
    """A function `prompts -> texts`, which reads a prompt as one text.

    Args:
        function: a user's own, or an endpoint.
        name: of it, for errors.
    """

    def __init__(self, function: Callable[[list[str]], object], name: str) -> None:
        self.function, self.name = function, name

    def __call__(self, prompt: Prompt, own: Sequence[Own], tries: int) -> Own:
        """Return one message; ValueError where the function gives something else than a text."""
        [text] = texts_of(self.function([prompt.text]), 1, self.name)
        return Own(text)


def require_roster(roster: Sequence[str], num_agents: int) -> tuple[str, ...]:
    """Return one name per agent, "model" for all where none is given.

    Raises:
        ValueError: another number of names than agents, or a name that is none.
    """
    if not roster:
        return (MODEL,) * num_agents
    if len(roster) != num_agents:
        raise ValueError(
            f"--players names {len(roster)} for {num_agents} agents: give one each, in their order"
        )
    for name in roster:
        if name not in (MODEL, HUMAN) and not _is_address(name) and not is_own_name(name):
            raise ValueError(f"there is no player {name!r}: choose {ROSTER}")
    return tuple(roster)


def named(roster: Sequence[str], of_team: Callable[[], Speaker]) -> list[Speaker | None]:
    """Return a speaker per name, None for a person.

    Args:
        roster: names that `require_roster` took.
        of_team: returns the speaker of the team; called if the roster has one.

    Raises:
        ValueError: a function cannot be had, or an address cannot work.
    """
    made: dict[str, Speaker | None] = {HUMAN: None}
    for name in roster:
        if name not in made:
            made[name] = of_team() if name == MODEL else _own_or_address(name)
    return [made[name] for name in roster]


def _own_or_address(name: str) -> Speaker:
    if _is_address(name):
        return FunctionSpeaker(endpoint_named(name), name)
    try:
        return FunctionSpeaker(function_named(name), name)
    except ValueError as error:
        raise ValueError(f"player {error}") from error


def _is_address(name: str) -> bool:
    return name.startswith(("http://", "https://"))
