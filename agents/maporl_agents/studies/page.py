"""The results of studies as tables and as one page of Markdown. Every figure comes from a study.

`maporl compare` prints the tables and writes ``docs/explanation/results.md`` from them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from statistics import fmean

from maporl_agents.studies.claims import Judged, all_verdicts, holm, judged
from maporl_agents.studies.results import Arm, Decoding, Stage, Study
from maporl_agents.studies.verdicts import MARGIN, Estimate, estimate

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
INTRODUCTION = (
    "Made by `maporl compare all --docs docs/explanation/results.md` from the studies' own files; "
    "no figure and no judgement is written by hand. The tasks and models are tiny and built in, so "
    "these figures show the shape of the paper's claims in the small and reproduce none of its "
    "numbers."
)
NOTHING = "No study has been carried out yet; `maporl compare --list` explains them."
LEGEND = (
    "Turns: the score in each turn, mean over seeds, sampled at the training temperature; last "
    "turn: with its 95 % interval over seeds (Student's t); greedy: the same turns decoded "
    "greedily, the interval that of the last one; answers and tokens: generated per held-out "
    "question; trained on: answers and tokens generated for training, per seed.",
    "Sentences marked (+) speak for the claim, (-) against it, (?) leave it open, (=) state a "
    "difference that is neither. The same sentences about greedy decoding follow behind the mark "
    '"greedy:".',
    "A claim names the sentences it stands on. It **holds** if all of them are (+), **fails** if "
    "one is (-), and is **not shown** otherwise: the first (-) decides, else the first (?), else "
    "the first (+). It is judged apart for sampled and for greedy decoding.",
    "p, Holm: two-sided, of Student's t test over seeds; of a claim that holds the largest of its "
    "sentences', of one that fails that of the sentence that decided; then corrected for the "
    "number of claims on this page. With three seeds p is rarely below .001, so that a page of "
    "many claims leaves little after correction.",
    f'"Off the shelf" is (+) only if the interval of the rise over turns ends below {MARGIN}, (-) '
    "if it begins above 0. Kept x %: the share of the training's rise that is left when something "
    "is shuffled, (shuffled - before) / (trained - before); a negative share means that shuffling "
    "pushes the team below where it began.",
    "All seeds start from the same pre-trained base and answer the same held-out questions, so an "
    "interval holds the noise of training and sampling only, not that of other bases or questions. "
    "An interval of Student's t is symmetric and knows no bounds: of three seeds it can pass 1.",
)
CHOICES = (
    "Settings were chosen before there was a split for it, on questions of the split `test`, of "
    "which the tables show 400 (docs/log.md has the figures): `shopping`: its 64 items, its "
    "pre-training, and MAPoRL's rate, passes and steps, on 250 test questions with seed 0; "
    "`sharing` and `coins`: MAPoRL's rate, on both with seed 0; `malt` and `schemes`: MALT's "
    "rounds and thresholds, on 500 with seeds 0 to 2; `schemes`: MAGRPO's rate, with seeds 0 and "
    "1; `magrpo`: joining and steps, on all 288 with seed 0. Figures of tuned arms are the "
    "better for it, those of arms that nobody tuned are not. `alone`, `incentives`, `transfer`, "
    "`bases` and `variants` take the settings so chosen.",
    "From now on settings, thresholds and rates are chosen on the split `validation`, which every "
    "task has, and on no question of `test`. Tables made before are of the larger `train` too.",
)
"""Which choices saw the questions of the tables."""
LEVEL = 0.05
"""Of the correction: how often any judgement of the page may err."""
MARKS = {"supports": "+", "contradicts": "-", "open": "?", "neutral": "="}
DECODINGS: dict[Decoding, str] = {"sampled": "", "greedy": "greedy: "}
"""How messages were drawn, and how sentences about it are marked."""
SCORES = {
    "vote": "Score: expected accuracy of the majority answer, ties shared.",
    "mean_accuracy": "Score: mean accuracy of the agents.",
    "score": "Score: what the verifier gave, and training paid; no answer key is asked.",
}


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
    """Return what follows from the numbers, marked for, against or open; greedy ones last."""
    return [
        f"({MARKS[v.kind]}) {mark}{study.arm(v.arm).label}. {v.sentence}"
        for decoding, mark in DECODINGS.items()
        for v in all_verdicts(study, decoding)
    ]


def claim_lines(study: Study) -> list[str]:
    """Return a line per claim: the claim, whether it holds, and the sentences that decide."""
    if not study.claims:
        return ["No claim to judge: a survey."]
    return [
        f"**{capital(sampled.judgement)}**: {sampled.claim.words} {because(study, sampled)}"
        f" Greedy: **{greedily.judgement}**. {because(study, greedily)}".rstrip()
        for sampled, greedily in both_judgements(study)
    ]


def both_judgements(study: Study) -> list[tuple[Judged, Judged]]:
    """Return every claim judged by sampled and by greedy decoding."""
    return list(zip(judged(study), judged(study, "greedy"), strict=True))


def because(study: Study, claim: Judged) -> str:
    """Return what decided about a claim, with the figures."""
    if claim.by is not None:
        return f"({study.arm(claim.by.arm).label}. {claim.by.sentence})"
    return "" if claim.judgement == "not measured" else "(Not all of it was measured.)"


def capital(text: str) -> str:
    """Return a text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


# --- Markdown -----------------------------------------------------------------------


def page(studies: Sequence[Study]) -> str:
    """Return the page of all studies."""
    if not studies:
        texts, claims = [INTRODUCTION, NOTHING], []
    else:
        texts, claims = [INTRODUCTION], ["", "## Claims", "", *claim_table(studies), ""]
        claims += ["## What the choices saw", *paragraphs(CHOICES), ""]
        claims += ["## How to read this page", *paragraphs(LEGEND)]
    sections = [line for study in studies for line in section(study)]
    return "\n".join(["# Results", *paragraphs(texts), *claims, *sections, ""])


def paragraphs(texts: Sequence[str]) -> list[str]:
    """Return the lines of paragraphs, an empty one before each."""
    return [line for text in texts for line in ("", *wrapped(text))]


def claim_table(studies: Sequence[Study]) -> list[str]:
    """Return the claims of all studies as a table; surveys have none."""
    header = ("study", "claim", "sampled", "greedy", "decided by (sampled)", "p, Holm (sampled)")
    judgements = [(study, *both) for study in studies for both in both_judgements(study)]
    corrected = holm([sampled.p for _, sampled, _ in judgements])
    lines = [
        (
            study.name,
            sampled.claim.words,
            f"**{sampled.judgement}**",
            greedily.judgement,
            because(study, sampled)[1:-1],
            p_values(sampled.p, p),
        )
        for (study, sampled, greedily), p in zip(judgements, corrected, strict=True)
    ]
    return [*markdown_table(header, lines), "", *wrapped(after_correction(corrected))]


def p_values(p: float | None, corrected: float | None) -> str:
    """Return e.g. ".002, .09": of the judgement alone, and corrected."""
    if p is None or corrected is None:
        return "-"
    return ", ".join("1" if x >= 1 else f"{x:.2g}".removeprefix("0") for x in (p, corrected))


def after_correction(corrected: Sequence[float | None]) -> str:
    """Return how many judgements are left when their number is corrected for."""
    decided = [p for p in corrected if p is not None]
    left = sum(p <= LEVEL for p in decided)
    return (
        f"Judgements are made one by one, at 95 % each. Corrected for the number of claims on this "
        f"page (Holm, {len(corrected)} claims), {left} of the {len(decided)} that hold or fail are "
        f"left at {LEVEL}. Greedy judgements are not corrected."
    )


def wrapped(text: str) -> list[str]:
    """Return a paragraph in lines of at most 100 characters."""
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def section(study: Study) -> list[str]:
    """Return the lines of one study."""
    return [
        "",
        f"## {study.title}",
        "",
        *wrapped(study.claim),
        "",
        *(f"- {line}" for line in claim_lines(study)),
        "",
        f"    {study.command}",
        "",
        *wrapped(f"{budget(study)}; {made_with(study)}."),
        "",
        *markdown_table(COLUMNS, rows(study)),
        "",
        SCORES[study.metric],
        "",
        *(f"- {sentence}" for sentence in sentences(study)),
        *(f"- Note: {note}" for note in study.notes),
    ]


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
    """Return what a study cost, in words."""
    given = study.budget.get("seeds", [])
    seeds = f"seed{'s' * (len(given) != 1)} {', '.join(map(str, given))}"
    return (
        f"{study.created[:10]}, {seeds}, {study.budget.get('core-minutes')} core-minutes "
        f"on {study.machine.get('platform')} with {study.machine.get('cpu_count')} cores"
    )


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return a table; bars in cells are escaped."""
    cells = [header, ["---"] * len(header), *lines]
    return ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in cells]
