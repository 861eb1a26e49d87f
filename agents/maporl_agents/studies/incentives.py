"""Judges by flip rates whether the bonuses `alpha` and `beta` changed the rewarded behaviour.

Tables 1 and 2 of the paper (arXiv 2502.18439) reward a wrong answer or majority that becomes right
and penalise a right one that becomes wrong: `alpha` the later message whose own answer changed,
`beta` the earlier one whose peers changed. A tied majority is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from maporl_agents.measure.debate_stats import Side, flipped
from maporl_agents.studies.results import Arm, Decoding, Measurement, Stage, Study
from maporl_agents.studies.seed_intervals import Estimate, difference
from maporl_agents.studies.verdicts import Verdict

CEILING = 0.94
"""Share of right outcomes without bonus above which an incentive has no room to show."""


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of the tables.

    Attributes:
        weight: "alpha0", "alpha1", "beta0" or "beta1".
        words: the change, for people.
        own: whether the message was right.
        others: the strict majority of its peers.
        of: whose change is rewarded.
    """

    weight: str
    words: str
    own: bool
    others: Side
    of: Literal["own", "others"]

    @property
    def gains(self) -> bool:
        """Whether the change is from wrong to right, so rewarded; the opposite is penalised."""
        return not self.own if self.of == "own" else self.others == "wrong"

    @property
    def symbol(self) -> str:
        """The weight as a formula has it."""
        return {"alpha": "α", "beta": "β"}[self.weight[:-1]] + {"0": "₀", "1": "₁"}[self.weight[-1]]


CASES = (
    Case("alpha1", "A wrong agent among right peers becomes right", False, "right", "own"),
    Case("alpha0", "A wrong agent among wrong peers becomes right", False, "wrong", "own"),
    Case("alpha1", "A right agent among right peers becomes wrong", True, "right", "own"),
    Case("alpha0", "A right agent among wrong peers becomes wrong", True, "wrong", "own"),
    Case("beta1", "Wrong peers of a right agent become right", True, "wrong", "others"),
    Case("beta0", "Wrong peers of a wrong agent become right", False, "wrong", "others"),
    Case("beta1", "Right peers of a right agent become wrong", True, "right", "others"),
    Case("beta0", "Right peers of a wrong agent become wrong", False, "right", "others"),
)
"""The first four are of `alpha` (Table 1), the others of `beta` (Table 2)."""


def steps(study: Study) -> list[int]:
    """Return the turns, counted from 0, after which changes of answers were counted."""
    measured = (m for arm in study.arms for seed in arm.seeds for m in seed.measurements)
    return sorted({move.turn for measurement in measured for move in measurement.transitions})


def flip_rates(
    arm: Arm, case: Case, turn: int, *, stage: Stage = "after", decoding: Decoding = "sampled"
) -> dict[int, float]:
    """Return {seed: share of the messages of a turn with this past that earned or lost a bonus}."""
    found = {result.seed: result.find(stage, decoding) for result in arm.seeds}
    rates = {seed: _rate(m, case, turn)[0] for seed, m in found.items() if m is not None}
    return {seed: share for seed, share in rates.items() if share is not None}


def flip_count(arm: Arm, case: Case, turn: int, *, stage: Stage = "after") -> int:
    """Return the number of sampled messages with this past, over all seeds."""
    found = (result.find(stage, "sampled") for result in arm.seeds)
    return sum(_rate(m, case, turn)[1] for m in found if m is not None)


def _rate(measurement: Measurement, case: Case, turn: int) -> tuple[float | None, int]:
    moves = measurement.transitions
    return flipped(moves, own=case.own, others=case.others, of=case.of, turn=turn)


# --- Sentences ----------------------------------------------------------------------


def incentive_verdicts(study: Study, decoding: Decoding = "sampled") -> list[Verdict]:
    """Return verdicts: did each incentive change the rewarded flip rates, and which others?

    Arms are told by ``settings["incentive"]``: "none", "alpha0", "alpha1", "beta0" or "beta1";
    ``settings["trained_turns"]``, counted from 1, are the turns whose messages are trained on their
    rewards (all without it).
    """
    arms = {arm.settings.get("incentive"): arm for arm in study.arms}
    base = arms.pop("none", None)
    found: list[Verdict] = []
    for name, arm in arms.items():
        if name is not None and base is not None:
            found += _of_incentive(study, arm, base, decoding)
    return found


def _of_incentive(study: Study, arm: Arm, base: Arm, decoding: Decoding) -> Iterator[Verdict]:
    name, trained = arm.settings["incentive"], arm.settings.get("trained_turns")
    cells = [(case, turn) for turn in steps(study) for case in CASES]
    rewarded = [cell for cell in cells if cell[0].weight == name and learns(trained, *cell)]
    for case, turn in rewarded:
        own, without = (flip_rates(one, case, turn, decoding=decoding) for one in (arm, base))
        if own.keys() & without.keys():
            verdict = reward_verdict(arm.name, case, turn, difference(own, without), without)
            yield verdict.named(reward_topic(case, turn))
    yield from _side_effects(arm, base, [cell for cell in cells if cell not in rewarded], decoding)


def learns(trained_turns: Sequence[int] | None, case: Case, turn: int) -> bool:
    """Return whether the message rewarded for a move from `turn` to the next one is trained.

    Args:
        trained_turns: counted from 1; None for all.
        case: the change that is rewarded.
        turn: counted from 0.
    """
    rewarded_turn = turn + 1 if case.of == "own" else turn
    return trained_turns is None or rewarded_turn + 1 in trained_turns


def reward_topic(case: Case, turn: int) -> str:
    """Return the name, behind the arm's, of the sentence about a case from `turn` to the next."""
    kind = "gain" if case.gains else "loss"
    return f"{case.weight}-{kind}-{turn + 1}"


def reward_verdict(
    arm: str, case: Case, turn: int, change: Estimate, without: dict[int, float]
) -> Verdict:
    """Say whether a rewarded change became more frequent, or a penalised one less.

    Args:
        arm: with the bonus.
        case: the change that is rewarded.
        turn: from which to the next, counted from 0.
        change: of the share by the bonus.
        without: {seed: share without bonus}.
    """
    usual = fmean(without.values())
    figures = f"{_where(case, turn)}: {change} against {usual:.3f} without bonus"
    if change.half_width is None:
        return Verdict("open", arm, f"{figures}; one seed has no interval.")
    if change.low > 0 or change.high < 0:
        if (change.mean > 0) == case.gains:
            return Verdict("supports", arm, f"{figures}, as rewarded.", p=change.p_value())
        words = f"{figures}, against the reward."
        return Verdict("contradicts", arm, words, p=change.p_value())
    if (usual if case.gains else 1 - usual) > CEILING:
        return Verdict("open", arm, f"{figures}, which left no room.")
    return Verdict("open", arm, f"{figures}, within the spread over seeds.")


def _where(case: Case, turn: int) -> str:
    return f"{case.words}, turn {turn + 1} to {turn + 2}"


def _side_effects(
    arm: Arm, base: Arm, cells: Sequence[tuple[Case, int]], decoding: Decoding
) -> Iterator[Verdict]:
    """Say in one sentence which changes this incentive moved without rewarding them."""
    changes = {}
    for case, turn in cells:
        own, without = (flip_rates(one, case, turn, decoding=decoding) for one in (arm, base))
        if own.keys() & without.keys():
            changes[_where(case, turn)] = difference(own, without)
    moved = {words: x for words, x in changes.items() if x.low > 0 or x.high < 0}
    if changes:
        told = "".join(f"; {words[0].lower()}{words[1:]} {x}" for words, x in moved.items())
        beyond = f"{len(moved)} of {len(changes)} moved beyond the spread"
        yield Verdict("neutral", arm.name, f"Changes it does not reward: {beyond}{told}.")
