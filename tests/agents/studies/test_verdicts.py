"""The sentences that follow from a study, and its claims, with the working beside each number."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_studies import make_study, measured

from maporl_agents.studies.claims import judge, judged
from maporl_agents.studies.results import Arm, Claim, SeedResult, Study
from maporl_agents.studies.seed_intervals import difference, estimate
from maporl_agents.studies.verdicts import (
    MARGIN,
    Verdict,
    against_verdict,
    rise_verdict,
    shuffle_verdict,
    untrained_verdict,
    verdicts,
)


def seeds(*scores: float) -> dict[int, float]:
    return dict(enumerate(scores))


BEFORE = seeds(0.30, 0.31, 0.29)
TRAINED = seeds(0.60, 0.62, 0.58)  # a rise of .30, .31, .29


@pytest.mark.parametrize(
    ("shuffled", "kind", "words"),
    [
        (seeds(0.30, 0.31, 0.29), "supports", "The rise vanishes with shuffled verdicts"),
        (seeds(0.40, 0.42, 0.38), "supports", "shrinks"),  # keeps a third
        (seeds(0.60, 0.61, 0.59), "contradicts", "survives shuffled verdicts: not collaboration"),
        (seeds(0.55, 0.57, 0.53), "contradicts", "Most of the rise survives"),  # keeps 5 / 6
        (seeds(0.10, 0.60, 0.30), "open", "cannot be told"),  # loses .5, .02, .28: too wide
        (seeds(0.30, 0.90, 0.60), "open", "cannot be told"),  # keeps 0, .59, .31: too wide
    ],
)
def test_what_shuffling_says(shuffled: dict[int, float], kind: str, words: str) -> None:
    verdict = shuffle_verdict(TRAINED, shuffled, BEFORE)
    assert verdict.kind == kind
    assert words in verdict.sentence


def test_shuffling_explains_nothing_where_nothing_rose() -> None:
    verdict = shuffle_verdict(seeds(0.3, 0.5, 0.1), seeds(0.3, 0.3, 0.3), BEFORE)
    assert verdict.kind == "open"
    assert "no rise" in verdict.sentence
    assert "one seed" in shuffle_verdict({0: 0.9}, {0: 0.1}, {0: 0.1}).sentence


@pytest.mark.parametrize("verdict", [rise_verdict, against_verdict])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.1, 0.11, 0.12], "supports"),
        ([-0.1, -0.11, -0.12], "contradicts"),
        ([-0.1, 0.1, 0.05], "open"),
        ([0.5], "open"),
    ],
)
def test_sign_beyond_the_spread(verdict, values: list[float], kind: str) -> None:  # type: ignore[no-untyped-def]
    assert verdict("m", "what", estimate(values)).kind == kind


def test_the_verdicts_of_a_study() -> None:
    found = verdicts(make_study())
    assert [v.kind for v in found] == [
        "supports", "supports", "supports", "contradicts", "supports",
    ]  # fmt: skip
    assert all(v.arm == "debate" for v in found)
    # before training: rises of 0, .01 and .02, so .01 with half width 4.3026527 * .01 / sqrt(3)
    assert "Off the shelf, from the first to the last turn: +0.010 ± 0.025" in found[0].sentence
    assert "+0.300 ± 0.000, a rise" in found[1].sentence
    assert "From the first to the last turn: +0.210 ± 0.025" in found[2].sentence
    assert "survives peers' messages from other questions" in found[3].sentence
    assert found[4].sentence == "Better than one agent: +0.300 ± 0.000."
    assert [v.name for v in found] == [
        f"debate/{topic}" for topic in ("off-the-shelf", "training", "turns", "shuffled", "single")
    ]
    assert verdicts(make_study(), "greedy") == ()  # nothing was measured greedily


def test_a_control_of_another_method_is_left_out() -> None:
    study = make_study()
    other = Arm("other", "Other", "method", study.arms[0].seeds)
    moved = Arm(
        "shuffled", "Shuffled", "control", study.arms[1].seeds, "peers_shuffled", of="other"
    )
    both = Study("s", "", "", "", "", (study.arms[0], other, moved))
    assert ["survives" in v.sentence for v in verdicts(both)] == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, 0.01, 0.02], "supports"),  # .01 +- .0248: ends at .035
        ([-0.3, -0.2, -0.1], "supports"),  # ends at .05 - .0016 = .0484: a fall is no rise
        ([0.0, 0.02, 0.04], "open"),  # .02 +- .0497 ends at .0697, above the margin
        ([-0.3, 0.3, 0.0], "open"),  # noise is no support
        ([0.01, 0.011, 0.012], "contradicts"),  # small, but a rise
        ([0.0], "open"),
    ],
)
def test_no_rise_off_the_shelf_needs_an_interval_below_the_margin(
    values: list[float], kind: str
) -> None:
    assert MARGIN == 0.05
    assert untrained_verdict("m", estimate(values)).kind == kind


def test_every_method_with_a_before_is_judged_off_the_shelf_and_one_turn_is_not() -> None:
    study = make_study()
    second = replace(study.arms[0], name="second")
    names = [v.name for v in verdicts(replace(study, arms=(study.arms[0], second)))]
    assert {"debate/off-the-shelf", "second/off-the-shelf"} < set(names)
    one_turn = tuple(
        replace(s, measurements=tuple(replace(m, turns=m.turns[:1]) for m in s.measurements))
        for s in second.seeds
    )
    alone = replace(study, arms=(replace(second, seeds=one_turn),))
    assert [v.name for v in verdicts(alone)] == ["second/training"]


@pytest.mark.parametrize(
    ("shift", "kind", "words"),
    [
        ((0.1, 0.1, 0.1), "neutral", "Differs from Trained debate in the last turn: +0.100"),
        ((-0.1, -0.1, -0.1), "neutral", "lower."),
        ((0.1, -0.1, 0.0), "open", "Not distinguishable from Trained debate in the last turn"),
    ],
)
def test_variants_are_compared_with_the_first_method(
    shift: tuple[float, ...], kind: str, words: str
) -> None:
    study = make_study()
    seeds = tuple(
        SeedResult(s, (measured("after", 0.4, 0.6 + s / 100 + by),)) for s, by in enumerate(shift)
    )
    variant = Arm("v", "V", "variant", seeds)
    found = verdicts(replace(study, arms=(study.arms[0], variant)))
    [verdict] = [v for v in found if v.arm == "v"]
    assert (verdict.kind, verdict.name) == (kind, "v/debate")
    assert words in verdict.sentence
    with pytest.raises(ValueError, match="variants of no method"):
        replace(study, arms=(variant,))


# --- Claims -------------------------------------------------------------------------

GROUNDS = [
    Verdict(kind, "m", f"{kind} {i}", f"m/{kind}{i}")  # type: ignore[arg-type]
    for kind in ("supports", "contradicts", "open")
    for i in (1, 2)
]


@pytest.mark.parametrize(
    ("stands_on", "judgement", "by"),
    [
        (["supports1", "supports2"], "holds", "supports 1"),
        (["supports1", "open2", "open1"], "not shown", "open 2"),
        (["open1", "supports1", "contradicts2", "contradicts1"], "fails", "contradicts 2"),
        (["supports1", "nothing"], "not shown", None),
        (["nothing"], "not measured", None),
    ],
)
def test_a_claim_follows_from_what_it_stands_on(
    stands_on: list[str], judgement: str, by: str | None
) -> None:
    result = judge(Claim("c", tuple(f"m/{name}" for name in stands_on)), GROUNDS)
    assert (result.judgement, result.by and result.by.sentence) == (judgement, by)


def test_claims_of_a_study_are_judged_by_decoding() -> None:
    """It rises, so the first claim holds; the rise survives shuffling, so the second fails."""
    claims = (Claim("It rises.", ("debate/training",)), Claim("By peers.", ("debate/shuffled",)))
    study = replace(make_study(), claims=claims)
    assert [one.judgement for one in judged(study)] == ["holds", "fails"]
    assert [one.judgement for one in judged(study, "greedy")] == ["not measured"] * 2


def test_a_claim_has_the_largest_p_of_its_sentences() -> None:
    grounds = [Verdict("supports", "m", "s", f"m/{p}", p) for p in (0.01, 0.04, 0.02)]
    names = tuple(one.name for one in grounds)
    assert judge(Claim("c", names), grounds).p == 0.04
    untested = Verdict("supports", "m", "s", "m/untested")
    assert judge(Claim("c", (*names, "m/untested")), [*grounds, untested]).p is None
    against = Verdict("contradicts", "m", "s", "m/against", 0.03)
    assert judge(Claim("c", (*names, "m/against")), [*grounds, against]).p == 0.03
    opened = Verdict("open", "m", "s", "m/open")
    assert judge(Claim("c", (*names, "m/open")), [*grounds, opened]).p is None


def test_every_sentence_that_decides_has_the_p_of_its_own_test() -> None:
    """Of MARGIN where "no rise" is claimed; of both differences where something is shuffled."""
    small, rise = estimate([0.0, 0.01, -0.01]), estimate([0.2, 0.25, 0.3])
    assert untrained_verdict("m", small).p == small.p_value(against=0.05)
    assert untrained_verdict("m", rise).p == rise.p_value()
    for verdict in (rise_verdict("m", "w", rise), against_verdict("m", "o", rise)):
        assert verdict.p == rise.p_value() < 0.05
    before = dict.fromkeys(range(3), 0.2)
    trained, shuffled = {0: 0.6, 1: 0.65, 2: 0.55}, {0: 0.2, 1: 0.22, 2: 0.19}
    lost = difference(trained, shuffled)
    worst = max(difference(trained, before).p_value() or 0, lost.p_value() or 0)
    assert shuffle_verdict(trained, shuffled, before).p == pytest.approx(worst)
    assert rise_verdict("m", "w", estimate([0.1, -0.1, 0.3])).p is None
