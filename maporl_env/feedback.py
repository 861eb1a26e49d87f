"""Feedback that agents read before their next turn: scores of messages, or a text of one's own.

| what agents read | options |
|---|---|
| the score of each earlier message (a verdict), by the verifier of the reward | `reward_feedback` |
| the same by another verifier | `reward_feedback`, `feedback_verifier` |
| in the protocol "joint", a text about the joint answer, by a function | `feedback` |

Such a function is a :data:`Feedback`; `feedback_named` finds it by its name. `prompts` words both
(`Template.verdict`, `own_verdict`, `feedback`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from maporl_env.protocols.joint import Feedback
from maporl_env.types import Question
from maporl_env.user_functions import function_named
from maporl_env.verifiers import Scorer
from maporl_env.verifiers.programs import Diagnostics

__all__ = ["FEEDBACK", "Feedback", "feedback_named", "scores_paid_and_shown"]

_LOGGER = logging.getLogger(__name__)

FEEDBACK: dict[str, Callable[[], Feedback]] = {"tests": Diagnostics}
"""Makers of the feedback on a joint answer by name: "tests" tells how many tests hold."""

Scores = list[float | None]


def feedback_named(name: str) -> Feedback | None:
    """Return the feedback on a joint answer by its name; None for the name "".

    Args:
        name: of :data:`FEEDBACK`, or one's own function as "module:name" or "file.py:name", which
            is called as `function(question, joint_answer)` and returns a text.

    Raises:
        ValueError: there is no such function.
    """
    if not name:
        return None
    if name in FEEDBACK:
        return FEEDBACK[name]()
    try:
        return function_named(name)
    except ValueError as error:
        choices = ", ".join(FEEDBACK)
        raise ValueError(f"feedback {error}; choose {choices}, or leave it empty") from error


def scores_paid_and_shown(
    scorer: Scorer, shown: Scorer | None, questions: Sequence[Question], responses: Sequence[str]
) -> tuple[Scores, Scores | None]:
    """Return the scores for rewards, and those that agents read (None if they are the same).

    An exception of a verifier is logged once, and again when its type changes.

    Args:
        scorer: the verifier of the rewards.
        shown: the verifier whose scores agents read (`feedback_verifier`); None if it is `scorer`.
        questions: one per response.
        responses: the texts that are scored.
    """
    scores = _ask(scorer, "verifier", questions, responses)
    if shown is None:
        return scores, None
    return scores, _ask(shown, "feedback verifier", questions, responses)


def _ask(
    scorer: Scorer, name: str, questions: Sequence[Question], responses: Sequence[str]
) -> Scores:
    before = (scorer.last_error or "").partition(":")[0]
    scores = scorer.score(questions, responses)
    error = scorer.last_error or ""
    if error.partition(":")[0] != before:
        _LOGGER.warning("the %s failed, so messages go without a score: %s", name, error)
    return scores
