r"""Mathematical equivalence of two answers in LaTeX, by the library `math_verify` (extra "math").

    verifier = MathVerifier()
    question = Question("q", "Expand (x+1)^2.", r"x^2 + 2x + 1", kind="text")
    verifier.score([question], [r"So \boxed{(1 + x)^2}."])       # [1.0]

The library runs in a process of its own, because no time-out inside Python stops what an answer can
ask for, such as `9^{9^{9^9}}`; the process is ended where an answer takes too long.
"""

from __future__ import annotations

import re

from maporl_env.answers import join_thousands, last_box, parse_answer
from maporl_env.missing_extra import is_installed, missing_extra
from maporl_env.reading.answer_lines import answer_line
from maporl_env.types import Question
from maporl_env.verifiers.outside_library import LibraryProcess, LibraryVerifier

MAX_CHARS = 1_000  # of an answer; a longer one is wrong
MAX_REMEMBERED = 4_096
_DIGITS = re.compile(r"[-+0-9.,\s~\\:;]*")
_SEVERAL = re.compile(r"[0-9](?:\s|~|\\[,:; ])+[0-9]")  # which the library multiplies
WORKER = "maporl_env.verifiers.latex_equivalence_worker"


class MathVerifier(LibraryVerifier):
    r"""1 if the boxed answer equals the gold answer as mathematics, else 0.

    Read are numbers, expressions, equations, intervals, sets and matrices in LaTeX; `\frac{1}{2}`
    equals `0.5`, and `x^2+2x+1` equals `(x+1)^2`. An answer that takes too long to compare is
    wrong. A gold answer that cannot be read gives no score.

    Safe to use from several threads, which take turns.

    Args:
        seconds: on the clock, for one answer.

    Raises:
        ImportError: the library is not installed.
        ValueError: `seconds` is no finite number above 0.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        super().__init__(seconds)
        if not is_installed("math_verify"):
            raise ImportError(missing_extra("the verifier math", "math-verify", "math"))
        self._known: dict[tuple[str, str | None], bool] = {}

    def __reduce__(self) -> tuple[type[MathVerifier], tuple[float]]:
        return MathVerifier, (self.seconds,)  # a copy starts a process of its own

    def _one(self, question: Question, text: str) -> float | None:
        gold = _prepared(last_box(question.answer) or question.answer)
        if len(gold) > MAX_CHARS or not self._equal(gold, None):
            return None
        box = answer_line(text) if question.kind == "answer_line" else last_box(text)
        if box is None or len(box) > MAX_CHARS:
            return 0.0
        answer = _prepared(box)
        if _DIGITS.fullmatch(answer) and _SEVERAL.search(answer):
            return 0.0
        number = parse_answer(answer, "number")
        same = number is not None and number == parse_answer(gold, "number")
        return float(same or self._equal(gold, answer))

    def _equal(self, gold: str, answer: str | None) -> bool:
        """Whether two answers are equal, or whether gold is readable; False beyond the time."""
        if (gold, answer) not in self._known:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            request = {"gold": gold, "answer": answer}
            self._known[gold, answer] = self._ask(
                request, lambda reply: bool(reply["equal"]), False
            )
        return self._known[gold, answer]

    def _started(self) -> LibraryProcess:
        return LibraryProcess(WORKER, "math_verify")


def _prepared(text: str) -> str:
    r"""An answer as the library should see it: it reads `12\,000` as 12 times 0."""
    return join_thousands(text).replace("\\boxed", " ").strip()
