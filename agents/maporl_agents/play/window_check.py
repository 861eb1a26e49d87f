"""Finds questions that are too long for a team's models before anything is played.

A question fits if every prompt of its debate fits the window of the model that reads it, even where
every earlier message has the largest allowed length. A message may still take more tokens than its
limit under another agent's tokenizer, or where its ids are not those of its text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from maporl_agents.config import LongQuestions, Sampling
from maporl_agents.models.bases import window_of
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.play.speak import Engine, tools_of
from maporl_agents.play.tool_loop import require_shown, tokens_of_results
from maporl_agents.text.chat import Chat
from maporl_agents.types import Completion, KeptIds, Request, StopReason
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.tasks.line_index import IndexedQuestions
from maporl_env.types import Question

PROBED = 1_000
"""Number of questions that are searched for the shortest."""
PLAYED = 200
"""Number of the longest questions that are played where there is a token budget."""
NAMED = 3
"""Number of questions that an error names."""


class NoneFits(ValueError):
    """Not even the shortest question fits: the settings are too large, not the questions.

    Attributes:
        reason: which prompt does not fit which window.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"no {name} question is sure to fit: {reason}; {_WAYS}, or {_RISK}")
        self.reason = reason


Parts = Mapping[str, Sequence[Question]]
Reasons = dict[int, str]
"""Index of a question -> why it does not fit."""


def fitting(
    team: Team, config: DebateConfig, sampling: Sampling, parts: Parts, choice: LongQuestions
) -> tuple[dict[str, Sequence[Question]], dict[str, list[str]]]:
    """Return the questions of each part that fit, and the ids of those that were left out.

    Args:
        team: the team that reads them.
        config: the debate.
        sampling: limits of the messages.
        parts: purpose, e.g. "training" -> its questions.
        choice: "refuse" questions that do not fit, "leave_out" them, or "keep" all without a
            check.

    Raises:
        ValueError: some questions do not fit, and `choice` is "refuse".
        NoneFits: no question of a part fits.
    """
    if choice == "keep":
        return dict(parts), {}
    kept: dict[str, Sequence[Question]] = {}
    left_out: dict[str, list[str]] = {}
    for name, questions in parts.items():
        shortest = [min(questions[:PROBED], key=_length)] if questions else []
        for reason in too_long(team, config, sampling, shortest).values():
            raise NoneFits(name, reason)
        reasons = too_long(team, config, sampling, questions, most=0 if choice != "refuse" else 10)
        if reasons and choice == "refuse":
            raise ValueError(_refusal(name, questions, reasons))
        kept[name] = _without(questions, reasons) if reasons else questions
        if reasons:
            left_out[name] = [questions[place].id for place in reasons]
    return kept, left_out


_WAYS = (
    "lower max_new_tokens, take fewer agents or turns, set the debate's token_budget, or take a "
    "model with a longer window"
)
_RISK = "set long_questions=keep to begin all the same"


def _refusal(name: str, questions: Sequence[Question], reasons: Reasons) -> str:
    first, *others = reasons
    more = ", ".join(repr(questions[place].id) for place in others[:NAMED])
    return (
        f"{name} question {questions[first].id!r} is too long: {reasons[first]}"
        + (f"; so are {'others, e.g. ' if len(others) > NAMED else ''}{more}" if others else "")
        + f". Leave such questions out with long_questions=leave_out, {_WAYS}"
    )


def some(ids: Sequence[str]) -> str:
    """Return the first few of some ids, in words."""
    return ", ".join(ids[:NAMED]) + ", ..." * (len(ids) > NAMED)


def _without(questions: Sequence[Question], reasons: Reasons) -> Sequence[Question]:
    places = [place for place in range(len(questions)) if place not in reasons]
    if isinstance(questions, IndexedQuestions):
        return questions.at(places)
    return [questions[place] for place in places]


@dataclass(frozen=True)
class _Place:
    """One message of a debate on the shortest question.

    Attributes:
        chat: border between text and tokens of the model that reads its prompt.
        room: tokens of the window that the prompt leaves to all copies of the question.
        repeats: number of copies of the question in the prompt.
    """

    chat: Chat
    room: float
    repeats: int


def too_long(
    team: Team,
    config: DebateConfig,
    sampling: Sampling,
    questions: Sequence[Question],
    *,
    most: int = 0,
) -> Reasons:
    """Return why questions do not fit, by index; at most `most` of them unless that is 0.

    Cheap bounds come first: a text has at most as many tokens as bytes. Questions beyond the bounds
    are played with messages of full length. With a token budget, which drops old turns, there are
    no such bounds: the longest questions are played, and the others only if one of those is too
    long.
    """
    if not questions:
        return {}
    debates = BatchedDebate(unscored(config), 1)
    if tools_of(debates) is not None:
        require_shown(team, sampling)
    engine = full_length(team, debates)
    sizes = _sizes(questions)
    if config.token_budget is None:
        windows = [window_of(base.model) for base in team.bases]
        places = _places(team, debates, sampling, questions) if any(windows) else []
        asked = _open(questions, sizes, places)
    else:
        longest = sorted(range(len(sizes)), key=lambda place: -sizes[place])
        some = longest[:PLAYED]
        if all(why_too_long(team, debates, sampling, questions[i], engine) is None for i in some):
            return {}
        asked = iter(range(len(sizes)))
    found: Reasons = {}
    for place in asked:
        if reason := why_too_long(team, debates, sampling, questions[place], engine):
            found[place] = reason
            if len(found) == most:
                break
    return found


def _open(
    questions: Sequence[Question], sizes: Sequence[int], places: Sequence[_Place]
) -> Iterator[int]:
    """Yield the indices of the questions that exceed a bound."""
    for place, size in enumerate(sizes):
        by_bytes = all(size * at.repeats <= at.room for at in places)
        if not by_bytes and not _fits_by_tokens(questions[place], places):
            yield place


def _length(question: Question) -> int:
    return len(_longest_words(question))


def _longest_words(question: Question) -> str:
    """Return the prompt with the longest text that may stand beside it in one view."""
    return question.prompt + max(question.private, key=len, default="") + question.hidden


def _sizes(questions: Sequence[Question]) -> Sequence[int]:
    """Return upper bounds of the bytes of each question's text."""
    if isinstance(questions, IndexedQuestions):
        return questions.row_bytes()
    return [len(_longest_words(q).encode("utf-8", "surrogatepass")) for q in questions]


def _fits_by_tokens(question: Question, places: Sequence[_Place]) -> bool:
    counts: dict[int, int] = {}  # by tokenizer; two more for words that merge with their neighbours
    for at in places:
        if id(at.chat) not in counts:
            counts[id(at.chat)] = len(at.chat.encode(_longest_words(question))) + 2
    return all(counts[id(at.chat)] * at.repeats <= at.room for at in places)


def _places(
    team: Team, debates: BatchedDebate, sampling: Sampling, questions: Sequence[Question]
) -> list[_Place]:
    """Return room and copies of the question per message, from two debates of different length."""
    short = min(questions[:PROBED], key=_length)
    text = "".join(f"\n{number}" for number in range(40))
    engine = full_length(team, debates)
    [one] = play(team, debates, [short], sampling, seed=0, engine=engine)
    longer = replace(short, prompt=short.prompt + text)
    [other] = play(team, debates, [longer], sampling, seed=0, engine=engine)
    found = []
    for message, policy, short_prompt, long_prompt in zip(
        one.transcript.messages, one.policies, one.prompts, other.prompts, strict=True
    ):
        base = team.base_of(policy)
        window = window_of(base.model)
        if window is None:
            continue
        own, added = (len(base.chat.encode(part)) for part in (short.prompt, text))
        grown = len(long_prompt) - len(short_prompt)
        repeats = max(1, math.ceil(grown / max(added, 1)))
        agent = one.transcript.agents.index(message.agent)
        limit = longest_message(sampling, debates, agent, message.turn)
        room = window - limit - (len(short_prompt) - repeats * own)
        found.append(_Place(base.chat, room, repeats))
    return found


def why_too_long(
    team: Team, debates: BatchedDebate, sampling: Sampling, question: Question, engine: Engine
) -> str | None:
    """Return why a question does not fit, by a debate of full length; None if it fits."""
    try:
        [rollout] = play(team, debates, [question], sampling, seed=0, engine=engine)
    except ValueError as error:  # more than the token budget
        return str(error)
    for message, prompt, _, policy in rollout.spoken():
        model = team.base_of(policy).model
        window = window_of(model)
        agent = rollout.transcript.agents.index(message.agent)
        limit = longest_message(sampling, debates, agent, message.turn)
        if window is not None and len(prompt) + limit > window:
            results = tokens_of_results(tools_of(debates), sampling)
            of_tools = f" ({results} of results: game.tool_calls x sampling.tool_tokens)"
            return (
                f"in turn {message.turn + 1} a prompt of {'up to ' * bool(message.turn)}"
                f"{len(prompt)} tokens and {limit} new ones{of_tools if results else ''} do not "
                f"fit the window of {window} tokens of "
                f"{model.name_or_path or type(model).__name__!r}"
            )
    return None


# -- Debates in which every message has the largest allowed length -----------------------------


def unscored(config: DebateConfig) -> DebateConfig:
    """Return a debate in which all messages have the same score, so that no verifier is called."""
    return replace(config, verifier=_any_score, feedback_verifier=None)


def _any_score(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    return [0.9 for _ in responses]


def longest_message(
    sampling: Sampling, debates: BatchedDebate | None, agent: int, turn: int
) -> int:
    """Return the most tokens of a message, those of the results of tools included."""
    return sampling.limit_of(agent, turn) + tokens_of_results(tools_of(debates), sampling)


def full_length(team: Team, debates: BatchedDebate | None = None) -> Engine:
    """Return an engine that writes a stand-in of full length for every message.

    With `debates`, whose agents may have tools, results of full length count too.
    """
    known: dict[tuple[int, int], Completion] = {}

    def write(chat: Chat, tokens: int) -> Completion:
        key = (id(chat), tokens)
        if key not in known:
            known[key] = stand_in(chat, tokens)
        return known[key]

    def engine(
        _: Team, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Completion]:
        return [
            write(
                team.base_of(one.policy).chat,
                longest_message(sampling, debates, one.agent, one.turn),
            )
            for one in asked
        ]

    return engine


def stand_in(chat: Chat, tokens: int) -> Completion:
    """Return a message of exactly `tokens` tokens, if possible also after re-tokenisation."""
    # Thoughts are not read again: one that is begun by the prompt ends here at once.
    thoughts = chat.thoughts if chat.hides else None
    ended = thoughts.closing[:tokens] if thoughts is not None and thoughts.thinking(()) else ()
    ids = (*ended, *filler_ids(chat, tokens - len(ended)))
    undrawn = KeptIds((0,) * tokens, b"")
    return Completion(ids, (0.0,) * tokens, chat.shown_text(ids), StopReason.LENGTH, kept=undrawn)


def filler_ids(chat: Chat, tokens: int) -> list[int]:
    """Return `tokens` ids whose text is encoded as `tokens` ids again, or nearly so."""
    words = [i for text in (" a", " the", " one", "a", "x") for i in chat.encode(text)]
    rows = [[word] * tokens for word in words if word not in chat.stop_ids]
    return min(rows, key=lambda row: abs(len(chat.encode(chat.decode(row))) - tokens))
