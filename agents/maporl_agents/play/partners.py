"""Agents of a run that are none of its models: scripts, endpoints, functions of the user's.

    team.partners = partners_of(["1=bills"], num_agents=2)

A partner reads what its agent reads, as text, and answers with a text. It is asked wherever a model
would write (`speak`), so it plays in training, in evaluation and in `maporl play` alike. Its
messages are never trained on. One that fails raises, so that no failure becomes a wrong answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from maporl_agents.config import TeamConfig
from maporl_agents.config.team import partner_names
from maporl_agents.models.team import Team
from maporl_agents.types import Completion, Request, StopReason
from maporl_env.bridges.endpoint import Endpoint
from maporl_env.tasks.dialogues import backend, bills, prices
from maporl_env.user_functions import function_named, is_own_name, texts_of

Partner = Callable[[Sequence[str]], Sequence[str]]

SCRIPTED: dict[str, Partner] = {
    "bills": bills.user,
    "prices": prices.user,
    "backend": backend.user,
}
"""Simulated users that answer from the reference they read, by the name of their task."""
ENDPOINT = "endpoint:"


def partners_of(given: Sequence[str], num_agents: int) -> dict[int, Partner]:
    """Return the partners of a team, by agent index; agents of one name share a partner.

    Args:
        given: AGENT=NAME each, see `TeamConfig.partners`.
        num_agents: A.

    Raises:
        ValueError: there is no such agent, or no such partner.
    """
    names = partner_names(given)
    if beyond := [agent for agent in names if agent >= num_agents]:
        raise ValueError(
            f"team.partners names agent {beyond[0]}, and there are {num_agents}, counted from 0: "
            "correct it, or set --game.num-agents"
        )
    made = {name: _partner(name) for name in names.values()}
    return {agent: made[name] for agent, name in names.items()}


def require_untrained(config: TeamConfig, num_agents: int) -> None:
    """Raise ValueError where an agent is to be trained that is no model."""
    trained = config.train_agents or tuple(range(num_agents))
    partners = partner_names(config.partners)
    if both := sorted(set(trained) & set(partners)):
        others = [agent for agent in range(num_agents) if agent not in partners]
        raise ValueError(
            f"agent {both[0]} is played by {partners[both[0]]} (team.partners) and cannot be "
            f"trained: set --team.train-agents {' '.join(map(str, others))}"
        )


def _partner(name: str) -> Partner:
    """Return a partner by its name; ValueError if there is none."""
    if name in SCRIPTED:
        return SCRIPTED[name]
    if name.startswith(ENDPOINT):
        url, comma, model = name.removeprefix(ENDPOINT).rpartition(",model=")
        if not (comma and url and model):
            raise ValueError(
                f"a partner behind an address is written endpoint:http://host:port/v1,model=NAME, "
                f"not {name!r}"
            )
        return Endpoint(url, model)
    if is_own_name(name):
        found: Partner = function_named(name)
        return found
    raise ValueError(
        f"unknown partner {name!r}: choose one of {', '.join(SCRIPTED)}, "
        "endpoint:http://host:port/v1,model=NAME, or your own as module:function or "
        "file.py:function"
    )


def answered(team: Team, asked: Sequence[Request]) -> Mapping[int, Completion]:
    """Return the messages of the partners among some requests, by the place of the request.

    Partners that are one get one call.

    Raises:
        ValueError: a partner gave no list of texts, or not one per prompt.
        RemoteError: an endpoint failed.
    """
    found: dict[int, Completion] = {}
    of = [team.partner_of(one.agent) for one in asked]
    for partner in {id(one): one for one in of if one is not None}.values():
        places = [place for place, one in enumerate(of) if one is partner]
        agents = ", ".join(str(agent) for agent in sorted({asked[place].agent for place in places}))
        texts = texts_of(
            partner([asked[place].text for place in places]),
            len(places),
            f"the partner of agent {agents}",
        )
        for place, text in zip(places, texts, strict=True):
            found[place] = _written(team, asked[place], text)
    return found


def _written(team: Team, request: Request, text: str) -> Completion:
    """Return a partner's message with the ids that it reads of itself later."""
    chat = team.base_of(request.policy).chat
    end = () if chat.end_id is None else (chat.end_id,)
    ids = (*chat.encode(text), *end) or (0,)
    return Completion(ids, (0.0,) * len(ids), text, StopReason.EOS)
