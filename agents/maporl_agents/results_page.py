"""The results of studies as tables and as one page of Markdown. Every figure comes from a study.

`maporl compare` prints the tables and writes ``docs/results.md`` from them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from statistics import fmean

from maporl_agents.study_results import Arm, Decoding, Stage, Study
from maporl_agents.verdicts import Estimate, Verdict, difference, estimate, verdicts
from maporl_agents.webpage.incentives import incentive_verdicts

COLUMNS = (
    "arm",
    "role",
    "turns, before",
    "turns, after",
    "last turn, after",
    "greedy",
    "answers",
    "tokens",
    "trained on",
)
BRIEF = ("arm", "turns, before", "turns, after", "last turn, after", "greedy", "answers", "tokens")
"""The columns that fit a terminal."""
INTRODUCTION = (
    "Made by `maporl compare all --docs docs/results.md` from the studies' own files; no figure is "
    "written by hand. The tasks and models are tiny and built in, so these figures show the shape "
    "of the paper's claims in the small and reproduce none of its numbers. Sentences marked (+) "
    "speak for the claim, (-) against it, (?) leave it open."
)
NOTHING = "No study has been carried out yet; `maporl compare --list` explains them."
LEGEND = (
    "Turns: the score in each turn, mean over seeds, sampled at the training temperature; last "
    "turn: with its 95 % interval over seeds (Student's t); greedy: the last turn decoded "
    "greedily; answers and tokens: generated per held-out question; trained on: answers and tokens "
    "generated for training, per seed."
)
SCORES = {
    "vote": "Score: expected accuracy of the majority answer, ties shared.",
    "mean_accuracy": "Score: mean accuracy of the agents.",
}


def rows(study: Study, columns: Sequence[str] = COLUMNS) -> list[tuple[str, ...]]:
    """Return the table of a study: a text per column, one row per arm."""
    whole = [dict(zip(COLUMNS, _row(study, arm), strict=True)) for arm in study.arms]
    return [tuple(row[column] for column in columns) for row in whole]


def _row(study: Study, arm: Arm) -> tuple[str, ...]:
    last, greedy = (last_turn(study, arm, decoding) for decoding in ("sampled", "greedy"))
    role = arm.role if arm.of is None else f"{arm.role} of {arm.of}"
    return (
        arm.label,
        role,
        by_turn(study, arm, "before"),
        by_turn(study, arm, "after"),
        level(last),
        level(greedy),
        *per_question(arm),
        trained_on(arm),
    )


def last_turn(study: Study, arm: Arm, decoding: Decoding) -> Estimate | None:
    """Return the score of the last turn after training; None if it was not measured."""
    scores = arm.scores(study.metric, "after", decoding)
    return estimate(list(scores.values())) if scores else None


def level(value: Estimate | None) -> str:
    """Return e.g. "0.905 ± 0.031", or "-" for nothing."""
    return "-" if value is None else str(value).removeprefix("+")


def by_turn(study: Study, arm: Arm, stage: Stage) -> str:
    """Return the mean score of every turn, e.g. ".333 .718 .852", or "-" for nothing."""
    found = [m for result in arm.seeds if (m := result.find(stage, "sampled")) is not None]
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
    """Return what follows from the numbers, marked for, against or open."""
    mark = {"supports": "+", "contradicts": "-", "open": "?"}
    labels = {arm.name: arm.label for arm in study.arms}
    found = (*untrained_verdicts(study), *verdicts(study), *incentive_verdicts(study))
    return [f"({mark[v.kind]}) {labels[v.arm]}. {v.sentence}" for v in found]


def untrained_verdicts(study: Study) -> list[Verdict]:
    """Say whether the first method's team already improved over its turns before training.

    That it does not is the paper's first claim, so a rise contradicts it.
    """
    method = next((arm for arm in study.arms if arm.role == "method"), None)
    if method is None or not (last := method.scores(study.metric, "before", "sampled")):
        return []
    rise = difference(last, method.scores(study.metric, "before", "sampled", turn=0))
    words = f"Off the shelf, from the first to the last turn: {rise}"
    if rise.half_width is None:
        return [Verdict("open", method.name, f"{words}; one seed has no interval.")]
    if rise.low > 0:
        return [Verdict("contradicts", method.name, f"{words}, a rise without any training.")]
    return [Verdict("supports", method.name, f"{words}, no rise.")]


# --- Markdown -----------------------------------------------------------------------


def page(studies: Sequence[Study]) -> str:
    """Return the page of all studies."""
    paragraphs = [INTRODUCTION, LEGEND] if studies else [INTRODUCTION, NOTHING]
    head = ["# Results", *(line for text in paragraphs for line in ("", *wrapped(text)))]
    return "\n".join([*head, *(line for study in studies for line in section(study)), ""])


def wrapped(text: str) -> list[str]:
    """Return a paragraph in lines of at most 100 characters."""
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def section(study: Study) -> list[str]:
    """Return the lines of one study."""
    versions = study.versions.get("packages", {})
    made_with = ", ".join(f"{name} {versions[name]}" for name in versions if versions[name])
    return [
        "",
        f"## {study.title}",
        "",
        *wrapped(study.claim),
        "",
        f"    {study.command}",
        "",
        *wrapped(f"{budget(study)}; {made_with}."),
        "",
        *markdown_table(COLUMNS, rows(study)),
        "",
        SCORES[study.metric],
        "",
        *(f"- {sentence}" for sentence in sentences(study)),
        *(f"- Note: {note}" for note in study.notes),
    ]


def budget(study: Study) -> str:
    """Return what a study cost, in words."""
    seeds = ", ".join(map(str, study.budget.get("seeds", [])))
    return (
        f"{study.created[:10]}, seeds {seeds}, {study.budget.get('core-minutes')} core-minutes "
        f"on {study.machine.get('platform')}"
    )


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return a table; bars in cells are escaped."""
    cells = [header, ["---"] * len(header), *lines]
    return ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in cells]
