r"""Worked examples for prompts (few-shot), and the rule by which numbers are read.

An example is a short debate on a training question, as the agent that reads it would have seen it:
its own view by the debate's own protocol and template, and its own good messages. A task says what
good messages are (`Task.worked`); without that they are the bare answer, marked as it must be.

Examples are drawn from the split "train" in an order that depends on the task's name and size
alone. None is the question that is asked, and none stands in "validation" or "test".
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from maporl_env import prompts
from maporl_env.answers import KINDS, extract_answer, gold
from maporl_env.prompts import Template
from maporl_env.protocols import PartialTurns, Protocol
from maporl_env.protocols.knowledge import as_known_to
from maporl_env.reading.answer_lines import MARKER
from maporl_env.tasks.base import Task
from maporl_env.types import AgentID, Message, Question, Transcript, View

AnswerRule = Literal["box", "answer_line"]

MEASURED = ("validation", "dev", "test")
"""Splits whose questions are never shown as examples."""
_MARKS = {"answer_line": f"{MARKER} {{}}", "last_line": "A: {}"}
_LINE_INSTRUCTION = f"End with a line that begins with '{MARKER}' and ends with your final number."


def marked(answer: str, kind: str) -> str:
    """Return an answer as a message of its kind marks it: `extract_answer` reads it back."""
    return _MARKS.get(kind, "\\boxed{{{}}}").format(answer)


def read_by(question: Question, rule: AnswerRule) -> Question:
    """Return a question whose answer, if it is a number, is read by `rule`."""
    if rule == "answer_line" and question.kind == "number":
        return replace(question, kind="answer_line")
    return question


def instructing(template: Template, rule: AnswerRule) -> Template:
    """Return a template whose instruction says how an answer is marked under `rule`.

    The line of the instruction that speaks of a box is replaced.
    """
    if rule == "box":
        return template
    lines = template.instruction.split("\n")
    kept = [_LINE_INSTRUCTION if "\\boxed" in line else line for line in lines]
    return replace(template, instruction="\n".join(kept))


def require_numbers(questions: Sequence[Question], rule: AnswerRule) -> None:
    """Raise ValueError if none of some questions, which are in memory, is read by `rule`."""
    if rule == "box" or not isinstance(questions, list | tuple):
        return
    kinds = sorted({question.kind for question in questions})
    if not {"number", "answer_line"} & set(kinds):
        raise ValueError(
            f"answer_rule={rule!r} reads numbers, and the answers of the questions are of kind "
            f"{', '.join(kinds)}: leave answer_rule out"
        )


@dataclass(frozen=True)
class WorkedExamples:
    """The examples of a game. Made by `worked_examples`, read by `Debate`.

    Attributes:
        count: number of examples before a question.
        questions: those of the examples: one more than `count` if there are as many, for the case
            that one of them is asked. It is the shortest, so that no prompt grows by it.
        texts: by agent, the text of each example.
        words: the template of each agent.
    """

    count: int
    questions: tuple[Question, ...]
    texts: tuple[tuple[str, ...], ...]
    words: tuple[Template, ...]

    def text(self, agent_index: int, asked: Question) -> str:
        """Return the worked examples that an agent reads before the question `asked`."""
        places = [i for i, one in enumerate(self.questions) if not _same(one, asked)]
        return self._joined(agent_index, places[: self.count])

    def _joined(self, agent_index: int, places: Sequence[int]) -> str:
        return "".join(
            self.words[agent_index].example.format(
                number=number, text=self.texts[agent_index][place]
            )
            for number, place in enumerate(places, start=1)
        )

    def longest(self, agent_index: int) -> str:
        """Return the longest text that `text` gives an agent."""
        return self._joined(agent_index, range(self.count))

    def before(self, view: View, agent_index: int, asked: Question) -> View:
        """Return a view that begins with the examples, behind a system text."""
        text = self.text(agent_index, asked)
        place = next((i for i, (who, _) in enumerate(view) if who != "system"), len(view))
        ahead, behind = view[:place], view[place:]
        if behind and behind[0][0] == "user":
            return (*ahead, ("user", text + behind[0][1]), *behind[1:])
        return (*ahead, ("user", text), *behind)


def worked_examples(
    task: Task,
    protocol: Protocol,
    agents: Sequence[AgentID],
    count: int,
    rule: AnswerRule,
    words: Sequence[Template],
) -> WorkedExamples | None:
    """Return the worked examples of a game; None for `count` 0.

    Args:
        task: whose training questions are shown.
        protocol: makes the views, without the token budget of the debate.
        agents: of the debate.
        count: number of examples.
        rule: by which numbers are read.
        words: the template of each agent.

    Raises:
        ValueError: the task has too few training questions, or none whose good answer is known.
    """
    if not count:
        return None
    if task.worked is None and task.make_verifier is not None:
        raise ValueError(
            f"task {task.name!r} has no worked answers to show, because no key tells what is "
            "right: set shots=0, or give the task `worked`"
        )
    questions = [read_by(question, rule) for question in _drawn(task, count + 1)]
    if len(questions) < count:
        raise ValueError(
            f"shots={count} takes as many training questions that are not measured on, and task "
            f"{task.name!r} has {len(questions)}: lower shots, or give the task more questions in "
            "a split 'train'"
        )
    for question in questions:
        if task.worked is None and not KINDS[question.kind].keyed:
            raise ValueError(
                f"question {question.id!r} is answered by a program, which its key does not hold: "
                "set shots=0, or give the task `worked`"
            )
        if question.private and len(question.private) != len(agents):
            raise ValueError(
                f"question {question.id!r} has private texts for {len(question.private)} agents, "
                f"not for {len(agents)}: set num_agents={len(question.private)}"
            )
    if isinstance(protocol, PartialTurns):
        raise ValueError(
            f"worked examples are debates in which all agents speak in every turn, and those of "
            f"{type(protocol).__name__} are not: set shots=0"
        )
    debates = [_debate(task, question, agents, protocol.num_turns) for question in questions]
    read = [[_as_read(one, agent, protocol) for agent in range(len(agents))] for one in debates]
    order = list(range(len(read)))
    if len(order) > count:
        order.append(order.pop(min(order, key=lambda place: sum(map(len, read[place])))))
    texts = tuple(tuple(read[place][agent] for place in order) for agent in range(len(agents)))
    return WorkedExamples(count, tuple(questions[place] for place in order), texts, tuple(words))


def _drawn(task: Task, count: int) -> list[Question]:
    """Return the first training questions of a fixed order that are not measured on."""
    training = task.splits.get("train", ())
    measured = [split for name in MEASURED if (split := task.splits.get(name)) is not None]
    if any(split is training for split in measured):
        return []
    in_memory = [split for split in measured if isinstance(split, list | tuple)]
    kept = {question.words for split in in_memory for question in split}
    order = random.Random(f"shots/{task.name}/{len(training)}")
    places = order.sample(range(len(training)), min(len(training), 4 * count + 16))
    drawn: list[Question] = []
    for place in places:
        question = training[place]
        if question.words not in kept:
            kept.add(question.words)
            drawn.append(question)
        if len(drawn) == count:
            break
    return drawn


def _debate(
    task: Task, question: Question, agents: Sequence[AgentID], num_turns: int
) -> Transcript:
    """Return a good debate on a question: its messages, scored by the key, or 1 without one."""
    if task.worked is None:
        turns: Sequence[Sequence[str]] = [[marked(question.answer, question.kind)] * len(agents)]
    else:
        turns = task.worked(question, len(agents))
    messages = tuple(
        Message(turn, agent, text, _score_of(text, question))
        for turn, texts in enumerate(turns[:num_turns])
        for agent, text in zip(agents, texts, strict=True)
    )
    return Transcript(question, tuple(agents), messages)


def _score_of(text: str, question: Question) -> float:
    if not KINDS[question.kind].keyed:  # what a task shows as worked is right
        return 1.0
    return float(extract_answer(text, question.kind) == gold(question.answer, question.kind))


def _as_read(debate: Transcript, agent_index: int, protocol: Protocol) -> str:
    """Return a debate as one agent read it until its last message, with that message."""
    agents = debate.agents
    last = len(debate.messages) - len(agents)
    read = last if protocol.simultaneous else last + agent_index
    history = Transcript(debate.question, agents, debate.messages[:read])
    agent = agents[agent_index]
    view = protocol.view(agent, as_known_to(agent, history, protocol))
    text = prompts.render(tuple(part for part in view if part[0] != "system"))
    return text + debate.messages[last + agent_index].text


def _same(one: Question, other: Question) -> bool:
    return one.id == other.id or one.words == other.words
