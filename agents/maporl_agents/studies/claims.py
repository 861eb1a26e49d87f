"""Judges the claims of a study by rule, from its verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from maporl_agents.studies.incentives import incentive_verdicts
from maporl_agents.studies.results import Claim, Decoding, Study
from maporl_agents.studies.verdicts import Verdict, verdicts

Judgement = Literal["holds", "fails", "not shown", "not measured"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim and its judgement by the figures.

    Attributes:
        claim: in words, with the names of its sentences.
        judgement: holds, fails, not shown, or not measured.
        by: the sentence that decided; None if it is one that is missing.
        p: of the judgement "holds" (all of its tests, so the largest) or "fails"; None for others,
            and where a test cannot be made.
    """

    claim: Claim
    judgement: Judgement
    by: Verdict | None
    p: float | None = None


def all_verdicts(study: Study, decoding: Decoding) -> list[Verdict]:
    """Return every sentence that follows from a study."""
    return [*verdicts(study, decoding), *incentive_verdicts(study, decoding)]


def judged(study: Study, decoding: Decoding = "sampled") -> list[Judged]:
    """Return the claims of a study, judged by the sentences of one decoding."""
    found = all_verdicts(study, decoding)
    return [judge(claim, found) for claim in study.claims]


def judge(claim: Claim, found: Sequence[Verdict]) -> Judged:
    """Judge a claim.

    It fails if one of the sentences it stands on contradicts it, holds if all of them are there and
    support it, was not measured if none is there, and is not shown otherwise. The first sentence
    that contradicts decides, else the first that is open, else the first of all.
    """
    by_name = {verdict.name: verdict for verdict in found}
    grounds = [by_name[name] for name in claim.stands_on if name in by_name]
    if not grounds:
        return Judged(claim, "not measured", None)
    for kind, judgement in (("contradicts", "fails"), ("open", "not shown")):
        for verdict in grounds:
            if verdict.kind == kind:
                p = verdict.p if judgement == "fails" else None
                return Judged(claim, judgement, verdict, p)  # type: ignore[arg-type]
    if len(grounds) < len(claim.stands_on):
        return Judged(claim, "not shown", None)
    tests = [verdict.p for verdict in grounds]
    p = None if None in tests else max(one for one in tests if one is not None)
    return Judged(claim, "holds", grounds[0], p)
