"""Text templates: how a debate is put into words, one template per task.

A view is built so that what an agent reads only ever grows: the view of turn t + 1 is the view of
turn t, then the agent's own message of turn t, then what is new. A language model can therefore
keep its key-value cache from turn to turn (`architecture.md` calls this append-only).

Other agents' text is hostile input. It stands in a fence of backticks longer than any run of
backticks inside it, so it cannot close the fence (the rule CommonMark uses for code blocks).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from string import Formatter
from typing import NamedTuple

from maporl_env.types import Message, Question, Segment, View

ELISION = "\n[...]\n"
"""Stands where the middle of a text is left out."""
MAX_REMEMBERED_CHARS = 4_000
"""Longer questions are worded anew each time, so that what is remembered stays small."""
_BACKTICKS = re.compile("`{3,}")


@dataclass(frozen=True, slots=True)
class Template:
    r"""The words around a debate. Every field is a `str.format` string.

    Attributes:
        instruction: the answer format, e.g. "Put the answer in \boxed{{}}." (braces doubled).
        opening: start of the first view. Fields: question, instruction.
        peers: head of the block of other agents' answers. Fields: turn (1-based).
        peer: one other agent's answer. Fields: number (1-based, per reader), fence, text, verdict.
        verdict: words for a shown score. Fields: score.
        own_verdict: words for the reader's own shown score. Fields: score.
        again: the question once more, before a later turn. Fields: question, instruction.
        cue: last words before the agent speaks. Fields: turn (1-based).
        nobody: stands in place of `peers` where there are no others (A = 1).
        feedback: words for feedback from outside on a joint answer. Fields: fence, text.
        left_out: stands where the oldest turns were dropped to keep within a token budget.
        shortened: stands behind a text whose middle was left out to keep within a token budget.
            Fields: count (of characters that are missing).
        private: words for the text that the reader alone is told, directly behind the question
            wherever that stands. Fields: text.
        refused: behind a draft of the reader that was not accepted.
        example: one worked example, before the first view. Fields: number (1-based), text.
    """

    instruction: str = "Put your final answer in \\boxed{{}}."
    opening: str = "Question: {question}\n{instruction}\n"
    peers: str = "\nAnswers of the other agents in turn {turn}:\n"
    peer: str = "Agent {number}:\n{fence}\n{text}\n{fence}\n{verdict}"
    verdict: str = "(score {score:.2f})\n"
    own_verdict: str = "\n(score of your answer: {score:.2f})\n"
    again: str = "\nThe question again: {question}\n{instruction}\n"
    cue: str = "\nYour answer in turn {turn}:\n"
    nobody: str = "\nThink about your answer once more.\n"
    feedback: str = "\nFeedback on the joint answer:\n{fence}\n{text}\n{fence}\n"
    left_out: str = "\n(Earlier turns are left out.)\n"
    shortened: str = "(The middle of this text is left out: {count} characters.)\n"
    private: str = "\nYou alone were told: {text}"
    refused: str = "\nThis try does not count. Try again:\n"
    example: str = "Example {number}, with good answers:\n{text}\n\n"

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_fields(field.name, getattr(self, field.name))

    def telling(self, more: str) -> Template:
        """Return a template whose instruction ends with more words, which hold no fields."""
        words = more.replace("{", "{{").replace("}", "}}")
        return replace(self, instruction=f"{self.instruction}\n{words}")


_ALLOWED = {
    "instruction": set(),
    "opening": {"question", "instruction"},
    "peers": {"turn"},
    "peer": {"number", "fence", "text", "verdict"},
    "verdict": {"score"},
    "own_verdict": {"score"},
    "again": {"question", "instruction"},
    "cue": {"turn"},
    "nobody": set(),
    "feedback": {"fence", "text"},
    "left_out": set(),
    "shortened": {"count"},
    "private": {"text"},
    "refused": set(),
    "example": {"number", "text"},
}


def _check_fields(name: str, value: str) -> None:
    try:
        used = {field for _, field, _, _ in Formatter().parse(value) if field is not None}
    except ValueError as error:
        raise ValueError(f"template field {name!r} is not a format string: {error}") from error
    unknown = used - _ALLOWED[name]
    if unknown:
        raise ValueError(
            f"template field {name!r} uses {sorted(unknown)}; it may use {sorted(_ALLOWED[name])} "
            "(write literal braces twice)"
        )


def fence(text: str) -> str:
    """Return a run of backticks, at least three, longer than any run in `text`."""
    if "```" not in text:
        return "```"
    longest = max(len(run) for run in _BACKTICKS.findall(text))
    return "`" * (longest + 1)


def ask(template: Template, question: Question, agent_index: int | None = None) -> str:
    """Return the question as an agent first reads it, with its private text.

    Without a private text where `agent_index` is None.
    """
    return _ask(
        template.opening, template.instruction, question_of(template, question, agent_index)
    )


def ask_again(
    template: Template, question: Question, turn: int, agent_index: int | None = None
) -> str:
    """Return the question again, as `ask` does, and the cue to speak in `turn` (0-based)."""
    again = _ask(template.again, template.instruction, question_of(template, question, agent_index))
    return again + _in_turn(template.cue, turn + 1)


def question_of(template: Template, question: Question, agent_index: int | None) -> str:
    """Return the prompt and behind it the private text of an agent; None for the prompt alone."""
    private = "" if agent_index is None else question.private_of(agent_index)
    return question.prompt + template.private.format(text=private) if private else question.prompt


def _ask(words: str, instruction: str, prompt: str) -> str:
    format_it = _ask_short if len(prompt) <= MAX_REMEMBERED_CHARS else _ask_short.__wrapped__
    return format_it(words, instruction, prompt)


@lru_cache(maxsize=4096)
def _ask_short(words: str, instruction: str, prompt: str) -> str:
    return words.format(question=prompt, instruction=instruction.format())


@lru_cache(maxsize=4096)
def _in_turn(words: str, turn: int) -> str:
    return words.format(turn=turn)


def cue(template: Template, turn: int) -> str:
    """Return the last words before an agent speaks in `turn` (0-based)."""
    return _in_turn(template.cue, turn + 1)


def opening(template: Template, question: Question, agent_index: int | None = None) -> str:
    """Return an agent's first observation, with its private text unless `agent_index` is None."""
    return ask(template, question, agent_index) + _in_turn(template.cue, 1)


def reply(
    template: Template,
    question: Question,
    turn: int,
    own: Message,
    others: Sequence[Message],
    *,
    show_scores: bool,
    agent_index: int | None = None,
) -> str:
    """Return the text between an agent's message of `turn` (0-based) and its next one.

    The agent's private text follows the question, unless `agent_index` is None.
    """
    said = (
        own_verdict(template, own, show_scores=show_scores)
        + peers_messages(template, turn, list(enumerate(others, start=1)), show_scores=show_scores)
        + ask_again(template, question, turn + 1, agent_index)
    )
    return apart(breaks_off(own), said) + said


def own_verdict(template: Template, own: Message, *, show_scores: bool) -> str:
    """Return the words for the reader's own score, empty where it is not shown."""
    if not show_scores or own.feedback is None:
        return ""
    return template.own_verdict.format(score=own.feedback)


def peers_messages(
    template: Template,
    turn: int,
    others: Sequence[tuple[int, Message]],
    *,
    show_scores: bool,
    max_shown: int | None = None,
) -> str:
    """Return the block of the other agents' messages of one turn, each under its number."""
    if not others:
        return template.nobody.format()
    said = _in_turn(template.peers, turn + 1)
    open_end = False
    for number, message in others:
        block = peer(template, number, message, show_scores=show_scores, max_shown=max_shown)
        said += apart(open_end, block) + block
        open_end = breaks_off(message) and block.endswith(message.text)
    return said + apart(open_end, template.again + template.cue)


def breaks_off(message: Message) -> bool:
    """Return whether a message lacks its end and stops within a line."""
    return message.cut and bool(message.text[-1:].strip())


def apart(open_end: bool, next_text: str) -> str:
    """Return the line break between a message that breaks off and a text that begins at once.

    Without it the text would run on from the broken word. Templates with separators need none.
    """
    return "\n" if open_end and next_text[:1].strip() else ""


def peer(
    template: Template,
    number: int,
    message: Message,
    *,
    show_scores: bool,
    max_shown: int | None = None,
) -> str:
    """Return one other agent's fenced answer, shortened to `max_shown` characters."""
    text, note = shorten(template, message.text, max_shown)
    shown = show_scores and message.feedback is not None
    answer = template.peer.format(
        number=number,
        fence=fence(text),
        text=text,
        verdict=template.verdict.format(score=message.feedback) if shown else "",
    )
    return answer + note


def feedback(template: Template, text: str, max_shown: int | None = None) -> str:
    """Return fenced words about a joint answer, shortened to `max_shown` characters."""
    text, note = shorten(template, text, max_shown)
    return template.feedback.format(text=text, fence=fence(text)) + note


def shorten(template: Template, text: str, max_shown: int | None) -> tuple[str, str]:
    """Return a text without its middle, and the words that say so.

    The words stand outside the fence, where no agent can write them. A text that this would not
    make shorter, words included, stays whole.

    Args:
        template: has the words.
        text: of somebody else.
        max_shown: characters that are kept, half of them from each end; None for all.
    """
    if max_shown is None or max_shown >= len(text):
        return text, ""
    note = template.shortened.format(count=len(text) - max_shown)
    if max_shown + len(ELISION) + len(note) >= len(text):
        return text, ""
    end = max_shown // 2
    return text[: max_shown - end] + ELISION + text[len(text) - end :], note


def render(view: View) -> str:
    """Return a view as the single text that is the observation."""
    return "".join([text for _, text in view])


def chat(view: View) -> list[dict[str, str]]:
    """Return a view as chat messages: {"role": "system" | "user" | "assistant", "content": ...}."""
    roles = {"system": "system", "user": "user", "own": "assistant"}
    return [{"role": roles[who], "content": text} for who, text in view]


def join(segments: Sequence[Segment]) -> View:
    """Merge neighbouring segments of the same kind, so that a chat alternates."""
    merged: list[Segment] = []
    for who, text in segments:
        if merged and merged[-1][0] == who:
            merged[-1] = (who, merged[-1][1] + text)
        else:
            merged.append((who, text))
    return tuple(merged)


def count_characters(text: str) -> int:
    """The default token count: a quarter of the characters, rounded up."""
    return -(-len(text) // 4)


class Reading(NamedTuple):
    """The view of one agent as segments and as text, and the number of turns in it."""

    turns: int
    view: View
    text: str

    def then(self, added: View) -> Reading:
        """Return this reading with the block of one more turn."""
        return Reading(self.turns + 1, self.view + added, self.text + render(added))
