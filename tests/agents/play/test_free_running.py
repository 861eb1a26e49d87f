"""Debates that do not wait for each other: the texts of lock step, asked for earlier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from miniatures import load_team
from served_cases import SAMPLING, adapted, engine
from vllm_stand_in import running

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import complete
from maporl_agents.play.rollout import play
from maporl_agents.types import Completion, Request, Rollout
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.services.http_json import RemoteUnavailable
from maporl_env.types import Question

QUESTIONS = [
    Question("q/0", "how much is two and three ?", "5"),
    Question("q/1", "how many ?", "7"),
    Question("q/2", "hello world ?", "9"),
]


def even(question: Question, text: str) -> bool:
    return len(text) % 2 == 0


PROTOCOLS: dict[str, dict[str, object]] = {
    "debate": {},
    "debate, consensus": {"stop": "consensus"},
    "debate with drafts": {"tries": 3, "accept": even},
    "sequential": {"protocol": "sequential"},
    "pipeline": {"protocol": "pipeline", "num_turns": 1, "personas": ("Write.", "Check.")},
}
ENDINGS = [0.7, 0.0]


def debates(**options: object) -> BatchedDebate:
    settings = {"task": QUESTIONS, "num_agents": 2, "num_turns": 2} | options
    return BatchedDebate(DebateConfig(**settings), 3)  # type: ignore[arg-type]


@dataclass
class Said:
    """A message that is there."""

    message: Completion

    def completion(self) -> Completion:
        return self.message


@dataclass
class Held:
    """An engine that holds back messages until it is told to give them; nothing runs beside it."""

    team: Team
    asked: list[tuple[int, int, int]] = field(default_factory=list)
    held: list[tuple[Future[Said], Said]] = field(default_factory=list)
    hold: Callable[[Request], bool] = lambda request: False
    until: Callable[[Request], bool] = lambda request: False

    def __call__(self, *_: object) -> list[Completion]:
        raise AssertionError("it gives messages one by one")

    def begin(self, asked: Sequence[Request], sampling: Sampling, seed: int) -> list[Future[Said]]:
        written = complete(self.team, asked, sampling, seed)
        futures = []
        for request, message in zip(asked, written, strict=True):
            self.asked.append((request.debate, request.turn, request.agent))
            future: Future[Said] = Future()
            if self.hold(request):
                self.held.append((future, Said(message)))
            else:
                future.set_result(Said(message))
            if self.until(request):
                for waiting, reply in self.held:
                    waiting.set_result(reply)
                self.held.clear()
            futures.append(future)
        return futures


def said(rollouts: Sequence[Rollout]) -> list[object]:
    return [
        (
            one.transcript,
            one.prompts,
            [c.ids for c in one.completions],
            one.policies,
            one.rewards.tolist(),
            one.scored.tolist(),
            one.rounds,
            [(draft.request, draft.completion.ids) for draft in one.drafts],
        )
        for one in rollouts
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("temperature", ENDINGS)
def test_rollouts_are_those_of_lock_step(checkpoint, protocol: str, temperature: float) -> None:
    team = load_team(checkpoint("llama"), num_turns=2)
    sampling = Sampling(max_new_tokens=4, temperature=temperature)
    options = PROTOCOLS[protocol]
    together = play(team, debates(**options), QUESTIONS, sampling, seed=3, first_debate=5)
    freely = play(
        team,
        debates(**options),
        QUESTIONS,
        sampling,
        seed=3,
        first_debate=5,
        engine=Held(team),
    )
    assert said(freely) == said(together)


def test_a_debate_does_not_wait_for_the_others(checkpoint) -> None:
    """Debate 0 hears nothing before debate 2 is asked for its last message: no lock step."""
    team = load_team(checkpoint("llama"), num_turns=2)
    held = Held(
        team,
        hold=lambda request: request.debate == 0 and request.turn == 0,
        until=lambda request: request.debate == 2 and request.turn == 1 and request.agent == 1,
    )
    found = play(team, debates(), QUESTIONS, Sampling(max_new_tokens=4), seed=3, engine=held)
    assert said(found) == said(play(team, debates(), QUESTIONS, Sampling(max_new_tokens=4), seed=3))
    turns = [(debate, turn) for debate, turn, _ in held.asked]
    assert turns.index((2, 1)) < turns.index((0, 1))


def test_an_agent_of_a_turn_does_not_go_on_before_the_others(checkpoint) -> None:
    """A held message of agent 1 holds its own debate: agents read whole turns."""
    team = load_team(checkpoint("llama"), num_turns=2)
    held = Held(
        team,
        hold=lambda request: (request.debate, request.turn, request.agent) == (0, 0, 1),
        until=lambda request: request.debate == 1 and request.turn == 1 and request.agent == 1,
    )
    play(team, debates(), QUESTIONS, Sampling(max_new_tokens=4), seed=3, engine=held)
    last = held.asked.index((1, 1, 1))
    assert held.asked.index((0, 1, 0)) > last


def test_turns_that_are_complete_together_are_scored_in_one_call(checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=2)
    calls: list[int] = []

    def verifier(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        calls.append(len(responses))
        return [0.5] * len(responses)

    game = debates(verifier=verifier)
    found = play(team, game, QUESTIONS, Sampling(max_new_tokens=4), seed=3, engine=Held(team))
    assert calls == [6, 6]
    assert all(np.all(one.scored) for one in found)


def test_a_request_that_fails_ends_the_play_and_the_other_requests(checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=2)
    waiting: list[Future[Said]] = []

    class Failing(Held):
        def begin(self, asked: Sequence[Request], *_: object) -> list[Future[Said]]:
            futures: list[Future[Said]] = [Future() for _ in asked]
            waiting.extend(futures)
            if asked[0].debate == 2:
                futures[0].set_exception(RemoteUnavailable("gone"))
            return futures

    with pytest.raises(RemoteUnavailable, match="gone"):
        play(team, debates(), QUESTIONS, Sampling(max_new_tokens=4), seed=3, engine=Failing(team))
    assert [future.cancelled() for future in waiting] == [True] * 4 + [False, True]


@pytest.mark.parametrize("temperature", ENDINGS)
def test_a_served_debate_is_the_local_one(checkpoint, tmp_path: Path, temperature: float) -> None:
    folder = checkpoint("llama")
    team = adapted(folder)
    sampling = replace(SAMPLING, temperature=temperature)
    local = play(team, debates(), QUESTIONS, sampling, seed=3)
    with (
        running(folder) as one,
        running(folder) as two,
        engine(team, [one, two], tmp_path, sampling) as served,
    ):
        team.engine = served
        found = play(team, debates(), QUESTIONS, sampling, seed=3)
        assert served.distance < 1e-4
    assert said(found) == said(local)
    assert all(completion.served for rollout in found for completion in rollout.completions)
