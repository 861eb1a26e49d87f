"""Debates in which every message is a stand-in of full length: the largest step of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from maporl_agents.config import GameConfig, RunConfig, Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.questions import questions_of_step
from maporl_agents.play.rollout import play
from maporl_agents.play.window_check import filler_ids, full_length, stand_in, unscored
from maporl_agents.text.chat import Chat
from maporl_agents.training.make_game import debate_config, training_questions, unjudged
from maporl_agents.types import Rollout
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question

LONGEST_OF = 5000
"""Number of questions that are searched for the longest."""


def with_message_tokens(config: RunConfig, tokens: int) -> RunConfig:
    """Return a run with `tokens` as the limit of every message; unchanged if that is 0."""
    if not tokens:
        return config
    return replace(config, sampling=config.sampling.limited_to(tokens))


def first_questions(
    config: RunConfig, count: int, tokens: int, chat: Chat
) -> tuple[list[Question], Question]:
    """Return the questions of the first step, and the longest question.

    If `tokens` is not 0, they are made up and have `tokens` tokens.
    """
    if tokens:
        filler = Question("stand-in", chat.decode(filler_ids(chat, tokens)), "0", "number")
        return [filler] * count, filler
    questions = training_questions(config.game)
    asked = questions_of_step(questions, 0, count, config.seed)
    some = (questions[i] for i in range(min(len(questions), LONGEST_OF)))
    return asked, max([*some, *asked], key=lambda question: len(question.words))


def act(
    team: Team,
    game: GameConfig,
    questions: Sequence[Question],
    sampling: Sampling,
    *,
    made_up: bool = False,
) -> list[Rollout]:
    """Return debates on the questions in which every message is a stand-in of full length."""
    debates = stage(game, questions, made_up=made_up)
    return play(team, debates, questions, sampling, seed=0, engine=full_length(team, debates))


def stage(game: GameConfig, questions: Sequence[Question], *, made_up: bool) -> BatchedDebate:
    """Return an environment in which all messages have the same score: no verifier is loaded.

    Made-up questions need no task and no data; they use the default prompt template.
    """
    plain = debate_config(unjudged(game))
    if made_up:
        plain = replace(plain, task=list(questions), data=None)
    return BatchedDebate(unscored(plain), len(questions))


class EndlessChat(Chat):
    """The border of a model whose messages always reach their limits.

    Nothing ends a message. Its own ids stay in its prompts; the others read a stand-in of equal
    length in its place. Sampled ids are still decoded, so that this work is timed.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, embeddings: int | None = None
    ) -> None:
        super().__init__(tokenizer, embeddings=embeddings)
        self.stop_ids = frozenset()
        self.hides = False  # messages that are shown as a whole are the longest to be read
        self._plain = Chat(tokenizer, embeddings=embeddings)
        self._texts: dict[int, str] = {}

    def decode(self, ids: Sequence[int]) -> str:
        """Return a stand-in text of the same number of tokens."""
        self._plain.decode(ids)
        if len(ids) not in self._texts:
            self._texts[len(ids)] = stand_in(self._plain, len(ids)).text
        return self._texts[len(ids)]

    def completes(self, ids: Sequence[int], texts: Sequence[str]) -> bool:
        """Return False, after the same search as in a real run."""
        self._plain.completes(ids, texts)
        return False
