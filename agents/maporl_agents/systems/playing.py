"""One pass of a system over questions: who speaks, by which protocol, and what it costs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import torch

from maporl_agents.bridges.bench_players import TeamSpeaker
from maporl_agents.config import GameConfig, Sampling, TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.speak import Engine
from maporl_agents.seeding import seed_of
from maporl_agents.systems.tasks import BenchTask
from maporl_agents.systems.votes import Pass
from maporl_agents.training.make_game import make_game
from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.bridges.endpoint import Endpoint
from maporl_env.prompts import count_characters
from maporl_env.types import Question

BATCH = 100
"""Debates side by side."""
MEMBERS = 2
"""Members of untrained systems: agents 0 and 1, who differ where the task's models do."""
MOST_AGENTS, MOST_TURNS = 6, 8
"""Of any untrained system of the bench."""
USUAL_TOKENS = 300
"""Limit of a message of models that are not built in."""


class Speaker(Protocol):
    """Writes one text per prompt, and counts what it generates in `tokens`."""

    tokens: int

    def __call__(self, prompts: Sequence[Prompt]) -> Sequence[str]:
        """Return the texts."""


class Cast(Protocol):
    """The members of a system: models that answer prompts as agents 0, 1, ..."""

    @property
    def task(self) -> BenchTask:
        """The task that they play."""

    def speaker(self, temperature: float, seed: int, engine: Engine | None = None) -> Speaker:
        """Return all members as one speaker; `engine` writes in their place where it is given."""


Play = Callable[[Cast, Sequence[Question], float, int], Pass]
"""Answers every question once. Takes the cast, the questions, the temperature and a seed."""


@dataclass(frozen=True)
class TeamCast:
    """A team of this process, see `Cast`.

    Attributes:
        task: that it plays.
        team: the models.
        limits: of messages; None for those of the task.
    """

    task: BenchTask
    team: Team
    limits: Sampling | None = None

    def speaker(self, temperature: float, seed: int, engine: Engine | None = None) -> TeamSpeaker:
        """Return the members as one speaker."""
        limits = self.limits or Sampling(max_new_tokens=self.task.max_new_tokens or USUAL_TOKENS)
        whole = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "model_temperature": False}
        sampling = replace(limits, temperature=temperature, **whole)  # type: ignore[arg-type]
        return TeamSpeaker(self.team, sampling, seed, engine)


class EndpointSpeaker:
    """A model at an OpenAI-compatible address; tokens are a quarter of the characters, see `Cast`.

    Args:
        endpoint: the address.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.tokens = 0

    def __call__(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return one text per prompt."""
        texts = self.endpoint([prompt.text for prompt in prompts])
        self.tokens += sum(max(1, count_characters(text)) for text in texts)
        return texts


@dataclass(frozen=True)
class EndpointCast:
    """Members that are one model at an address, see `Cast`.

    Attributes:
        task: that they play.
        address: URL,model=NAME.
    """

    task: BenchTask
    address: str

    def speaker(
        self, temperature: float, seed: int, engine: Engine | None = None
    ) -> EndpointSpeaker:
        """Return the members as one speaker.

        Raises:
            ValueError: an engine is given, which needs the models' distributions, or the address
                has another form.
        """
        if engine is not None:
            raise ValueError("an endpoint gives texts, and this system needs next-token logits")
        url, comma, name = self.address.partition(",model=")
        if not comma or not name:
            raise ValueError(
                f"an endpoint is named URL,model=NAME, as in http://127.0.0.1:8000/v1,model=qwen, "
                f"not {self.address!r}"
            )
        options = {
            "temperature": temperature,
            "max_tokens": self.task.max_new_tokens or USUAL_TOKENS,
        }
        return EndpointSpeaker(Endpoint(url, name, options=options))


def is_endpoint(model: str) -> bool:
    """Return whether the name of a model is the address of one."""
    return model.startswith(("http://", "https://"))


def untrained(task: BenchTask) -> Cast:
    """Return the untrained cast of a task."""
    [*models] = task.models
    if len(models) == 1 and is_endpoint(models[0]):
        return EndpointCast(task, models[0])
    return TeamCast(task, _team(task.models))


@lru_cache(maxsize=1)
def _team(models: tuple[str, ...]) -> Team:
    config = TeamConfig(model=models, tuning="none")
    return make_team(config, num_agents=MOST_AGENTS, num_turns=MOST_TURNS, seed=0)


def forget_models() -> None:
    """Give the memory of untrained teams back, before other processes load them."""
    _team.cache_clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- Ways to play -------------------------------------------------------------------


def by_protocol(**options: Any) -> Play:
    """Return the way to play one game of a protocol per question.

    Args:
        options: of the game.
    """

    def play(cast: Cast, questions: Sequence[Question], temperature: float, seed: int) -> Pass:
        game = cast.task.game(**options)
        return played(game, cast.speaker(temperature, seed), questions)

    return play


def one_answer(member: int = 0, *, choosing: bool = False) -> Play:
    """Return the way to ask one member once.

    Args:
        member: its index.
        choosing: keep the verifier's scores of the answers, by which the best pass is chosen.
    """

    def play(cast: Cast, questions: Sequence[Question], temperature: float, seed: int) -> Pass:
        game = cast.task.game(num_agents=1, num_turns=1)
        speak = cast.speaker(temperature, seed)
        return played(game, speak, questions, seats=(member,), choosing=choosing)

    return play


def in_turn(members: int, *, choosing: bool = False) -> Callable[[int], Play]:
    """Return, for the pass of a given number, the way to ask the next member."""
    return lambda number: one_answer(number % members, choosing=choosing)


def written_by(engine_of: Callable[[Cast, Sequence[Question]], Engine]) -> Play:
    """Return the way to let an engine write one message per question."""

    def play(cast: Cast, questions: Sequence[Question], temperature: float, seed: int) -> Pass:
        game = cast.task.game(num_agents=1, num_turns=1)
        found = []
        for start in range(0, len(questions), BATCH):
            part = questions[start : start + BATCH]
            engine = engine_of(cast, part)
            speak = cast.speaker(temperature, seed_of(seed, start), engine)
            one = played(game, speak, part)
            extra = getattr(engine, "tokens", 0) / len(part)
            found.append(one._replace(tokens=one.tokens + extra))
        tokens = sum(one.tokens * len(one.answers) for one in found) / len(questions)
        return Pass([answers for one in found for answers in one.answers], tokens)

    return play


def played(
    game: GameConfig,
    speak: Speaker,
    questions: Sequence[Question],
    *,
    seats: Sequence[int] = (),
    choosing: bool = False,
) -> Pass:
    """Play one game per question.

    Args:
        game: the game; its verifier is what is known at test time.
        speak: all members.
        questions: to be asked.
        seats: the member that plays each agent; () for agent i as member i.
        choosing: see `one_answer`.

    Raises:
        ValueError: the verifier failed.
    """
    members = list(seats) or list(range(game.num_agents))
    asked = [question.dealt_to(_of_texts(members, question)) for question in questions]
    debates = make_game(game).debates(min(BATCH, len(asked)))
    before, answers, scores = speak.tokens, [], []
    for start in range(0, len(asked), BATCH):
        debates.reset(asked[start : start + BATCH])
        while prompts := debates.prompts():
            seated = [
                prompt._replace(
                    agent_index=members[prompt.agent_index], debate=start + prompt.debate
                )
                for prompt in prompts
            ]
            debates.step(speak(seated))
        answers += [debate.outcome() for debate in debates.debates]
        scores += [transcript.messages[-1].score for transcript in debates.transcripts]
    _require_verdicts(debates)
    tokens = (speak.tokens - before) / len(asked)
    return Pass(answers, tokens, scores if choosing else ())


def _of_texts(members: Sequence[int], question: Question) -> list[int]:
    """Return whose private text each agent reads: there are fewer texts than agents at times."""
    return [member % max(1, len(question.private)) for member in members]


def _require_verdicts(debates: BatchedDebate) -> None:
    for scorer in (debates.game.scorer, debates.game.feedback):
        if scorer is not None and (scorer.faults["raised"] or scorer.faults["timed out"]):
            raise ValueError(f"the verifier failed: {scorer.last_error}")


# --- Calls --------------------------------------------------------------------------

Texts = Callable[[Sequence[str]], Sequence[str]]


class Members:
    """The members of a cast as functions from prompts to texts, about some questions.

    Args:
        cast: the members.
        questions: that they are asked about.
        temperature: of sampling.
        seed: names the noise.

    Attributes:
        prompts: one text per question.
        tokens: generated so far.
    """

    def __init__(
        self, cast: Cast, questions: Sequence[Question], temperature: float, seed: int
    ) -> None:
        game = cast.task.game(num_agents=1, num_turns=1)
        debates = make_game(game).debates(len(questions))
        debates.reset([question.dealt_to([0]) for question in questions])
        asked = debates.prompts()
        self.prompts = [prompt.text for prompt in asked]
        self.tokens = 0
        self._by_text = {prompt.text: prompt for prompt in asked}
        self._cast, self._temperature, self._seed = cast, temperature, seed
        self._calls = 0

    def member(self, index: int) -> Texts:
        """Return one member."""

        def speak(texts: Sequence[str]) -> list[str]:
            noise = seed_of(self._seed, "call", self._calls)
            speaker = self._cast.speaker(self._temperature, noise)
            asked = [
                self._by_text[text]._replace(debate=place, agent_index=index)
                for place, text in enumerate(texts)
            ]
            said = list(speaker(asked)) if asked else []
            self._calls += 1
            self.tokens += speaker.tokens
            return said

        return speak
