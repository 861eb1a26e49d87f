"""The catalogue of studies and the verdicts on incentives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from study_cases import measurement

from maporl_agents.measure.debate_stats import Transition
from maporl_agents.studies import catalogue
from maporl_agents.studies.incentives import (
    CASES,
    Case,
    flip_rates,
    incentive_verdicts,
    learns,
    reward_topic,
    reward_verdict,
)
from maporl_agents.studies.plan import StudyPlan, expected_minutes
from maporl_agents.studies.results import Arm, SeedResult, Study
from maporl_agents.studies.seed_intervals import estimate


class TestIncentives:
    PAID = CASES[1]  # alpha0: a wrong agent among wrong peers becomes right

    def arm(self, name: str, corrected: tuple[int, int], turn: int = 1, **settings: Any) -> Arm:
        """Two seeds; of 10 wrong answers beside a wrong majority, so many became right."""
        seeds = tuple(
            SeedResult(
                seed,
                (
                    replace(
                        measurement("after", "sampled", 0.5),
                        transitions=(
                            Transition(turn, False, "wrong", True, "wrong", right),
                            Transition(turn, False, "wrong", False, "wrong", 10 - right),
                        ),
                    ),
                ),
            )
            for seed, right in enumerate(corrected)
        )
        role = "method" if name == "none" else "variant"
        settings = {"incentive": name, **settings}
        return Arm(name, name, role, seeds, settings=settings)  # type: ignore[arg-type]

    def study(self, *arms: Arm) -> Study:
        return Study("i", "t", "c", "cmd", "2026-01-02T03:04:05", arms)

    def test_rates_are_shares_of_the_messages_with_that_past(self) -> None:
        arm = self.arm("none", (2, 3))
        assert flip_rates(arm, self.PAID, 1) == {0: 0.2, 1: 0.3}
        assert flip_rates(arm, self.PAID, 0) == {}  # of another turn
        assert flip_rates(arm, self.PAID, 1, decoding="greedy") == {}
        assert flip_rates(arm, CASES[3], 1) == {}  # nobody was right

    @pytest.mark.parametrize(
        ("corrected", "kind", "words"),
        [
            ((6, 7), "supports", "as rewarded"),
            ((2, 3), "open", "within the spread"),
            ((1, 2), "contradicts", "against the reward"),
            ((1, 9), "open", "within the spread"),
        ],
    )
    def test_a_weight_is_judged_by_what_it_rewards(
        self, corrected: tuple[int, int], kind: str, words: str
    ) -> None:
        # paired differences (.4, .4): no spread; (0, 0): none; (-.1, -.1); (-.1, .6): wide
        study = self.study(self.arm("none", (2, 3)), self.arm("alpha0", corrected))
        verdict, others = incentive_verdicts(study)  # alpha0's other change had no past
        assert (verdict.kind, verdict.name) == (kind, "alpha0/alpha0-gain-2")
        assert "wrong peers becomes right, turn 2 to 3" in verdict.sentence
        assert "against 0.250 without bonus" in verdict.sentence
        assert words in verdict.sentence
        assert "0 of 1 moved" in others.sentence  # beta0's wrong peers never became right

    def test_what_is_deducted_is_meant_to_become_rarer(self) -> None:
        rarer = reward_verdict("a", CASES[3], 0, estimate([-0.1, -0.1]), {0: 0.5, 1: 0.5})
        assert (rarer.kind, rarer.arm) == ("supports", "a")
        more = reward_verdict("a", CASES[3], 0, estimate([0.1, 0.1]), {0: 0.5, 1: 0.5})
        assert more.kind == "contradicts"

    @pytest.mark.parametrize(("case", "usual"), [(CASES[0], 0.95), (CASES[2], 0.05)])
    def test_where_nearly_all_is_right_there_is_no_room(self, case: Case, usual: float) -> None:
        verdict = reward_verdict("a", case, 0, estimate([0.01, -0.01]), {0: usual})
        assert verdict.kind == "open"
        assert "left no room" in verdict.sentence

    def test_changes_that_are_not_rewarded_are_told_apart(self) -> None:
        """beta0 rewards the message of turn 2, which is frozen here; what alpha0 rewards moved."""
        none = self.arm("none", (2, 3))
        bonus = self.arm("beta0", (6, 7), trained_turns=[3])
        [side] = incentive_verdicts(self.study(none, bonus))
        assert side.kind == "neutral"
        assert "1 of 2 moved beyond the spread" in side.sentence
        assert "a wrong agent among wrong peers becomes right, turn 2 to 3 +0.400" in side.sentence

    def test_beta_rewards_the_earlier_message_and_alpha_the_later(self) -> None:
        alpha, beta = CASES[0], CASES[4]
        assert [learns([2, 3], alpha, turn) for turn in (0, 1)] == [True, True]
        assert [learns([2, 3], beta, turn) for turn in (0, 1)] == [False, True]
        assert learns(None, beta, 0)

    def test_without_an_arm_without_bonus_nothing_is_said(self) -> None:
        alone = replace(self.arm("alpha0", (6, 7)), role="method")
        assert incentive_verdicts(self.study(alone)) == []


def topics(plan: StudyPlan) -> list[str]:
    """Return what sentences of an arm may be called."""
    paid = [reward_topic(case, turn) for case in CASES for turn in (0, 1)]
    return ["off-the-shelf", "training", "turns", *(arm.name for arm in plan.arms), *paid]


class TestStudies:
    @pytest.mark.parametrize("name", list(catalogue.known()))
    def test_every_study_makes_games_and_has_names_once(self, name: str) -> None:
        plan = catalogue.study(name)
        assert plan.name == name
        assert len({arm.name for arm in plan.arms}) == len(plan.arms)
        assert any(arm.role == "method" for arm in plan.arms)
        jobs = plan.jobs(catalogue.DEFAULT_SEEDS)
        assert len({job.key for job in jobs}) == len(jobs)
        assert expected_minutes(plan, (0,)) < expected_minutes(plan, (0, 1))
        told = {f"{arm.name}/{topic}" for arm in plan.arms for topic in topics(plan)}
        assert {name for claim in plan.claims for name in claim.stands_on} <= told
        assert bool(plan.claims) == ("no claim" not in plan.claim)
        quick = plan.quick()
        assert expected_minutes(quick, (0,)) < expected_minutes(plan, (0,))

    def test_the_survey_has_one_reference_and_variants(self) -> None:
        roles = {arm.name: arm.role for arm in catalogue.study("variants").arms}
        assert [name for name, role in roles.items() if role == "method"] == ["gamma-1"]
        assert set(roles.values()) == {"method", "variant"}
        variant = catalogue.study("variants").arms[0]
        assert variant.before(0) is not None

    def test_beta_is_judged_where_its_turns_are_trained(self) -> None:
        plan = catalogue.study("incentives")
        stands_on = {claim.stands_on[0].split("/")[0]: claim.stands_on for claim in plan.claims}
        assert len(stands_on["alpha0"]) == 4
        assert stands_on["beta1"] == ("beta1/beta1-gain-2", "beta1/beta1-loss-2")

    def test_unknown_names_are_answered_by_the_known_ones(self) -> None:
        with pytest.raises(ValueError, match="shopping"):
            catalogue.study("nonsense")
