"""A study as printed figures: the texts that its pages, its plots and the terminal show.

Everything here follows from a `Study` by rule. Pages and plots are made from these texts alone, so
a plot shows the printed figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from maporl_agents.studies.claims import Judged, all_verdicts, judged
from maporl_agents.studies.multiple_testing import holm
from maporl_agents.studies.results import Arm, Decoding, Stage, Study
from maporl_agents.studies.seed_intervals import Estimate, estimate

COLUMNS = (
    "arm",
    "role",
    "turns, before",
    "turns, after",
    "last turn, after",
    "greedy, before → after",
    "answers",
    "tokens",
    "trained on",
)
BRIEF = tuple(column for column in COLUMNS if column not in ("role", "trained on"))
"""The columns that fit a terminal."""
LEVEL = 0.05
"""Family-wise error rate of the correction."""
MARKS = {"supports": "+", "contradicts": "-", "open": "?", "neutral": "="}
DECODINGS: dict[Decoding, str] = {"sampled": "", "greedy": "greedy: "}
"""Decoding -> the mark of sentences about it."""
SCORES = {
    "vote": "Score: expected accuracy of the majority answer, ties shared.",
    "mean_accuracy": "Score: mean accuracy of the agents.",
    "score": "Score: what the verifier gave, the reward in training; no answer key is asked.",
}


@dataclass(frozen=True, slots=True)
class PrintedClaim:
    """A claim with its judgements, as texts.

    Attributes:
        words: the claim.
        sampled: its judgement with sampled messages: holds, fails, not shown or not measured.
        greedy: its judgement with greedy messages.
        because: the sentence that decided about it, sampled; empty if nothing was measured.
        because_greedy: the same, greedy.
        p: p-value and the value corrected by Holm's method, ".0018, .06"; "-" where undecided.
    """

    words: str
    sampled: str
    greedy: str
    because: str
    because_greedy: str
    p: str


@dataclass(frozen=True, slots=True)
class PrintedStudy:
    """A study as texts.

    Attributes:
        name: as in ``maporl compare NAME``.
        title: for people.
        claim: what the study tests.
        command: that made it.
        origin: date, seeds, machine and versions.
        rows: one per arm, a cell for each of `COLUMNS`.
        score: what the scores are.
        claims: in the order of the study; none in a survey.
        sentences: what follows from the figures.
        notes: what a reader must know.
    """

    name: str
    title: str
    claim: str
    command: str
    origin: str
    rows: tuple[tuple[str, ...], ...]
    score: str
    claims: tuple[PrintedClaim, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrintedResults:
    """All studies as texts.

    Attributes:
        studies: in the order of the catalogue.
        correction: the number of judgements that remain after Holm's correction, as a paragraph.
    """

    studies: tuple[PrintedStudy, ...]
    correction: str


def printed_results(studies: Sequence[Study]) -> PrintedResults:
    """Return studies as texts; p-values are corrected for the claims of all of them."""
    sampled = [claim for study in studies for claim in judged(study)]
    corrected = holm([claim.p for claim in sampled])
    p_texts = iter([p_values(one.p, p) for one, p in zip(sampled, corrected, strict=True)])
    printed = tuple(
        _printed_study(study, [next(p_texts) for _ in study.claims]) for study in studies
    )
    return PrintedResults(printed, after_correction(corrected))


def _printed_study(study: Study, p_texts: Sequence[str]) -> PrintedStudy:
    return PrintedStudy(
        name=study.name,
        title=study.title,
        claim=study.claim,
        command=study.command,
        origin=f"{budget(study)}; {made_with(study)}.",
        rows=tuple(rows(study)),
        score=SCORES[study.metric],
        claims=printed_claims(study, p_texts),
        sentences=tuple(sentences(study)),
        notes=study.notes,
    )


def printed_claims(study: Study, p_texts: Sequence[str]) -> tuple[PrintedClaim, ...]:
    """Return the claims of a study as texts, given the texts of their p-values."""
    return tuple(
        PrintedClaim(
            words=sampled.claim.words,
            sampled=sampled.judgement,
            greedy=greedily.judgement,
            because=because(study, sampled),
            because_greedy=because(study, greedily),
            p=p,
        )
        for (sampled, greedily), p in zip(both_judgements(study), p_texts, strict=True)
    )


def rows(study: Study, columns: Sequence[str] = COLUMNS) -> list[tuple[str, ...]]:
    """Return the table of a study: a text per column, one row per arm."""
    whole = [dict(zip(COLUMNS, _row(study, arm), strict=True)) for arm in study.arms]
    return [tuple(row[column] for column in columns) for row in whole]


def _row(study: Study, arm: Arm) -> tuple[str, ...]:
    role = arm.role if arm.of is None else f"{arm.role} of {arm.of}"
    return (
        arm.label,
        role,
        by_turn(study, arm, "before"),
        by_turn(study, arm, "after"),
        level(last_turn(study, arm, "sampled")),
        greedy(study, arm),
        *per_question(arm),
        trained_on(arm),
    )


def greedy(study: Study, arm: Arm) -> str:
    """Return e.g. ".333 .343 → .343 .671 ± 0.188", without what was not measured."""
    before, after = (by_turn(study, arm, stage, "greedy") for stage in ("before", "after"))
    last = last_turn(study, arm, "greedy")
    spread = "" if last is None or last.half_width is None else f" ± {last.half_width:.3f}"
    return f"{after}{spread}" if before == "-" else f"{before} → {after}{spread}"


def last_turn(study: Study, arm: Arm, decoding: Decoding) -> Estimate | None:
    """Return the score of the last turn after training; None if it was not measured."""
    scores = arm.scores(study.metric, "after", decoding)
    return estimate(list(scores.values())) if scores else None


def level(value: Estimate | None) -> str:
    """Return e.g. "0.905 ± 0.031", or "-" for nothing."""
    return "-" if value is None else str(value).removeprefix("+")


def by_turn(study: Study, arm: Arm, stage: Stage, decoding: Decoding = "sampled") -> str:
    """Return the mean score of every turn, e.g. ".333 .718 .852", or "-" for nothing."""
    found = [m for result in arm.seeds if (m := result.find(stage, decoding)) is not None]
    if not found:
        return "-"
    means = [
        fmean(getattr(turn, study.metric) for turn in same_turn)
        for same_turn in zip(*(m.turns for m in found), strict=True)
    ]
    return " ".join(f"{mean:.3f}".removeprefix("0") for mean in means)


def per_question(arm: Arm) -> tuple[str, str]:
    """Return answers and tokens generated per held-out question."""
    found = [m for result in arm.seeds if (m := result.find("after", "sampled")) is not None]
    if not found:
        return "-", "-"
    asked = sum(m.num_questions for m in found)
    answers, tokens = sum(m.num_answers for m in found), sum(m.num_tokens for m in found)
    return f"{answers / asked:.1f}", f"{tokens / asked:.0f}"


def trained_on(arm: Arm) -> str:
    """Return the training budget of a seed, mean over seeds: answers and tokens, in thousands."""
    trained = [result for result in arm.seeds if result.train_answers]
    if not trained:
        return "-"
    answers = fmean(result.train_answers for result in trained) / 1000
    tokens = fmean(result.train_tokens for result in trained) / 1000
    return f"{answers:.1f}k answers, {tokens:.0f}k tokens"


def sentences(study: Study) -> list[str]:
    """Return the conclusions as sentences, marked for, against or open; greedy ones last."""
    return [
        f"({MARKS[v.kind]}) {mark}{study.arm(v.arm).label}. {v.sentence}"
        for decoding, mark in DECODINGS.items()
        for v in all_verdicts(study, decoding)
    ]


def claim_lines(claims: Sequence[PrintedClaim]) -> list[str]:
    """Return a line per claim: the claim, whether it holds, and the sentences that decide."""
    if not claims:
        return ["No claim to judge: a survey."]
    return [
        f"**{capital(claim.sampled)}**: {claim.words}{in_brackets(claim.because)}"
        f" Greedy: **{claim.greedy}**.{in_brackets(claim.because_greedy)}"
        for claim in claims
    ]


def in_brackets(text: str) -> str:
    """Return a space and the text in brackets, or nothing for an empty text."""
    return f" ({text})" if text else ""


def both_judgements(study: Study) -> list[tuple[Judged, Judged]]:
    """Return every claim judged by sampled and by greedy decoding."""
    return list(zip(judged(study), judged(study, "greedy"), strict=True))


def because(study: Study, claim: Judged) -> str:
    """Return the sentence that decided a claim, with the figures."""
    if claim.by is not None:
        return f"{study.arm(claim.by.arm).label}. {claim.by.sentence}"
    return "" if claim.judgement == "not measured" else "Not all of it was measured."


def capital(text: str) -> str:
    """Return a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def p_values(p: float | None, corrected: float | None) -> str:
    """Return e.g. ".002, .09": of the judgement alone, and corrected."""
    if p is None or corrected is None:
        return "-"
    return ", ".join("1" if x >= 1 else f"{x:.2g}".removeprefix("0") for x in (p, corrected))


def after_correction(corrected: Sequence[float | None]) -> str:
    """Return the number of judgements left after correction for their number."""
    decided = [p for p in corrected if p is not None]
    left = sum(p <= LEVEL for p in decided)
    return (
        f"Judgements are made one by one, at 95 % each. Corrected for the number of claims on this "
        f"page (Holm, {len(corrected)} claims), {left} of the {len(decided)} that hold or fail are "
        f"left at {LEVEL}. Greedy judgements are not corrected."
    )


def made_with(study: Study) -> str:
    """Return packages with their versions and the commits, in words."""
    packages = study.versions.get("packages", {})
    commits = [f"commit {short(commit)}" for commit in study.versions.get("commits", [])]
    return ", ".join(
        [*(f"{name} {packages[name]}" for name in packages if packages[name]), *commits]
    )


def short(commit: str) -> str:
    """Return a commit in 12 digits, with "-dirty" if it has that."""
    digits, *dirty = commit.split("-")
    return "-".join([digits[:12], *dirty])


def budget(study: Study) -> str:
    """Return the cost of a study, in words."""
    given = study.budget.get("seeds", [])
    seeds = f"seed{'s' * (len(given) != 1)} {', '.join(map(str, given))}"
    return (
        f"{study.created[:10]}, {seeds}, {study.budget.get('core-minutes')} core-minutes "
        f"on {study.machine.get('platform')} with {study.machine.get('cpu_count')} cores"
    )
