"""B debates in lock step: one generation call and one verifier call per turn.

    batch = BatchedDebate(DebateConfig(task="sharing", num_agents=2), batch_size=64)
    batch.reset(questions)
    while prompts := batch.prompts():
        batch.step(generate([prompt.text for prompt in prompts]))
    rewards = batch.turn_rewards()                       # (B, T, A)

A simultaneous protocol of T turns costs exactly T rounds of this loop, a sequential one T * A, a
leader that answers after its peers 2 * T.
Debates that end early, by consensus, drop out of the prompts and cost nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from maporl_env.config import DebateConfig
from maporl_env.debate import Debate
from maporl_env.game import Game
from maporl_env.rewards import Bools, Floats
from maporl_env.types import AgentID, Question, Transcript, View

__all__ = ["BatchedDebate", "DebateConfig", "Prompt"]


class Prompt(NamedTuple):
    """The view of one agent of one debate before it speaks. Made by :meth:`BatchedDebate.prompts`.

    Attributes:
        debate: index in the batch.
        agent: the reader.
        agent_index: its index: the column in (T, A) arrays.
        turn: the turn that is being played, from 0.
        view: the text as segments, for a chat template.
        text: the same as one text.
    """

    debate: int
    agent: AgentID
    agent_index: int
    turn: int
    view: View
    text: str

    @property
    def seat(self) -> int:
        """The former name of `agent_index`."""
        return self.agent_index


class BatchedDebate:
    """B debates of one kind, played in lock step.

    Args:
        config: the options, or a function without arguments that returns an environment of
            `debate_v0` (whose options are then used) or a `DebateConfig`.
        batch_size: B >= 1.
    """

    def __init__(self, config: DebateConfig | Game | Callable[[], Any], batch_size: int) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be an integer >= 1, not {batch_size!r}")
        self.game = _game(config)
        self.batch_size = batch_size
        self.agents: tuple[AgentID, ...] = self.game.debate().agents
        self.num_turns = self.game.protocol.num_turns
        self._rng = np.random.default_rng()
        self._debates: list[Debate] = []
        self._speaking: list[tuple[int, AgentID]] = []

    @classmethod
    def from_config(cls, config: DebateConfig, batch_size: int) -> BatchedDebate:
        """Return a batch built straight from options."""
        return cls(config, batch_size)

    def reset(
        self, questions: Sequence[Question] | None = None, *, seed: int | None = None
    ) -> None:
        """Start new debates, at most `batch_size` of them.

        Args:
            questions: one per debate; None draws `batch_size` from the split, with replacement.
            seed: of the draws; None goes on with the generator there is.

        Raises:
            ValueError: no question, or more than `batch_size`.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        if questions is None:
            drawn = self._rng.integers(len(self.game.questions), size=self.batch_size)
            questions = [self.game.questions[int(index)] for index in drawn]
        if not 1 <= len(questions) <= self.batch_size:
            raise ValueError(f"{len(questions)} questions for a batch of {self.batch_size} debates")
        debates = [self.game.debate() for _ in questions]
        for debate, question in zip(debates, questions, strict=True):
            debate.reset(question)
        self._debates = debates
        self._list_speakers()

    def take_over(self, debates: Sequence[Debate]) -> None:
        """Play debates that were reset elsewhere, at whatever turn each of them stands.

        Call it again when one of them was reset; the others go on where they are.
        """
        self._debates = list(debates)
        self._list_speakers()

    def _list_speakers(self) -> None:
        self._speaking = [
            (index, agent)
            for index, debate in enumerate(self._debates)
            for agent in debate.speakers
        ]

    def prompts(self) -> list[Prompt]:
        """Return the prompts of agents that may speak now, by debate and agent; [] at the end."""
        prompts = []
        for index, agent in self._speaking:
            debate = self._debates[index]
            reading = debate.reading(agent)
            prompts.append(
                Prompt(index, agent, debate.seats[agent], debate.played, reading.view, reading.text)
            )
        return prompts

    def step(self, texts: Sequence[str], cut: Sequence[bool] | None = None) -> list[bool]:
        """Post one message per prompt, then score all complete turns in one verifier call.

        Args:
            texts: one per prompt, in the same order.
            cut: which texts lack their end, because a limit of their authors' own stopped them;
                by default none. What the action space cuts is marked in any case.

        Returns:
            Which texts are messages now; the others are drafts (see `DebateConfig.tries`).

        Raises:
            ValueError: the wrong number of texts, or one that its debate refuses; nothing changes.
        """
        cut = [False] * len(texts) if cut is None else cut
        if not len(texts) == len(cut) == len(self._speaking):
            marks = "" if len(cut) == len(texts) else f" and {len(cut)} marks"
            raise ValueError(f"{len(texts)} texts{marks} for {len(self._speaking)} prompts")
        for (index, agent), text in zip(self._speaking, texts, strict=True):
            self._debates[index].check(agent, text)
        taken = [
            self._debates[index].accept(agent, text, cut=unfinished)
            for (index, agent), text, unfinished in zip(self._speaking, texts, cut, strict=True)
        ]
        self._score()
        self._list_speakers()
        return taken

    def _score(self) -> None:
        due = [(debate, debate.due()) for debate in self._debates if debate.awaits_scores]
        if not due:
            return
        questions = [debate.question for debate, texts in due for _ in texts]
        responses = [text for _, texts in due for text in texts]
        scores, shown = self.game.score(questions, responses) if responses else ([], None)
        start = 0
        for debate, texts in due:
            part = slice(start, start + len(texts))
            debate.settle(scores[part], None if shown is None else shown[part])
            start = part.stop

    def truncate(self, debate: int, reason: str) -> None:
        """End one debate from outside, e.g. when its generation took too long."""
        self._debates[debate].truncate(reason)
        self._list_speakers()

    @property
    def debates(self) -> tuple[Debate, ...]:
        """The debates themselves, to look at."""
        return tuple(self._debates)

    @property
    def transcripts(self) -> list[Transcript]:
        """The transcript so far of each debate."""
        return [debate.transcript for debate in self._debates]

    @property
    def played(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Complete turns per debate, (B,) int64."""
        return np.array([debate.played for debate in self._debates], dtype=np.int64)

    @property
    def over(self) -> bool:
        """Whether all debates have ended."""
        return not self._speaking

    def turn_rewards(self) -> Floats:
        """Return the reward of every message, (B, T, A) float64; unplayed turns are 0."""
        return np.stack([debate.rewards() for debate in self._debates])

    def score_mask(self) -> Bools:
        """Return which messages have a reward, (B, T, A) booleans; see `Debate.scored`."""
        return np.stack([debate.scored() for debate in self._debates])

    @property
    def faults(self) -> dict[str, int]:
        """Messages without a score by cause, over all calls so far; see `game.Game.faults`."""
        return self.game.faults

    @property
    def costs(self) -> dict[str, int]:
        """Requests and tokens that verifiers used so far; see `Game.costs`."""
        return self.game.costs


def _game(source: DebateConfig | Game | Callable[[], Any]) -> Game:
    if isinstance(source, Game):
        return source
    if isinstance(source, DebateConfig):
        return source.load()
    if not callable(source):
        raise ValueError(f"expected a DebateConfig or a function that makes one, not {source!r}")
    made = source()
    if isinstance(made, DebateConfig):
        return made.load()
    game = getattr(getattr(made, "unwrapped", made), "game", None)
    if not isinstance(game, Game):
        raise ValueError(f"the function must return a debate environment, not {made!r}")
    return game
