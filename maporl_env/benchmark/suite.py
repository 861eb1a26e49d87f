"""The cases of the benchmark as data, each sealed by a digest.

A case is a task, a protocol, A agents, T turns, and fixed questions: the first of the task's test
split, whose order never changes. The digest covers those questions and everything that agents would
read and be scored in a short scripted debate, so a changed word, rule or verifier does not pass for
the same case. Whoever changes a case makes a new `VERSION`; results of two versions never mix.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.tasks import load_task
from maporl_env.types import Question
from maporl_env.verifiers import NoisyKey

VERSION = "maporl-bench-v1"
SPLIT = "test"
PROBED = 4
"""Questions whose debate enters the digest."""
ROLES = ("think :", "think again :", "think once more :")
"""System texts of the pipeline, in the vocabulary of the built-in models."""


@dataclass(frozen=True)
class Case:
    """One game of the suite.

    Attributes:
        task: a built-in task.
        protocol: a name of `protocols.PROTOCOLS`.
        num_agents: A.
        num_turns: T.
        verdicts: whether agents read the scores of a noisy judge (`NoisyKey()`, right in nine of
            ten cases) of earlier messages; measures and rewards always use the true score.
        num_questions: how many are asked, each once: the first of the test split.
        seed: names the noise of whoever plays.
        digest: the first 16 digits of `seal`.
    """

    task: str
    protocol: str
    num_agents: int
    num_turns: int
    verdicts: bool = False
    num_questions: int = 500
    seed: int = 0
    digest: str = ""

    @property
    def name(self) -> str:
        """Return e.g. "shopping/debate/2x3": task, protocol, agents x turns."""
        return f"{self.task}/{self.protocol}/{self.num_agents}x{self.num_turns}"

    def questions(self) -> tuple[Question, ...]:
        """Return the questions that are asked, in order."""
        return tuple(load_task(self.task).split(SPLIT)[: self.num_questions])

    def config(self) -> DebateConfig:
        """Return the options of the debate that differ from the defaults."""
        options: dict[str, Any] = {}
        if self.verdicts:
            options |= {"reward_feedback": True, "feedback_verifier": NoisyKey()}
        if self.protocol == "pipeline":
            options["personas"] = ROLES
        if self.protocol == "joint":
            options["show_parts"] = False
        return DebateConfig(
            task=self.task,
            protocol=self.protocol,
            num_agents=self.num_agents,
            num_turns=self.num_turns,
            split=SPLIT,
            **options,
        )

    def cluster_of(self, question: Question) -> Hashable:
        """Return the key of related questions: a pair of items or amounts, or a set of coins."""
        parts = question.id.split("/")[1].split("-")
        same = parts[1::2] if self.task in ("shopping", "receipts") else parts
        return tuple(sorted(same))

    def require_sealed(self) -> None:
        """Raise ValueError if this installation would play another game under the case's name."""
        if (found := seal(self)) != self.digest:
            raise ValueError(
                f"case {self.name} of {VERSION} has the digest {self.digest}, but what this "
                f"installation would play has {found}: install the release that goes with "
                f"{VERSION}, or, if the change is meant, raise the suite's version"
            )


def seal(case: Case) -> str:
    """Return the digest of a case: its questions, observations, scores and rewards."""
    questions = case.questions()
    batch = BatchedDebate(case.config(), PROBED)
    batch.reset(questions[:PROBED])
    facts: list[Any] = [case.seed, [(q.id, q.prompt, q.answer, q.kind) for q in questions]]
    while prompts := batch.prompts():
        facts.append([(prompt.agent, prompt.view) for prompt in prompts])
        batch.step([_probe(prompt.agent_index, prompt.turn) for prompt in prompts])
    facts += [[m.score for m in transcript.messages] for transcript in batch.transcripts]
    facts += [[str(answer) for answer in debate.outcome()] for debate in batch.debates]
    facts.append(batch.turn_rewards().round(9).tolist())
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _probe(agent_index: int, turn: int) -> str:
    """Messages that probe how a case is worded and scored."""
    return rf"1 * 2 = 2 , \boxed{{ {(agent_index + turn) % 3} }}"


CASES: tuple[Case, ...] = (
    Case("shopping", "debate", 2, 3, digest="cfba56063f98e57a"),
    Case("shopping", "debate", 3, 3, digest="058c863b9f892098"),
    Case("shopping", "sequential", 2, 3, digest="9d2266acc5c1f7a5"),
    Case("shopping", "pipeline", 3, 1, digest="d955103ee2db99c7"),
    Case("sharing", "debate", 2, 3, verdicts=True, digest="f7942243bc86fcc0"),
    Case("sharing", "debate", 3, 4, verdicts=True, digest="3bdf09099996b3e5"),
    Case("coins", "debate", 2, 3, verdicts=True, digest="09194978fcbce7ee"),
    Case("coins", "debate", 5, 2, digest="0cb78c644739368a"),
    Case("coins", "self_correction", 1, 3, verdicts=True, digest="50014d9b32bf3f1f"),
    Case("receipts", "joint", 2, 1, num_questions=288, digest="5f2f79d06852080d"),
)


def choose_cases(patterns: Sequence[str] = ()) -> tuple[Case, ...]:
    """Return the cases whose names match any of the patterns, in the suite's order.

    Args:
        patterns: names, in which * stands for anything ("sharing/*", "*/2x3"); none for all.

    Raises:
        ValueError: a pattern that no case matches; names the cases.
    """
    names = [case.name for case in CASES]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"no case is called {pattern!r}: choose from {', '.join(names)}")
    chosen = {name for pattern in patterns or ("*",) for name in fnmatch.filter(names, pattern)}
    return tuple(case for case in CASES if case.name in chosen)


def listing() -> str:
    """Return the cases, one per line, each with its settings."""
    lines = [f"{VERSION}: {len(CASES)} cases; every question is debated once"]
    for case in CASES:
        shown = ", scores of a noisy judge shown" if case.verdicts else ""
        lines.append(
            f"  {case.name:28}{case.num_questions} questions, seed {case.seed}, digest "
            f"{case.digest}{shown}"
        )
    return "\n".join(lines)
