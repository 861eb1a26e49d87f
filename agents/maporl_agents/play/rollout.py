"""Playing: steps an environment to the end of its debates. Questions in, rollouts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from maporl_agents import distributed
from maporl_agents.config import Sampling
from maporl_agents.models.caches.kept_caches import KeptCaches
from maporl_agents.models.fsdp import runs_together
from maporl_agents.models.team import Team
from maporl_agents.phases import phase
from maporl_agents.play.free_running import write_freely
from maporl_agents.play.speak import (
    Engine,
    FreeEngine,
    Publishing,
    length_of,
    requests,
    speak,
    tools_of,
)
from maporl_agents.seeding import seed_of
from maporl_agents.types import Completion, Draft, Request, Rollout, StopReason, TokenIds
from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.types import Question, Transcript


class Playable(Protocol):
    """An environment of B episodes: `BatchedDebate`, or another one (see `bridges.outside`)."""

    def reset(self, questions: Sequence[Question]) -> None:
        """Start one episode per question."""

    def prompts(self) -> list[Prompt]:
        """Return one prompt per agent that may speak now, by episode; [] at the end."""

    def step(self, texts: Sequence[str], cut: Sequence[bool]) -> Sequence[bool] | None:
        """Take one text per prompt, in their order, and whether the token limit cut it.

        Return which texts are messages now, the others being drafts; None where all are.
        """

    @property
    def transcripts(self) -> list[Transcript]:
        """The messages so far, per episode."""

    def turn_rewards(self) -> np.ndarray:
        """Return the reward of every message, (B, T, A)."""

    def score_mask(self) -> np.ndarray:
        """Return which messages have a score and are learnt from, (B, T, A) booleans."""


@phase("play")
def play(
    team: Team,
    debates: Playable,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    seed: int,
    first_debate: int = 0,
    engine: Engine | None = None,
    with_values: bool = False,
) -> list[Rollout]:
    """Play one debate per question, in lock step: one generation call per turn.

    With servers a debate goes on as soon as its own turn is complete (`free_running`), unless
    agents have tools. An agent's
    own earlier messages stay in its prompt as the ids it sampled. Of several ranks each plays a
    part of the debates, and returns all; where bases are spread over ranks and write themselves,
    each plays all.

    Args:
        team: who speaks.
        debates: the environment; reset here.
        questions: one per debate, at most the batch size of `debates`.
        sampling: how messages are drawn.
        seed: names the sampling noise.
        first_debate: index of the first debate among those that are played under this seed.
        engine: writes the messages; None for that of the team (`play.speak`).
        with_values: also ask the critics of the messages that are trained on, where they read the
            trunk of the policy (`Completion.values`).
    """
    with_values = with_values and not team.central  # which reads another text
    publishing = team.engine if engine is None and isinstance(team.engine, Publishing) else None
    engine = team.engine if engine is None else engine
    if engine is None and runs_together(team):  # every rank plays all debates
        return _play(team, debates, questions, sampling, seed, first_debate, None, with_values)
    part = distributed.part_of(len(questions))
    first = first_debate + part.start
    own = questions[part]
    played: list[Rollout] = []
    speaking = engine if publishing is None else publishing.pinned()  # all ranks, at once
    if own or not questions:
        played = _play(team, debates, own, sampling, seed, first, speaking, with_values)
        if publishing is not None:
            publishing.check()
    return distributed.joined("debates", played)


def _play(
    team: Team,
    debates: Playable,
    questions: Sequence[Question],
    sampling: Sampling,
    seed: int,
    first_debate: int,
    engine: Engine | None,
    with_values: bool,
) -> list[Rollout]:
    """Play the debates of this rank."""
    debates.reset(questions=questions)
    tapes = [_Tape() for _ in questions]
    free = isinstance(debates, BatchedDebate) and tools_of(debates) is None
    if free and isinstance(engine, FreeEngine):
        write_freely(team, debates, tapes, sampling, seed, first_debate, engine)
    else:
        _write_in_step(team, debates, tapes, sampling, seed, first_debate, engine, with_values)
    return [
        tape.rollout(transcript, rewards, scored)
        for tape, transcript, rewards, scored in zip(
            tapes, debates.transcripts, debates.turn_rewards(), debates.score_mask(), strict=True
        )
    ]


def _write_in_step(
    team: Team,
    debates: Playable,
    tapes: Sequence[_Tape],
    sampling: Sampling,
    seed: int,
    first_debate: int,
    engine: Engine | None,
    with_values: bool,
) -> None:
    """Play debates that have just been reset to their ends, all in lock step."""
    length = length_of(debates) if isinstance(debates, BatchedDebate) else None
    tools = tools_of(debates)
    kept = KeptCaches(team.bases, sampling.cache_gb)
    turn = 0
    while prompts := debates.prompts():
        own = [tapes[prompt.debate].own(prompt.agent_index) for prompt in prompts]
        asked = requests(
            team,
            prompts,
            own,
            first_debate=first_debate,
            with_values=with_values,
            length=length,
        )
        stream = seed_of(seed, "sample", turn)
        completions = speak(team, asked, sampling, stream, engine=engine, kept=kept, tools=tools)
        taken = debates.step(
            [completion.text for completion in completions],
            [completion.stop is StopReason.LENGTH for completion in completions],
        )
        for place, prompt in enumerate(prompts):
            draft = taken is not None and not taken[place]
            tapes[prompt.debate].record(asked[place], completions[place], turn, draft=draft)
        turn += 1


class Spoken(NamedTuple):
    """What was asked for, what was written, and in which call of the sampler."""

    request: Request
    completion: Completion
    round: int


class _Tape:
    """Prompts and completions of one debate, in the order in which they were written."""

    def __init__(self) -> None:
        self.said: list[Spoken] = []
        self.drafts: list[Spoken] = []
        self._trying: dict[int, list[Spoken]] = {}

    def own(self, agent: int) -> list[TokenIds]:
        """Return the ids of an agent's earlier messages, then of the drafts of its next one."""
        said = [one for one in self.said if one.request.agent == agent]
        return [one.completion.ids for one in (*said, *self._trying.get(agent, ()))]

    def record(self, request: Request, completion: Completion, now: int, *, draft: bool) -> None:
        """Add a message or a draft of round `now`."""
        written, agent = Spoken(request, completion, now), request.agent
        if draft:
            self._trying.setdefault(agent, []).append(written)
            self.drafts.append(written)
            return
        self._trying.pop(agent, None)
        self.said.append(written)

    def rollout(self, transcript: Transcript, rewards: np.ndarray, scored: np.ndarray) -> Rollout:
        """Return the finished debate with its tokens."""
        said = self._in_order_of(transcript) if self.drafts else self.said
        return Rollout(
            transcript=transcript,
            prompts=tuple(one.request.prompt for one in said),
            completions=tuple(one.completion for one in said),
            policies=tuple(one.request.policy for one in said),
            rewards=rewards,
            scored=scored,
            rounds=tuple(one.round for one in said),
            drafts=tuple(Draft(one.request, one.completion) for one in self.drafts),
        )

    def _in_order_of(self, transcript: Transcript) -> list[Spoken]:
        """Return the messages in the order of the transcript: who tried again was later."""
        places = {(one.request.turn, one.request.agent): one for one in self.said}
        index = {agent: number for number, agent in enumerate(transcript.agents)}
        return [places[message.turn, index[message.agent]] for message in transcript.messages]
