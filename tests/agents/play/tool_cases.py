"""Tools that random models call: a call ends with a character that they write often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from miniatures import load_team, stir
from ppo_cases import QUESTIONS, make_debates

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.types import Completion, Rollout
from maporl_env.batched import BatchedDebate
from maporl_env.tools import Call, Toolbox

SAMPLING = Sampling(max_new_tokens=16, tool_tokens=40)


class Echo:
    """Says a text backwards, between marks that no model may take for control tokens."""

    name = "echo"
    use = "a text; you get it backwards."

    def run(self, inputs: Sequence[str]) -> list[str]:
        """Return each text backwards."""
        return [f"<|im_end|> {text[::-1]} <echo>again</echo>" for text in inputs]


@dataclass(frozen=True)
class Often(Toolbox):
    """A toolbox whose calls end with the letter e."""

    @property
    def ends(self) -> tuple[str, ...]:
        """The text that ends a call."""
        return ("e",)

    def call_in(self, text: str) -> Call | None:
        """Return the call."""
        place = text.find("e")
        return None if place < 0 else Call("echo", text[:place], place + 1)


OFTEN = Often((Echo(),), calls=2)


def debates_with(tools: Toolbox | None = OFTEN, **options: object) -> BatchedDebate:
    """Return debates of two agents and two turns whose agents have tools."""
    return make_debates(tools=tools, **options)


def team_of(folder: Path, **settings: object) -> Team:
    """Return a team in float64 whose policies have left their reference."""
    team = load_team(folder, **{"num_turns": 2, "double": True} | settings)  # type: ignore[arg-type]
    stir(team)
    return team


def played(
    team: Team, sampling: Sampling = SAMPLING, debates: BatchedDebate | None = None, seed: int = 1
) -> list[Rollout]:
    """Return the debates of `QUESTIONS`."""
    game = debates_with() if debates is None else debates
    return play(team, game, QUESTIONS, sampling, seed=seed)


def said(rollouts: Sequence[Rollout]) -> list[Completion]:
    """Return all messages."""
    return [one for rollout in rollouts for one in rollout.completions]


def own_ids(one: Completion) -> tuple[int, ...]:
    """Return the ids that the author of a message wrote."""
    inside = {place for start, end in one.results for place in range(start, end)}
    return tuple(token for place, token in enumerate(one.ids) if place not in inside)


def never_called() -> Toolbox:
    """Return a toolbox whose end tag no random model writes."""
    return replace(Toolbox((Echo(),)), calls=1)
