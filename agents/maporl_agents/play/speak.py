"""From policies and prompts to completions: the only place that asks a language model to write.

Training, trees, evaluation, benchmark players and the command line all go this way:

    asked = requests(team, debates.prompts(), own)
    completions = speak(team, asked, sampling, seed)

Another engine, such as servers (`vllm_engine`), takes the place of `local_engine.complete` here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from maporl_agents.config import Sampling
from maporl_agents.models.caches.kept_caches import KeptCaches
from maporl_agents.models.team import DebateLength, Team
from maporl_agents.play.local_engine import complete
from maporl_agents.play.partners import answered
from maporl_agents.play.tool_loop import write_with_tools
from maporl_agents.types import Completion, Request, TokenIds
from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.tools import Toolbox
from maporl_env.types import View

Engine = Callable[[Team, Sequence[Request], Sampling, int], list[Completion]]
"""Writes one completion per request.

Takes the team, the requests, the sampling settings and the seed, as `local_engine.complete` does.
"""


class Reply(Protocol):
    """The answer to a request before it is a message."""

    def completion(self) -> Completion:
        """Return the message."""
        ...


@runtime_checkable
class FreeEngine(Protocol):
    """An engine whose messages come one by one, each as soon as it is complete."""

    def begin(
        self, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> Sequence[Future[Reply]]:
        """Ask for one message per request; return at once."""
        ...


@runtime_checkable
class Publishing(Protocol):
    """An engine that holds copies of the team's weights, as servers do."""

    def pinned(self) -> Engine:
        """Return an engine that speaks with the weights of now, whatever is learnt meanwhile."""
        ...

    def check(self) -> None:
        """Compare what was said with the trainer's weights; raises if others spoke."""
        ...


def length_of(debates: BatchedDebate) -> DebateLength:
    """Return the length of an environment's debates, as its protocol sets it."""
    protocol = debates.game.protocol
    return DebateLength(protocol.num_turns, protocol.simultaneous)


def tools_of(debates: object) -> Toolbox | None:
    """Return the tools that agents may call in an environment; None for none."""
    return debates.game.config.toolbox if isinstance(debates, BatchedDebate) else None


def requests(
    team: Team,
    prompts: Sequence[Prompt],
    own: Sequence[Sequence[TokenIds]],
    *,
    first_debate: int = 0,
    with_values: bool = False,
    length: DebateLength | None = None,
) -> list[Request]:
    """Return one request per prompt: the policy of the agent in this turn, and its prompt ids.

    A prompt that several requests share is encoded once.

    Args:
        team: the models.
        prompts: N prompts of an environment.
        own: N lists, the ids of each reader's earlier messages, in order.
        first_debate: index of the first debate among those that are played under one seed.
        with_values: also ask the critics of the messages that are trained on.
        length: the length of the debates, after which no cache is kept; None where it is not
            known.

    Raises:
        ValueError: the team has no policy for an agent and turn.
    """
    encoded: dict[tuple[int, View, tuple[TokenIds, ...]], TokenIds] = {}
    keep: dict[tuple[int, int], bool] = {}
    found: list[Request] = []
    for prompt, earlier in zip(prompts, own, strict=True):
        policy = team.policy(prompt.agent_index, prompt.turn)
        chat = team.base_of(policy).chat
        # Bases differ in tokenizer and template, so the same view has other ids under another one.
        key = (id(chat), prompt.view, tuple(earlier))
        if key not in encoded:
            encoded[key] = chat.prompt_ids(prompt.view, earlier)
        debate = first_debate + prompt.debate
        critic = _critic(team, prompt) if with_values else None
        who = prompt.agent_index, prompt.turn
        if who not in keep:
            keep[who] = length is None or team.writes_later(*who, length)
        text = "" if team.partner_of(who[0]) is None else prompt.text
        found.append(
            Request(policy, encoded[key], who[0], debate, critic, who[1], keep[who], text=text)
        )
    return found


def _critic(team: Team, prompt: Prompt) -> str | None:
    """Return the critic of a message; None if the message is not trained on."""
    trained = team.trains(prompt.agent_index, prompt.turn)
    return team.critic(prompt.agent_index, prompt.turn) if trained else None


def speak(
    team: Team,
    asked: Sequence[Request],
    sampling: Sampling,
    seed: int,
    *,
    engine: Engine | None = None,
    kept: KeptCaches | None = None,
    tools: Toolbox | None = None,
) -> list[Completion]:
    """Return one completion per request, in their order.

    Args:
        team: the models, and the partners that are none.
        asked: the requests; one call of the engine writes all that are not a partner's.
        sampling: limits, stop texts and temperature.
        seed: names the random numbers; equal arguments give equal completions.
        engine: writes the completions; None for that of the team, or else the models of this
            process (`local_engine.complete`).
        kept: key-value caches of earlier calls of the same debates, of which this one makes use.
        tools: that agents may call inside their messages.

    Raises:
        ValueError: a prompt is empty, or leaves too little room in the model's window; or an engine
            truncates and does not say what it kept; or as `write_with_tools`; or a partner gave
            something else than texts.
        RemoteError: a partner's endpoint failed.
    """
    said = dict(answered(team, asked)) if team.partners else {}
    left = [place for place in range(len(asked)) if place not in said]
    models = [asked[place] for place in left]
    written = (
        _by_models(team, models, sampling, seed, engine, kept, tools) if left or not said else []
    )
    said.update(zip(left, written, strict=True))
    return [said[place] for place in range(len(asked))]


def _by_models(
    team: Team,
    asked: Sequence[Request],
    sampling: Sampling,
    seed: int,
    engine: Engine | None,
    kept: KeptCaches | None,
    tools: Toolbox | None,
) -> list[Completion]:
    """Return one completion per request, by the engine."""
    if tools is not None:

        def write(parts: Sequence[Request]) -> list[Completion]:
            return _by_models(team, parts, sampling, seed, engine, kept, None)

        return write_with_tools(write, team, asked, sampling, tools)
    if engine is None:
        engine = team.engine
    if engine is None:
        return complete(team, asked, sampling, seed, kept)
    written = engine(team, asked, sampling, seed)
    if sampling.temperature and sampling.truncation and not all(one.kept for one in written):
        raise ValueError(
            "the engine does not say which ids its tokens were drawn from (Completion.kept), so "
            "their probabilities cannot be computed: set sampling top_k 0, top_p 1 and min_p 0"
        )
    return written
