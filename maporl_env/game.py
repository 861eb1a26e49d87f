"""One game: task, protocol, credit and verifiers, built from a `DebateConfig`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maporl_env.credit import Credit
from maporl_env.debate import Debate
from maporl_env.feedback import scores_paid_and_shown
from maporl_env.protocols import Drafting, Protocol
from maporl_env.tasks.base import Task
from maporl_env.tasks.worked import WorkedExamples
from maporl_env.types import Question, Transcript
from maporl_env.verifiers import Scorer

if TYPE_CHECKING:
    from maporl_env.config import DebateConfig


@dataclass(frozen=True)
class Game:
    """The objects that a config describes. Made by `DebateConfig.load`, shared by many debates.

    Attributes:
        task: the source of the questions.
        protocol: the order of speakers and their views.
        credit: computes the rewards of a finished debate.
        scorer: the verifier, guarded against faults.
        config: the options from which this game was built.
        feedback: the verifier whose scores agents read; None if they read those of `scorer`.
        examples: worked examples that every agent reads first; None for none.
        drafting: lets agents try again; None takes every message.
    """

    task: Task
    protocol: Protocol
    credit: Credit
    scorer: Scorer
    config: DebateConfig
    feedback: Scorer | None = None
    examples: WorkedExamples | None = None
    drafting: Drafting | None = None

    def score(
        self, questions: Sequence[Question], responses: Sequence[str]
    ) -> tuple[list[float | None], list[float | None] | None]:
        """Return the scores for rewards, and those that agents read; see `feedback`."""
        return scores_paid_and_shown(self.scorer, self.feedback, questions, responses)

    @property
    def faults(self) -> dict[str, int]:
        """Number of messages without a score, by cause (see `verifiers.Scorer`)."""
        shown = self.feedback.faults if self.feedback is not None else {}
        return {**self.scorer.faults, **{f"feedback: {why}": n for why, n in shown.items()}}

    @property
    def costs(self) -> dict[str, int]:
        """Requests and tokens that verifiers used so far, by name; {} for those that use none."""
        scorers = [self.scorer, *([] if self.feedback is None else [self.feedback])]
        total: Counter[str] = Counter()
        for scorer in scorers:
            total.update(scorer.costs)
        return dict(total)

    @property
    def questions(self) -> Sequence[Question]:
        """The questions of the chosen split."""
        return self.task.split(self.config.split or self.task.default_split)

    def debate(self) -> Debate:
        """Return a new debate, not yet reset."""
        return Debate(
            self.protocol,
            self.config.num_agents,
            credit=self.credit,
            max_chars=self.config.max_chars,
            on_long=self.config.on_long,
            answer_rule=self.config.answer_rule,
            examples=self.examples,
            drafting=self.drafting,
        )

    def restore(self, history: Transcript) -> Debate:
        """Return a debate in the state after `history`: its messages and scores are replayed.

        A prefix determines the state of a debate, so this also clones one in the middle of it.
        """
        debate = self.debate()
        debate.reset(history.question)
        for message in history.messages:
            debate.check(message.agent, message.text)
            debate.accept(message.agent, message.said, cut=message.cut)
            if debate.awaits_scores:
                turn = [m for m in history.messages if m.turn == message.turn and m.scored]
                same = all(isinstance(m.shown, str) for m in turn)
                shown = None if same else [m.feedback for m in turn]
                debate.settle([m.score for m in turn], shown)
        return debate
