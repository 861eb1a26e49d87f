"""Games in which a team has one seat and a frozen version of it the other.

`SelfPlayGames` has the shape of `BatchedDebate` that `play.rollout.play` steps, so that any scheme
that plays episodes learns in it: it shows the prompts of the learner alone, and lets the opponent
speak in between. Game i is played from seat i % 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from maporl_agents.bridges.outside import NO_KEY, OutsideGames
from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.speak import requests, speak
from maporl_agents.seeding import seed_of
from maporl_env import takeaway_v0
from maporl_env.batched import Prompt
from maporl_env.bridges.textarena import PREFIX, env_maker
from maporl_env.types import Question, Transcript
from maporl_env.user_functions import FORMS

GAMES: dict[str, Callable[[], Any]] = {"takeaway": takeaway_v0.env}
"""Games by name."""


def game_named(name: str) -> Callable[[], Any]:
    """Return the function that makes a game: of `GAMES`, of TextArena, or one's own.

    Raises:
        ValueError: there is no such game, or it has not two players.
    """
    if name not in GAMES and ":" not in name:
        raise ValueError(
            f"unknown game {name!r}: choose one of {', '.join(GAMES)}, {PREFIX}:GAME, or your own "
            f"as {FORMS}"
        )
    make = GAMES[name] if name in GAMES else env_maker(name)
    players = getattr(make(), "possible_agents", None) or ()
    if len(players) != 2:
        raise ValueError(f"self-play is for games of two players, and {name!r} has {len(players)}")
    return make


def questions_of(count: int, *, first: int = 0) -> list[Question]:
    """Return games to play, each the seed of its environment, from number `first` on."""
    return [Question(f"game/{i}", "", str(i), NO_KEY) for i in range(first, first + count)]


class SelfPlayGames:
    """Copies of a game against one opponent, stepped side by side.

    Args:
        make: returns a new environment.
        batch_size: how many copies.
        num_turns: T, the most messages of one player.
        gamma: discount per own message of later rewards.
        sampling: how the opponent's messages are drawn.

    Attributes:
        opponent: the team in the other seat; set by `begin`.
        seed: names the noise of the opponent's messages; likewise.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        batch_size: int,
        num_turns: int,
        *,
        gamma: float,
        sampling: Sampling,
    ) -> None:
        self.games = OutsideGames(make, batch_size, num_turns, gamma=gamma)
        self.agents, self.num_turns = self.games.agents, num_turns
        self.sampling = sampling
        self.opponent: Team | None = None
        self.seed = 0
        self._seats: list[int] = []
        self._round = 0
        self._now: list[Prompt] = []
        self._first: np.ndarray | None = None

    def begin(self, opponent: Team | None, seed: int) -> None:
        """Set the opponent of the games to come, and the name of its noise."""
        self.opponent, self.seed = opponent, seed
        self._seats, self._first = [], None

    def reset(self, questions: Sequence[Question]) -> None:
        """Start games that `questions_of` returned, at most `batch_size` of them."""
        if self._seats and self._first is None:
            self._first = self._outcomes()
        self.games.reset(questions)
        self._seats = [int(question.answer) % 2 for question in questions]
        self._round = 0
        self._now = []

    def prompts(self) -> list[Prompt]:
        """Return the prompts of the learner's seats; [] at the end."""
        while now := self.games.prompts():
            if mine := [prompt for prompt in now if self._is_mine(prompt)]:
                self._now = now
                return mine
            self.games.step(self._replies(now))
        self._now = []
        return []

    def step(self, texts: Sequence[str], cut: Sequence[bool] | None = None) -> None:
        """Let the learner speak, and the opponent in the games in which it is its turn.

        Raises:
            ValueError: the wrong number of texts or marks.
        """
        mine = [self._is_mine(prompt) for prompt in self._now]
        cut = [False] * len(texts) if cut is None else cut
        if not len(texts) == len(cut) == sum(mine):
            raise ValueError(f"{len(texts)} texts and {len(cut)} marks for {sum(mine)} prompts")
        theirs = iter(self._replies([p for p, own in zip(self._now, mine, strict=True) if not own]))
        own_texts, own_cut = iter(texts), iter(cut)
        self.games.step(
            [next(own_texts) if own else next(theirs) for own in mine],
            [next(own_cut) if own else False for own in mine],
        )

    def _is_mine(self, prompt: Prompt) -> bool:
        return prompt.agent_index == self._seats[prompt.debate]

    def _replies(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return what the opponent says to prompts."""
        self._round += 1
        if not prompts:
            return []
        assert self.opponent is not None
        asked = requests(self.opponent, prompts, [()] * len(prompts))
        stream = seed_of(self.seed, "opponent", self._round)
        return [said.text for said in speak(self.opponent, asked, self.sampling, stream)]

    @property
    def transcripts(self) -> list[Transcript]:
        """The learner's messages of each game."""
        return [
            Transcript(
                whole.question,
                whole.agents,
                tuple(m for m in whole.messages if m.agent == whole.agents[seat]),
            )
            for whole, seat in zip(self.games.transcripts, self._seats, strict=True)
        ]

    @property
    def whole_transcripts(self) -> list[Transcript]:
        """The messages of both players of each game."""
        return self.games.transcripts

    def turn_rewards(self) -> np.ndarray:
        """Return the reward of each message of the learner, (B, T, 2)."""
        return np.where(self.score_mask(), self.games.turn_rewards(), 0.0)

    def score_mask(self) -> np.ndarray:
        """Return True where the learner wrote a message, (B, T, 2)."""
        mine = np.array(self._seats)[:, None] == np.arange(2)  # (B, 2)
        return self.games.score_mask() & mine[:, None, :]

    def outcomes(self) -> np.ndarray:
        """Return what the learner got of each game, (B,): 1 for a win, 1/2 for a draw, 0.

        Of the games of the first `reset` since `begin`: schemes may play others as a baseline.
        """
        return self._outcomes() if self._first is None else self._first

    def _outcomes(self) -> np.ndarray:
        paid = self.games.returns()[np.arange(len(self._seats)), self._seats]
        return (np.sign(paid) + 1) / 2

    def unbalanced(self) -> bool:
        """Whether the rewards of some game do not add up to 0."""
        return bool((np.abs(self.games.returns().sum(1)) > 1e-6).any())
