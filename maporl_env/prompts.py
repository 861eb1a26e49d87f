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
from dataclasses import dataclass, fields
from string import Formatter

from maporl_env.types import Message, Question, View

_BACKTICKS = re.compile("`{3,}")


@dataclass(frozen=True, slots=True)
class Template:
    """The words around a debate. Every field is a `str.format` string.

    Attributes:
        instruction: the answer format, e.g. "Put the final answer in \\boxed{{}}." (braces doubled).
        opening: start of the first view. Fields: question, instruction.
        peers: head of the block of other agents' answers. Fields: turn (1-based).
        peer: one other agent's answer. Fields: number (1-based, per reader), fence, text, verdict.
        verdict: words for a shown score. Fields: score.
        own_verdict: words for the reader's own shown score. Fields: score.
        again: the question once more, before a later turn. Fields: question, instruction.
        cue: last words before the agent speaks. Fields: turn (1-based).
        nobody: stands in place of `peers` where there are no others (A = 1).
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

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_fields(field.name, getattr(self, field.name))


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
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=2)
    return "`" * (longest + 1)


def opening(template: Template, question: Question) -> str:
    """Return what every agent reads before the first turn."""
    ask = template.opening.format(
        question=question.prompt, instruction=template.instruction.format()
    )
    return ask + template.cue.format(turn=1)


def reply(
    template: Template,
    question: Question,
    turn: int,
    own: Message,
    others: Sequence[Message],
    *,
    show_scores: bool,
) -> str:
    """Return what an agent reads between its message of `turn` (0-based) and its next one."""
    parts = []
    if show_scores and own.score is not None:
        parts.append(template.own_verdict.format(score=own.score))
    parts.append(template.peers.format(turn=turn + 1) if others else template.nobody.format())
    parts += [
        peer(template, number, message, show_scores=show_scores)
        for number, message in enumerate(others, start=1)
    ]
    parts.append(
        template.again.format(question=question.prompt, instruction=template.instruction.format())
    )
    parts.append(template.cue.format(turn=turn + 2))
    return "".join(parts)


def peer(template: Template, number: int, message: Message, *, show_scores: bool) -> str:
    """Return one other agent's fenced answer."""
    shown = show_scores and message.score is not None
    return template.peer.format(
        number=number,
        fence=fence(message.text),
        text=message.text,
        verdict=template.verdict.format(score=message.score) if shown else "",
    )


def render(view: View) -> str:
    """Return a view as the single text that is the observation."""
    return "".join(text for _, text in view)
