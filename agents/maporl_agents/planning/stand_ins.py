"""Debates in which every message is a stand-in of full length: what a run can come to at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from maporl_agents.config import GameConfig, Sampling, TrainConfig
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
"""So many questions are looked through for the longest one."""


def with_message_tokens(config: TrainConfig, tokens: int) -> TrainConfig:
    """Return a run in which every message may have so many tokens; as it is, if that is 0."""
    if not tokens:
        return config
    limits = replace(config.sampling, max_new_tokens=tokens, agent_max_new_tokens=())
    return replace(config, sampling=limits)


def first_questions(
    config: TrainConfig, count: int, tokens: int, chat: Chat
) -> tuple[list[Question], Question]:
    """Return the questions of the first step, and the longest one there is.

    If `tokens` is not 0 they are made up, of so many tokens.
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
    return play(team, debates, questions, sampling, seed=0, engine=full_length(team))


def stage(game: GameConfig, questions: Sequence[Question], *, made_up: bool) -> BatchedDebate:
    """Return an environment in which all messages score alike, so that no verifier is loaded.

    Made-up questions need no task and no data; they are put in the default words.
    """
    plain = debate_config(unjudged(game))
    if made_up:
        plain = replace(plain, task=list(questions), data=None)
    return BatchedDebate(unscored(plain), len(questions))


class EndlessChat(Chat):
    """The border of a model whose messages all reach their limits, whatever it samples.

    Nothing ends a message. Its own ids stay in its prompts; the others read a stand-in in its
    place, of as many tokens. The work of reading what was sampled is done all the same.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, embeddings: int | None = None
    ) -> None:
        super().__init__(tokenizer, embeddings=embeddings)
        self.stop_ids = frozenset()
        self._plain = Chat(tokenizer, embeddings=embeddings)
        self._heard: dict[int, str] = {}

    def decode(self, ids: Sequence[int]) -> str:
        """Return a text of as many tokens."""
        self._plain.decode(ids)
        if len(ids) not in self._heard:
            self._heard[len(ids)] = stand_in(self._plain, len(ids)).text
        return self._heard[len(ids)]

    def completes(self, ids: Sequence[int], texts: Sequence[str]) -> bool:
        """Return False, after the same search as ever."""
        self._plain.completes(ids, texts)
        return False
