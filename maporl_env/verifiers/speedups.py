"""Rewrites of a slow program: is a rewrite right, and by what factor does it use less CPU time?

A question of kind "code" whose `answer` is a `Suite` (see `programs`) and whose prompt shows the
original program in a fenced block. LessonL (arXiv 2505.23946) ranks rewrites by such a speed-up s.

How s is measured:

- **CPU time, counted by the kernel** for the program's whole process, from loading it to its end;
  read by the supervisor, which the program cannot reach. Sleeping is free, work at load time or
  between two calls is not, and neither threads nor other processes can be started.
- **The calls that are timed are the calls that are checked**: each run is one run of the tests. A
  rewrite that is wrong in any of its runs is wrong, s = 0.
- **Each run in a new process**: nothing that one has computed is there for the next.
- **Paired and interleaved**: original, rewrite, rewrite, original, ... A drift of the machine's
  speed meets both.
- **Noise is no speed-up**: s is the median ratio of the pairs, and 1.0 unless the distribution-free
  interval of that median, of at least 95 %, leaves 1 out.

The time of loading and of the calls' transport, 2 to 5 ms a run, counts for both: a lower bound on
large speed-ups. Instructions would be steadier, but virtual machines seldom count them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from maporl_env.answers import extract_program
from maporl_env.sandbox import Result, Sandbox
from maporl_env.types import Question
from maporl_env.verifiers.programs import MAX_TOLD, Suite, parse

CONFIDENCE = 0.95
LEAST_PAIRS = 6
"""With fewer, no interval of 95 % exists: all of 5 pairs agree by chance in 1 case of 16."""


@dataclass(frozen=True, slots=True)
class Speedup:
    """What a rewrite is worth. Made by `measure`.

    Attributes:
        correct: whether every run of the tests held.
        value: s; 0 unless correct, 1 within noise.
        low: lower end of the interval of the median ratio; as measured, also within noise.
        high: upper end.
        original_seconds: CPU time of the original, median of its runs.
        seconds: CPU time of the rewrite, likewise.
        noise: half the range of the original's times over their median.
        detail: why the rewrite is wrong.
    """

    correct: bool
    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    original_seconds: float = 0.0
    seconds: float = 0.0
    noise: float = 0.0
    detail: str = ""

    def __str__(self) -> str:
        if not self.correct:
            return f"wrong: {self.detail}"
        return (
            f"right, {self.value:.2f} times as fast (ratio {self.low:.2f} to {self.high:.2f}; CPU "
            f"time {1e3 * self.original_seconds:.1f} to {1e3 * self.seconds:.1f} ms; the original "
            f"alone varies by {self.noise:.0%})"
        )


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the distribution-free interval of a median: two of the ordered values.

    The k-th smallest and k-th largest of n hold the median with probability
    1 - 2 P(Binomial(n, 1/2) < k); the largest such k with at least `confidence` is taken.

    Raises:
        ValueError: too few values for any k.
    """
    ordered, tail, k = sorted(values), 0.0, 0
    for below in range(len(ordered) // 2):
        tail += math.comb(len(ordered), below) / 2 ** len(ordered)
        if 1 - 2 * tail < confidence:
            break
        k = below + 1
    if k == 0:
        raise ValueError(f"{len(ordered)} values give no interval of {confidence:.0%}: take more")
    return ordered[k - 1], ordered[-k]


def speedup(original: Sequence[float], rewrite: Sequence[float]) -> Speedup:
    """Return the speed-up of a right rewrite from the CPU times of paired runs.

    Args:
        original: seconds, one for each pair.
        rewrite: seconds, likewise.
    """
    least = 1e-6  # the kernel's unit: no time is 0
    ratios = [max(one, least) / max(two, least) for one, two in zip(original, rewrite, strict=True)]
    low, high = median_interval(ratios)
    usual = median(original)
    return Speedup(
        correct=True,
        value=1.0 if low <= 1 <= high else median(ratios),
        low=low,
        high=high,
        original_seconds=usual,
        seconds=median(rewrite),
        noise=(max(original) - min(original)) / 2 / max(usual, least),
    )


def measure(
    sandbox: Sandbox, suite: Suite, original: str, rewrite: str, pairs: int = 7
) -> Speedup | None:
    """Return the speed-up of a rewrite; None where the sandbox or the original failed.

    Args:
        sandbox: where both run; with one worker, or runs slow each other down.
        suite: the tests.
        original: the slow program, trusted.
        rewrite: any program.
        pairs: how often both run, at least 6; an even number begins with either as often.
    """
    first = sandbox.run(suite.job(rewrite))
    if first.outcome in ("invalid", "lost"):
        return None
    if first.outcome != "passed":
        return Speedup(False, detail=_reason(first))
    jobs = {True: suite.job(original), False: suite.job(rewrite)}
    order = [place % 4 in (0, 3) for place in range(2 * pairs)]  # whether it is the original
    runs = list(zip(order, sandbox.run_many([jobs[one] for one in order]), strict=True))
    if any(run.outcome != "passed" for is_original, run in runs if is_original):
        return None
    for is_original, run in runs:
        if not is_original and run.outcome != "passed":
            return Speedup(False, detail=_reason(run)) if run.outcome != "lost" else None
    times = {kind: [run.cpu_seconds for one, run in runs if one == kind] for kind in jobs}
    return speedup(times[True], times[False])


def _reason(result: Result) -> str:
    held = f"{result.passed} of {result.total} tests hold, " if result.total else ""
    return f"{held}it {result.outcome}: {result.detail or 'no details'}"


@dataclass(frozen=True)
class Speedups:
    """A verifier that scores the speed-up s of a rewrite as min(1, s / scale), 0 where it is wrong.

    A rewrite that is right and no faster scores 1 / scale. There is no score where the original
    fails or the sandbox does. A rewrite is measured once for a question and remembered, so that
    asking again does not draw the noise again.

    Attributes:
        scale: the speed-up that is worth the score 1. Give the protocol `lessons` the same scale.
        pairs: runs of original and rewrite, each.
        sandbox: where programs run. One worker, no further processes.

    Raises:
        ValueError: too few pairs, a scale below 1, or a sandbox that lets programs work unseen.
        sandbox.SandboxUnavailable: when made, where programs cannot be isolated.
    """

    scale: float = 10.0
    pairs: int = 8
    sandbox: Sandbox = field(default_factory=lambda: Sandbox(workers=1))
    _known: dict[tuple[str, str, str], Speedup] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.pairs < LEAST_PAIRS:
            raise ValueError(f"pairs must be at least {LEAST_PAIRS}, not {self.pairs}")
        if not (math.isfinite(self.scale) and self.scale >= 1):
            raise ValueError(f"scale must be a finite number >= 1, not {self.scale!r}")
        if self.sandbox.workers != 1 or self.sandbox.limits.processes != 1:
            raise ValueError(
                "speed-ups need Sandbox(workers=1) with Limits(processes=1): programs that run at "
                "once slow each other down, and the kernel loses the time of some child processes"
            )

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return one score per response.

        Raises:
            ValueError: a question whose answer is no `Suite`, or that shows no original.
        """
        found = [self.measure(q, text) for q, text in zip(questions, responses, strict=True)]
        return [None if one is None else min(1.0, one.value / self.scale) for one in found]

    def measure(self, question: Question, text: str) -> Speedup | None:
        """Return the speed-up of the program in a message; None where it cannot be told."""
        suite = parse(question.answer)
        original = extract_program(question.prompt, suite.name)
        if original is None:
            raise ValueError(
                f"question {question.id!r} shows no program to be rewritten: put one into its "
                "prompt, between ```python and ```"
            )
        program = extract_program(text, suite.name)
        if program is None:
            return Speedup(False, detail="there is no program in the answer")
        key = (question.answer, original, program)
        if key not in self._known:
            found = measure(self.sandbox, suite, original, program, self.pairs)
            if found is None:
                return None
            if len(self._known) >= MAX_TOLD:
                self._known.clear()
            self._known[key] = found
        return self._known[key]
