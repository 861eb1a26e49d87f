"""The systems of the bench: who answers, by what, and where it does not fit.

A system is prepared once per task and seed (a team is trained, a router asked its validation
questions), and then answers all questions in passes. To add one, add an entry to `SYSTEMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from maporl_agents.seeding import seed_of
from maporl_agents.systems import training
from maporl_agents.systems.distilled import distilled_debate
from maporl_agents.systems.mixing import CountedCollab, product
from maporl_agents.systems.playing import (
    MEMBERS,
    Cast,
    Members,
    Play,
    TeamCast,
    by_protocol,
    in_turn,
    is_endpoint,
    one_answer,
    written_by,
)
from maporl_agents.systems.tasks import BenchTask
from maporl_agents.systems.votes import Combine, Pass
from maporl_env.answers import extract_answer
from maporl_env.bridges.calls import Cascade, VerifierRouter
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey

Level = Literal["one model", "calls", "text", "logits", "weights"]


@dataclass(frozen=True)
class Prepared:
    """A system that is ready to answer.

    Attributes:
        cast: its members.
        play: the way to play the pass of a given number, from 0.
        train_tokens: generated to get there.
    """

    cast: Cast
    play: Callable[[int], Play]
    train_tokens: int = 0


@dataclass(frozen=True)
class Inputs:
    """What a system is prepared from.

    Attributes:
        cast: the untrained members.
        seed: of the run.
        folder: for whatever is saved on the way; there again when a job was cut.
        validation: questions that no result is shown on.
        train_tokens: that a training may generate.
    """

    cast: Cast
    seed: int
    folder: Path
    validation: Sequence[Question]
    train_tokens: int


@dataclass(frozen=True)
class System:
    """One system of the bench.

    Attributes:
        name: short and unique.
        label: as people read it.
        level: what its members exchange; see docs/explanation/levels.md.
        prepare: makes it ready.
        messages: of one pass, about.
        trained: whether the training budget is spent on it.
        combine: how its passes make one answer.
        most: the largest number of passes; None for as many as the budget allows.
        needs: what a task must have: "verifier", "different" members, the
            "same prompt" for all, "free text", "logits", "weights".
    """

    name: str
    label: str
    level: Level
    prepare: Callable[[Inputs], Prepared]
    messages: float = 1.0
    trained: bool = False
    combine: Combine = "vote"
    most: int | None = None
    needs: tuple[str, ...] = ()

    def refusal(self, task: BenchTask) -> str:
        """Return why the system does not fit a task, "" if it does."""
        served = any(map(is_endpoint, task.models))
        if "verifier" in self.needs and not task.verifier:
            return "nothing scores an answer at test time"
        if "different" in self.needs and not task.different:
            return "all members are the same model"
        if "same prompt" in self.needs and task.name.startswith("notes"):
            return "members read different texts, so that no prompt can be passed on"
        if "free text" in self.needs and task.models[0].startswith("tiny"):
            return "built-in models cannot write what it asks for"
        if served and (self.trained or {"logits", "weights"} & {*self.needs}):
            return "an endpoint gives texts alone"
        return ""


PROTOCOL_OF = {"self_refinement": "self_correction"}
"""The protocols of systems that have another name."""

# --- Untrained ----------------------------------------------------------------------


def plainly(play: Callable[[int], Play]) -> Callable[[Inputs], Prepared]:
    """Return the preparation of a system that needs none."""
    return lambda inputs: Prepared(inputs.cast, play)


def always(play: Play) -> Callable[[int], Play]:
    """Return the same way to play for every pass."""
    return lambda number: play


def played(
    name: str, label: str, agents: int, turns: int, level: Level = "text", **more: Any
) -> System:
    """Return an untrained team that plays the protocol of its name; `more` as of `System`."""
    protocol = PROTOCOL_OF.get(name, name)
    play = by_protocol(protocol=protocol, num_agents=agents, num_turns=turns)
    return System(name, label, level, plainly(always(play)), **more)


def cascade(cast: Cast, questions: Sequence[Question], temperature: float, seed: int) -> Pass:
    """Ask the first member three times, and the second where no two of its answers agree."""
    members = Members(cast, questions, temperature, seed)
    ask = Cascade([members.member(n) for n in range(MEMBERS)], kind=questions[0].kind)
    return as_pass(ask(members.prompts), questions, members.tokens)


def as_pass(texts: Sequence[str], questions: Sequence[Question], tokens: int) -> Pass:
    """Return the pass of one message per question."""
    read = [extract_answer(text, q.kind) for text, q in zip(texts, questions, strict=True)]
    answers = [() if answer is None else (answer,) for answer in read]
    return Pass(answers, tokens / len(questions))


def router(inputs: Inputs) -> Prepared:
    """Ask all members the validation questions; the key says who is asked what later."""
    told = Members(inputs.cast, inputs.validation, 1.0, seed_of(inputs.seed, "router"))
    by_id = dict(zip([q.id for q in inputs.validation], told.prompts, strict=True))
    fitted = VerifierRouter.fitted(
        [told.member(n) for n in range(MEMBERS)],
        inputs.validation,
        AnswerKey(),
        prompt_of=lambda question: by_id[question.id],
    )

    def play(cast: Cast, questions: Sequence[Question], temperature: float, seed: int) -> Pass:
        members = Members(cast, questions, temperature, seed)
        speakers = [members.member(n) for n in range(MEMBERS)]
        said = replace(fitted, speakers=speakers)(members.prompts)
        return as_pass(said, questions, members.tokens)

    return Prepared(inputs.cast, always(play), told.tokens)


# --- Trained ------------------------------------------------------------------------


def trained(scheme: training.SchemeName, *, alone: bool = False) -> Callable[[Inputs], Prepared]:
    """Return the preparation of a team that a scheme trains.

    Args:
        scheme: see `training.settings_of`.
        alone: members answer alone at test time, one after the other.
    """

    def prepare(inputs: Inputs) -> Prepared:
        made = training.team(
            scheme, inputs.cast.task, inputs.train_tokens, inputs.seed, inputs.folder
        )
        cast = TeamCast(inputs.cast.task, made.team, made.config.sampling)
        if alone:
            return Prepared(cast, in_turn(made.config.game.num_agents), made.tokens)
        return Prepared(cast, always(training.as_trained(made.config)), made.tokens)

    return prepare


def learnt(name: str, label: str, messages: float, by: training.SchemeName) -> System:
    """Return a team that a scheme trains and that plays as it was trained."""
    return System(name, label, "text", trained(by), messages=messages, trained=True)


def one_member(
    make: Callable[[BenchTask, int, int, Path], training.Trained],
) -> Callable[[Inputs], Prepared]:
    """Return the preparation of one model that comes of several trainings.

    Args:
        make: takes the task, the tokens to generate, a seed, and a folder for what is on the way.
    """

    def prepare(inputs: Inputs) -> Prepared:
        made = make(inputs.cast.task, inputs.train_tokens, inputs.seed, inputs.folder)
        cast = TeamCast(inputs.cast.task, made.team, made.config.sampling)
        return Prepared(cast, always(one_answer()), made.tokens)

    return prepare


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System("one", "one answer", "one model", plainly(always(one_answer())), most=1),
        System("vote", "vote", "one model", plainly(in_turn(MEMBERS))),
        System(
            "best_of_n",
            "best of N by the verifier",
            "one model",
            plainly(in_turn(MEMBERS, choosing=True)),
            combine="best",
            needs=("verifier",),
        ),
        played("self_refinement", "self-refinement, 3 turns", 1, 3, "one model", messages=3),
        played("debate", "debate, 2 x 3", 2, 3, messages=6),
        played("teams_and_judge", "teams and judge, 4 + 1", 5, 2, messages=5),
        played("review", "review, 3 versions", 3, 1, messages=3),
        played(
            "retrieve",
            "retrieve, 5 answers and a retriever",
            agents=6,
            turns=1,
            messages=6,
            needs=("free text",),
        ),
        played("lessons", "lessons, 2 agents solve twice", 2, 3, messages=6, needs=("verifier",)),
        System(
            "router",
            "router, fitted on validation questions",
            "calls",
            router,
            needs=("different", "same prompt"),
        ),
        System(
            "cascade",
            "cascade by agreement",
            "calls",
            plainly(always(cascade)),
            messages=3.5,
            needs=("same prompt",),
        ),
        System(
            "product",
            "product of experts",
            "logits",
            plainly(always(written_by(product))),
            needs=("different", "logits", "same prompt"),
        ),
        System(
            "collab",
            "Collab, rollouts scored by the verifier",
            "logits",
            plainly(always(written_by(CountedCollab))),
            messages=100,
            most=1,
            needs=("verifier", "different", "logits", "same prompt"),
        ),
        System(
            "alone",
            "PPO, each trained alone; vote",
            "one model",
            trained("alone", alone=True),
            trained=True,
        ),
        learnt("maporl", "MAPoRL: debate, 2 x 3", 6, "maporl"),
        learnt("grpo", "GRPO: debate, 2 x 3", 6, "grpo"),
        learnt("ppo_review", "PPO: review, 2 versions", 2, "review"),
        learnt("malt", "MALT: pipeline of 3", 3, "malt"),
        learnt("mlpo", "MLPO: peer and leader", 2, "mlpo"),
        learnt("magrpo", "MAGRPO: joint answer, revised once", 4, "magrpo"),
        learnt("iac", "IAC: joint answer, revised once", 4, "iac"),
        System(
            "merged",
            "two adapters trained apart, merged",
            "weights",
            one_member(training.merged_team),
            trained=True,
            needs=("weights",),
        ),
        System(
            "fused",
            "FuseLLM: a MAPoRL debate distilled into one model",
            "logits",
            one_member(distilled_debate),
            trained=True,
            needs=("logits",),
        ),
    )
}
"""The systems by name, in the order of the tables."""


def system(name: str) -> System:
    """Return a system by name; ValueError names those there are."""
    if name not in SYSTEMS:
        raise ValueError(f"unknown system {name!r}: choose from {', '.join(SYSTEMS)}")
    return SYSTEMS[name]
