"""Players of the benchmark: anything that turns observations into messages.

`Players` are asked for a speaker per batch of debates. Scripted agents and functions are here;
language models are in `maporl_agents.bridges.bench_players`.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from maporl_env.batched import Prompt
from maporl_env.benchmark import knowledge
from maporl_env.benchmark.suite import Case
from maporl_env.scripted import STRATEGIES, Strategy, keep, read
from maporl_env.tasks import load_task
from maporl_env.types import Question
from maporl_env.user_functions import function_named, source_digest

Speak = Callable[[Sequence[Prompt]], Sequence[str]]
"""Writes one message per prompt; `prompt.text`, or `prompt.view`, is all an agent reads."""


class Players(typing.Protocol):
    """Agents that can be scored.

    Attributes:
        name: the label of their row.
        about: what there is to know of them, JSON-ready; a benchmark that was cut goes on only
            with players of the same name and description. Its entry "fingerprint", where there is
            one, tells apart what else looks the same: a function's file, a model's weights.
    """

    @property
    def name(self) -> str:
        """The label of their row."""

    @property
    def about(self) -> dict[str, Any]:
        """The description of these players in a report."""

    def refusal(self, case: Case) -> str:
        """Return why these players cannot play a case, "" if they can."""

    def speaker(self, case: Case, questions: Sequence[Question], seed: int) -> Speak:
        """Return the speaker of all agents in debates about these questions, in their order.

        A speaker may count what it generates in an attribute `tokens`.
        """


@dataclass(frozen=True)
class MadePlayers:
    """Players made of a function that makes speakers; see `Players`."""

    name: str
    make: Callable[[Case, Sequence[Question], int], Speak]
    about: dict[str, Any] = field(default_factory=dict)

    def refusal(self, case: Case) -> str:
        """Scripted agents and functions play every case."""
        return ""

    def speaker(self, case: Case, questions: Sequence[Question], seed: int) -> Speak:
        """Return the speaker."""
        return self.make(case, questions, seed)


_NOTHING: Mapping[str, Any] = MappingProxyType({})


def function_agents(
    name: str, function: Callable[[list[str]], Sequence[str]], about: Mapping[str, Any] = _NOTHING
) -> MadePlayers:
    """Return players whose messages come from a function `prompts -> texts`.

    It is called once per turn for all debates of a batch, with what each agent reads as one text.
    Its source file is part of what is known of them, so that results of a function that was edited
    are not gone on with; of what the file imports only `about` can tell.

    Args:
        name: the label of their row.
        function: gives one text per prompt, in the same order.
        about: what else there is to know of them, e.g. a model's name and temperature.

    Raises:
        ValueError: it cannot be called.
    """
    if not callable(function):
        raise ValueError(f"agents {name!r} must be a function prompts -> texts, not {function!r}")
    source = source_digest(function)
    return MadePlayers(
        name,
        lambda case, questions, seed: lambda prompts: function([p.text for p in prompts]),
        {"kind": "function", **({"fingerprint": source} if source else {}), **about},
    )


SCRIPTED = {
    "keep": "repeats its first message",
    "majority": "adopts the most common answer it has read, its own counted",
    "best": "adopts the message with the best score shown",
    "oracle": "reads the answer key",
    "random": "says any plausible answer in every turn",
}
"""The scripted agents by name, each with a description."""


def scripted_agents(
    name: str, accuracy: float = knowledge.ACCURACY, *, label: str = ""
) -> MadePlayers:
    """Return scripted players.

    Args:
        name: of `SCRIPTED`. Only "oracle" is told the answers; the first three are dealt a first
            message (see `knowledge`) and then go by what they read.
        accuracy: probability that a dealt message is right. Reference results have the default.
        label: of their row, if not the name.

    Raises:
        ValueError: another name, or no probability.
    """
    if name not in SCRIPTED:
        raise ValueError(f"no scripted agents {name!r}: choose one of {', '.join(SCRIPTED)}")
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy is a probability, not {accuracy!r}")
    about: dict[str, Any] = {"kind": "scripted", "script": name, "does": SCRIPTED[name]}
    if name == "random":
        return MadePlayers(label or name, _guessing, about)
    if name == "oracle":
        return MadePlayers(label or name, _script(keep, 1.0), about)
    about["first_answer_accuracy"] = accuracy
    return MadePlayers(label or name, _script(STRATEGIES[name], accuracy), about)


def _guessing(case: Case, questions: Sequence[Question], seed: int) -> Speak:
    return lambda prompts: [
        knowledge.random_message(questions[p.debate], p.agent_index, p.turn) for p in prompts
    ]


def _script(
    strategy: Strategy, accuracy: float
) -> Callable[[Case, Sequence[Question], int], Speak]:
    def make(case: Case, questions: Sequence[Question], seed: int) -> Speak:
        template = load_task(case.task).template

        def say(prompt: Prompt) -> str:
            question = questions[prompt.debate]
            first = knowledge.first_message(question, prompt.agent_index, accuracy)
            return strategy(read(prompt.view, template, first, question.kind))

        return lambda prompts: [say(prompt) for prompt in prompts]

    return make


def named_agents(name: str, label: str = "") -> MadePlayers:
    """Return players by name: a scripted one, or "module:function", a function `prompts -> texts`.

    The folder in which the command runs is searched for modules, too. `label` is that of their row,
    if not the name.

    Raises:
        ValueError: there is nothing of that name.
    """
    if name in SCRIPTED:
        return scripted_agents(name, label=label)
    if ":" not in name:
        raise ValueError(
            f"no agents {name!r}: choose one of {', '.join(SCRIPTED)}, or module:function"
        )
    try:
        function = function_named(name)
    except ValueError as error:
        raise ValueError(f"agents {error}") from error
    return function_agents(label or name, function, {"function": name})
