"""Trains on other PettingZoo environments with text observations and text actions.

    games = OutsideGames(lambda: guess_v0.env(), batch_size=16, num_turns=4)
    for step in range(100):
        train_step(learner, games, games.draw(16, seed=step), config, seed=step)

Several copies are stepped side by side, so that each round is one generation call. Turn t of an
agent is its t-th message. Rewards that an agent gets after a message and before its next count for
that message; rewards before its first message count for the first. The reward of a message is
their discounted sum from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv
from pettingzoo.utils import parallel_to_aec

from maporl_env.batched import Prompt
from maporl_env.types import AgentID, Message, Question, Transcript

Read = Callable[[Any], str]
Write = Callable[[str], Any]
NO_KEY = "code"
"""The kind of answers without a key: only the environment gives rewards."""


def read_text(observation: Any) -> str:
    """Return an observation as text: itself, or the entry "text", "prompt" or "observation".

    Raises:
        ValueError: it is none of these; give `read`.
    """
    if isinstance(observation, str):
        return str(observation)
    if isinstance(observation, Mapping):
        for name in ("text", "prompt", "observation"):
            if isinstance(observation.get(name), str):
                return str(observation[name])
    raise ValueError(
        f"an observation is {type(observation).__name__}, not text: pass read=, a function that "
        "words it"
    )


class OutsideGames:
    """Copies of one environment, in the shape of `BatchedDebate` that `rollout.play` steps.

    An episode that is not over after `num_turns` messages of an agent is broken off there.

    Args:
        make: returns a new AEC or Parallel environment whose observations and actions are text.
        batch_size: how many copies, at least 1.
        num_turns: T, the most messages of one agent.
        gamma: turn discount of later rewards, in [0, 1].
        read: words an observation.
        write: turns a message into an action, whatever the model wrote.

    Raises:
        ValueError: a number that does not fit, or agents that `make` does not name beforehand.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        batch_size: int,
        num_turns: int,
        *,
        gamma: float = 1.0,
        read: Read = read_text,
        write: Write = str,
    ) -> None:
        if batch_size < 1 or num_turns < 1 or not 0 <= gamma <= 1:
            raise ValueError(
                "batch_size and num_turns must be at least 1 and gamma in [0, 1], not "
                f"{batch_size}, {num_turns} and {gamma}"
            )
        self.games = [_Game(make(), num_turns, read, write) for _ in range(batch_size)]
        self.agents = self.games[0].agents
        self.num_turns = num_turns
        self.gamma = gamma
        self._playing: list[_Game] = []

    def draw(self, count: int, *, seed: int) -> list[Question]:
        """Return `count` games to play, each a seed of the environment's reset."""
        seeds = np.random.default_rng(seed).integers(2**31, size=count)
        return [Question(f"game/{int(one)}", "", str(int(one)), NO_KEY) for one in seeds]

    def reset(self, questions: Sequence[Question]) -> None:
        """Start games that `draw` returned, at most `batch_size` of them."""
        if not 1 <= len(questions) <= len(self.games):
            raise ValueError(f"{len(questions)} games for a batch of {len(self.games)}")
        self._playing = self.games[: len(questions)]
        for game, question in zip(self._playing, questions, strict=True):
            game.reset(question)

    def prompts(self) -> list[Prompt]:
        """Return the prompts of the agents that speak next, one per game; [] at the end."""
        return [
            Prompt(index, game.speaker, game.agent_index, game.turn, (("user", text),), text)
            for index, game in enumerate(self._playing)
            if not game.over
            for text in [game.text()]
        ]

    def step(self, texts: Sequence[str], cut: Sequence[bool] | None = None) -> None:
        """Let all prompted agents speak.

        Args:
            texts: one per prompt, in the same order.
            cut: which texts lack their end; only marked in the transcripts.

        Raises:
            ValueError: the wrong number of texts or marks.
        """
        speaking = [game for game in self._playing if not game.over]
        cut = [False] * len(texts) if cut is None else cut
        if not len(texts) == len(cut) == len(speaking):
            marks = "" if len(cut) == len(texts) else f" and {len(cut)} marks"
            raise ValueError(f"{len(texts)} texts{marks} for {len(speaking)} prompts")
        for game, text, unfinished in zip(speaking, texts, cut, strict=True):
            game.say(text, unfinished)

    @property
    def transcripts(self) -> list[Transcript]:
        """The messages of each game, without scores."""
        return [game.transcript for game in self._playing]

    def turn_rewards(self) -> np.ndarray:
        """Return the reward of each message, (B, T, A): R[t] = reward[t] + gamma * R[t + 1]."""
        values = np.stack([game.rewards for game in self._playing])
        for turn in reversed(range(self.num_turns - 1)):
            values[:, turn] += self.gamma * values[:, turn + 1]
        return np.where(self.score_mask(), values, 0.0)

    def returns(self) -> np.ndarray:
        """Return the sum of each agent's rewards, undiscounted, (B, A)."""
        return np.stack([game.rewards.sum(0) for game in self._playing])

    @property
    def costs(self) -> dict[str, int]:
        """Nothing: such an environment asks no verifier."""
        return {}

    def score_mask(self) -> np.ndarray:
        """Return True where there is a message, (B, T, A)."""
        return np.stack([game.spoken for game in self._playing])


class _Game:
    """One environment with the messages and rewards since its reset."""

    def __init__(self, env: Any, num_turns: int, read: Read, write: Write) -> None:
        self.env = parallel_to_aec(env) if isinstance(env, ParallelEnv) else env
        names = getattr(self.env, "possible_agents", None)
        if not names:
            raise ValueError("the environment must name its agents in possible_agents")
        self.agents: tuple[AgentID, ...] = tuple(names)
        self.indices = {agent: index for index, agent in enumerate(self.agents)}
        self.num_turns = num_turns
        self.read, self.write = read, write
        self.over = True

    def reset(self, question: Question) -> None:
        """Reset the environment with the question's seed."""
        self.transcript = Transcript(question, self.agents)
        self.rewards = np.zeros((self.num_turns, len(self.agents)))
        self.spoken = np.zeros(self.rewards.shape, dtype=bool)
        self.over = False
        self.env.reset(seed=int(question.answer))
        self._advance()

    @property
    def speaker(self) -> AgentID:
        """Name of the agent that speaks next."""
        return str(self.env.agent_selection)

    @property
    def agent_index(self) -> int:
        """Index of the agent that speaks next."""
        return self.indices[self.env.agent_selection]

    @property
    def turn(self) -> int:
        """Number of messages that the speaker has written."""
        return int(self.spoken[:, self.agent_index].sum())

    def text(self) -> str:
        """Return the observation of the speaker as text."""
        return self.read(self.env.observe(self.env.agent_selection))

    def say(self, text: str, cut: bool) -> None:
        """Step with the speaker's action, then step the agents that are done."""
        message = Message(self.turn, self.speaker, text, cut=cut)
        self.env.step(self.write(text))
        self.transcript = self.transcript.publish([message])
        self.spoken[message.turn, self.indices[message.agent]] = True
        self._collect()
        self._advance()

    def _collect(self) -> None:
        """Add new rewards to each agent's last message, or to the first it will write."""
        for agent, reward in self.env.rewards.items():
            index = self.indices[agent]
            last = int(self.spoken[:, index].sum()) - 1
            self.rewards[max(last, 0), index] += float(reward)

    def _advance(self) -> None:
        """Go on to the next agent that acts; the game is over if there is none or no turn left."""
        while self.env.agents and self._is_done(self.env.agent_selection):
            self.env.step(None)
        self.over = not self.env.agents or self.turn == self.num_turns

    def _is_done(self, agent: Any) -> bool:
        return bool(self.env.terminations[agent] or self.env.truncations[agent])
