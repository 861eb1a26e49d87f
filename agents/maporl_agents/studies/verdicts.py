"""Verdicts on a study: sentences that follow from its intervals over seeds by rule.

They are decided by rules, never written by hand, so an unwelcome result says so too. The intervals
are those of `seed_intervals`; Holm's correction is `multiple_testing.holm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from maporl_agents.studies.results import Arm, ControlKind, Decoding, Stage, Study
from maporl_agents.studies.seed_intervals import Estimate, difference

Kind = Literal["supports", "contradicts", "open", "neutral"]

MARGIN = 0.05
"""Off the shelf a debate does not rise if the interval of its rise ends below this."""
VANISHED, SURVIVED = 0.1, 0.5
"""Share of a rise that may be left where it is said to vanish; from which on it survives."""

SHUFFLED: dict[ControlKind, str] = {
    "verdicts_shuffled": "shuffled verdicts",
    "peers_shuffled": "peers' messages from other questions",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence that follows from the numbers.

    Attributes:
        kind: whether it supports or contradicts that agents work together, or leaves it open;
            "neutral" is a difference that speaks neither for it nor against it.
        arm: name of the arm it is about.
        sentence: the finding, with the figures.
        name: by which a `Claim` stands on it, unique in a study: the arm, a slash, and
            "off-the-shelf", "training", "turns", or the name of the arm it is compared with.
        p: of the test that decided, of several the largest; None where nothing was decided or no
            test can be made.
    """

    kind: Kind
    arm: str
    sentence: str
    name: str = ""
    p: float | None = None

    def named(self, topic: str) -> Verdict:
        """Return a copy of the verdict with a name."""
        return replace(self, name=f"{self.arm}/{topic}")


def verdicts(study: Study, decoding: Decoding = "sampled") -> tuple[Verdict, ...]:
    """Return the verdicts on each method and variant of a study.

    Methods are held against their controls and all baselines, variants against the first method.
    """
    found: list[Verdict] = []
    for arm in study.arms:
        if arm.role == "method":
            found += _of_method(study, arm, decoding)
        elif arm.role == "variant":
            found += _of_variant(study, arm, decoding)
    return tuple(found)


def _of_method(study: Study, method: Arm, decoding: Decoding) -> Iterator[Verdict]:
    yield from _over_turns(study, method, decoding)
    after = method.scores(study.metric, "after", decoding)
    before = method.scores(study.metric, "before", decoding)
    for other in study.arms:
        scores = other.scores(study.metric, "after", decoding)
        if other.role not in ("control", "baseline") or not scores.keys() & after.keys():
            continue
        if other.of not in (None, method.name):
            continue
        if other.control in SHUFFLED and before:
            what = SHUFFLED[other.control]
            verdict = shuffle_verdict(after, scores, before, arm=method.name, what=what)
        else:
            verdict = against_verdict(method.name, other.label, difference(after, scores))
        yield verdict.named(other.name)


def _over_turns(study: Study, arm: Arm, decoding: Decoding) -> Iterator[Verdict]:
    """Say how a team moves over its turns before training, by training, and after it."""
    after = arm.scores(study.metric, "after", decoding)
    if before := arm.scores(study.metric, "before", decoding):
        first = arm.scores(study.metric, "before", decoding, turn=0)
        if _has_turns(arm, "before", decoding):
            yield untrained_verdict(arm.name, difference(before, first)).named("off-the-shelf")
        if before.keys() & after.keys():
            yield _training(arm, before, after)
    if after and _has_turns(arm, "after", decoding):
        rise = difference(after, arm.scores(study.metric, "after", decoding, turn=0))
        yield rise_verdict(arm.name, "From the first to the last turn", rise).named("turns")


def _training(arm: Arm, before: Mapping[int, float], after: Mapping[int, float]) -> Verdict:
    change = difference(after, before)
    return rise_verdict(arm.name, "Training moves the last turn", change).named("training")


def _has_turns(arm: Arm, stage: Stage, decoding: Decoding) -> bool:
    found = (seed.find(stage, decoding) for seed in arm.seeds)
    return all(len(m.turns) > 1 for m in found if m is not None)


def _of_variant(study: Study, variant: Arm, decoding: Decoding) -> Iterator[Verdict]:
    before, after = (variant.scores(study.metric, stage, decoding) for stage in ("before", "after"))
    if before.keys() & after.keys():
        yield _training(variant, before, after)
    reference = next(arm for arm in study.arms if arm.role == "method")
    scores = reference.scores(study.metric, "after", decoding)
    if after.keys() & scores.keys():
        change = difference(after, scores)
        yield differs_verdict(variant.name, reference.label, change).named(reference.name)


def untrained_verdict(arm: str, rise: Estimate) -> Verdict:
    """Say whether a team rose over its turns before training: the paper claims that none does.

    A rise, however small, contradicts it; only an interval that ends below `MARGIN` supports it.
    """
    words = f"Off the shelf, from the first to the last turn: {rise}"
    if rise.half_width is None:
        return Verdict("open", arm, f"{words}; one seed has no interval.")
    if rise.low > 0:
        words += ", a rise without any training."
        return Verdict("contradicts", arm, words, p=rise.p_value())
    if rise.high < MARGIN:
        words += f", no rise of {MARGIN} or more."
        return Verdict("supports", arm, words, p=rise.p_value(against=MARGIN))
    return Verdict("open", arm, f"{words}, which leaves room for a rise of {MARGIN}.")


def differs_verdict(arm: str, other: str, change: Estimate) -> Verdict:
    """Say whether a variant differs from the reference; neutral for the claims."""
    if change.half_width is None:
        return Verdict("open", arm, f"Against {other}: {change}; one seed has no interval.")
    if change.low <= 0 <= change.high:
        words = f"Not distinguishable from {other} in the last turn: {change}."
        return Verdict("open", arm, words)
    way = "higher" if change.mean > 0 else "lower"
    return Verdict("neutral", arm, f"Differs from {other} in the last turn: {change}, {way}.")


def rise_verdict(arm: str, what: str, rise: Estimate) -> Verdict:
    """Say whether a change is beyond the spread over seeds."""
    words = f"{what}: {rise}"
    ends = (
        ", a rise.",
        ", a fall.",
        ", within the spread over seeds.",
        "; one seed has no interval.",
    )
    return _by_sign(arm, rise, [words + end for end in ends])


def against_verdict(arm: str, other: str, lead: Estimate) -> Verdict:
    """Say whether a method is above a control or baseline."""
    beginnings = ("Better than", "Worse than", "Not distinguishable from")
    words = [f"{beginning} {other}: {lead}." for beginning in beginnings]
    return _by_sign(arm, lead, [*words, f"Against {other}: {lead}; one seed has no interval."])


def _by_sign(arm: str, change: Estimate, sentences: Sequence[str]) -> Verdict:
    """Return the verdict on a change, with one of four sentences by its interval.

    The sentences are for an interval above 0, below 0, around 0, and for a single seed.
    """
    above, below, between, single = sentences
    if change.half_width is None:
        return Verdict("open", arm, single)
    if change.low > 0:
        return Verdict("supports", arm, above, p=change.p_value())
    if change.high < 0:
        return Verdict("contradicts", arm, below, p=change.p_value())
    return Verdict("open", arm, between)


def shuffle_verdict(
    trained: Mapping[int, float],
    shuffled: Mapping[int, float],
    before: Mapping[int, float],
    *,
    arm: str = "",
    what: str = "shuffled verdicts",
) -> Verdict:
    """Say whether a rise needs the shuffled part; a rise that survives is not collaboration.

    Args:
        trained: {seed: score} of the trained team.
        shuffled: the same team with something shuffled that collaboration needs.
        before: the untrained team.
        arm: name of the method.
        what: the shuffled part, for the sentence.

    Raises:
        ValueError: the three have no seed in common.
    """
    seeds = trained.keys() & shuffled.keys() & before.keys()
    trained, shuffled, before = ({s: x[s] for s in seeds} for x in (trained, shuffled, before))
    rise, loss = difference(trained, before), difference(trained, shuffled)
    left = difference(shuffled, before)
    figures = f"rise {rise}, lost by shuffling {loss}"
    if rise.half_width is None:
        return Verdict("open", arm, f"With {what}: {figures}; one seed has no interval.")
    if rise.low <= 0:
        return Verdict("open", arm, f"With {what}: no rise beyond the spread to explain ({rise}).")
    kept = left.mean / rise.mean
    figures += f", kept {100 * kept:.0f} %"
    if (left if kept >= SURVIVED else loss).low <= 0:
        return Verdict("open", arm, f"With {what} it cannot be told from these seeds: {figures}.")
    tests = (rise.p_value(), (left if kept >= SURVIVED else loss).p_value())
    p = None if None in tests else max(one for one in tests if one is not None)
    if kept >= SURVIVED:
        most = "The rise" if loss.low <= 0 else "Most of the rise"
        words = f"{most} survives {what}: not collaboration ({figures})."
        return Verdict("contradicts", arm, words, p=p)
    end = "vanishes" if kept <= VANISHED else "shrinks"
    return Verdict("supports", arm, f"The rise {end} with {what} ({figures}).", p=p)
