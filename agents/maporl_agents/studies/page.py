"""The pages of the studies in Markdown: a summary with a plot per study, and the full tables.

`maporl compare all --docs docs/explanation/results.md` writes the summary to that file and all
else to the folder of the same name beside it:

    results.md                 the summary
    results/claims.md          every claim with its p-value, and how to read the tables
    results/<study>.md         the tables and sentences of one study
    results/<study>.png        its plot
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from maporl_agents.studies import smollm2
from maporl_agents.studies.plots import save_plot
from maporl_agents.studies.printed import (
    COLUMNS,
    PrintedResults,
    PrintedStudy,
    claim_lines,
    printed_results,
)
from maporl_agents.studies.results import NOT_YET, Study
from maporl_agents.studies.verdicts import MARGIN

INTRODUCTION = (
    "Made by `maporl compare all --docs docs/explanation/results.md` from the studies' own files; "
    "no figure and no judgement is written by hand. The tasks and models are tiny and built in: "
    "the figures show whether the paper's claims hold at this scale and reproduce none of its "
    "numbers."
)
REAL_INTRODUCTION = (
    "Made by `maporl compare smollm2 --seeds 0 1 2 3 4 --kept benchmarks/smollm2_jobs --docs "
    "docs/explanation/results/smollm2.md` from the studies' own files; no figure and no judgement "
    "is written by hand. The model is SmolLM2-135M-Instruct, the tasks are small. Each team is "
    f"measured on {smollm2.QUESTIONS} held-out questions, so that measuring takes no longer than "
    "training. Every row that has not all seeds is named in the notes of its study; the same "
    "command goes on with them."
)
"""Of studies on a real model, see `smollm2`."""
PLOTS = (
    "Each plot shows the printed figures of its study. Left: the score of the last turn after "
    "training (filled, with its 95 % interval over seeds) and before it (open). Right: the "
    "difference that decides each claim, with its 95 % interval: green where the claim holds, red "
    "where it fails, grey where it is not shown. A claim that was not measured has no point."
)
CAVEATS = (
    "Settings were chosen on test questions that these tables show: "
    "[which, and where]({folder}/claims.md#settings-chosen-on-test-questions). Three seeds "
    "give wide intervals; an interval of Student's t is symmetric and can pass 1."
)
NOTHING = "No study has been carried out yet; `maporl compare --list` explains them."
LEGEND = (
    "Turns: the score in each turn, mean over seeds, sampled at the training temperature. Last "
    "turn: the same with its 95 % interval over seeds (Student's t). Greedy: the same turns "
    "decoded greedily, with the interval of the last one. Answers and tokens: generated per "
    "held-out question. Trained on: answers and tokens generated for training, per seed.",
    "Sentences marked (+) support the claim, (-) contradict it, (?) leave it open, and (=) state a "
    "difference that does neither. The sentences about greedy decoding come last and begin with "
    '"greedy:".',
    "Each claim names the sentences that decide it. It **holds** if all of them are (+), **fails** "
    "if one is (-), and is **not shown** otherwise. The deciding sentence is the first (-); if "
    "there is none, the first (?); else the first (+). Sampled and greedy decoding are judged "
    "separately.",
    "p, Holm: the two-sided p-value of Student's t test over seeds, then the p-value corrected for "
    "the number of claims in the table. A claim that holds has the largest p-value of its "
    "sentences; a claim that fails has that of the deciding sentence. With three seeds p is rarely "
    "below .001, so few judgements of a long table remain after correction.",
    f'"Off the shelf" is (+) only if the interval of the rise over turns ends below {MARGIN}, and '
    "(-) if it begins above 0. Kept x %: the share of the training's rise that remains when "
    "messages or verdicts are shuffled, (shuffled - before) / (trained - before). A negative share "
    "means that the shuffled team scores below the untrained one.",
    "All seeds start from the same pre-trained base and answer the same held-out questions, so an "
    "interval covers the noise of training and sampling only, not that of other bases or "
    "questions. An interval of Student's t is symmetric and not bounded by [0, 1].",
)
CHOICES = (
    "Settings were chosen before a validation split existed, on questions of the split `test`, 400 "
    "of which the tables show (docs/log.md has the figures). `shopping`: its 64 items, its "
    "pre-training, and MAPoRL's learning rate, passes and steps, on 250 test questions with seed "
    "0. `sharing` and `coins`: MAPoRL's learning rate, on both with seed 0. `malt` and `schemes`: "
    "MALT's rounds and thresholds, on 500 with seeds 0 to 2. `schemes`: MAGRPO's learning rate, "
    "with seeds 0 and 1. `magrpo`: joining and steps, on all 288 with seed 0. This favours the "
    "tuned arms; arms that were not tuned have no such advantage. `alone`, `incentives`, "
    "`transfer`, `bases` and `variants` use the settings chosen this way.",
    "From now on settings, thresholds and learning rates are chosen on the split `validation`, "
    "which every task has, and on no question of `test`. Tables made earlier also trained on the "
    "larger `train` of that time.",
)
"""Which settings were chosen on questions that the tables show."""


def is_real(results: PrintedResults) -> bool:
    """Return whether the studies are those of a real model."""
    return bool(results.studies) and all(study.name in smollm2.STUDIES for study in results.studies)


def write_pages(path: Path, studies: Sequence[Study]) -> None:
    """Write the summary to `path`, tables and plots to the folder of its name beside it."""
    write_printed(path, printed_results(studies))


def write_printed(path: Path, results: PrintedResults) -> None:
    """Write all pages and plots of printed results; see the top of this file."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(summary(results, folder.name), encoding="utf-8")
    (folder / "claims.md").write_text(claims_page(results, path.name), encoding="utf-8")
    for study in results.studies:
        (folder / f"{study.name}.md").write_text(study_page(study, path.name), encoding="utf-8")
        if has_figures(study):
            save_plot(study, folder / f"{study.name}.png")


# --- The summary --------------------------------------------------------------------


def summary(results: PrintedResults, folder: str) -> str:
    """Return the summary; tables and plots are in `folder` beside it."""
    if not results.studies:
        return "\n".join(["# Results", *paragraphs([INTRODUCTION, NOTHING]), ""])
    first = REAL_INTRODUCTION if is_real(results) else INTRODUCTION
    caveats = [] if is_real(results) else [CAVEATS.format(folder=folder)]
    texts = [first, tally(results), results.correction, *caveats, PLOTS]
    sections = [line for study in results.studies for line in short_section(study, folder)]
    title = "# Results on SmolLM2" if is_real(results) else "# Results"
    return "\n".join([title, *paragraphs(texts), *sections, ""])


def tally(results: PrintedResults) -> str:
    """Return the numbers of claims that hold, fail and are not shown, with links to all of them."""
    claims = [claim for study in results.studies for claim in study.claims]
    counts = Counter(claim.sampled for claim in claims)
    listed = ", ".join(f"{counts[name]} {words}" for name, words in TALLIED if counts[name])
    return f"**Of {len(claims)} claims, judged by sampled messages: {listed}.**"


TALLIED = (
    ("holds", "hold"),
    ("fails", "fail"),
    ("not shown", "are not shown"),
    ("not measured", "are not measured"),
)


def short_section(study: PrintedStudy, folder: str) -> list[str]:
    """Return the lines of one study in the summary."""
    place = f"{folder}/{study.name}"
    return [
        "",
        f"## {study.title}",
        "",
        *wrapped(study.claim),
        "",
        *plot_lines(study, place),
        *(
            f"- **{claim.sampled}** (greedy: {claim.greedy}): {claim.words}"
            for claim in study.claims
        ),
        *textwrap.wrap(waiting(study), 100, subsequent_indent="  "),
        *(["- No claim to judge: a survey."] if not study.claims else []),
        "",
        f"[All figures of `{study.name}`]({place}.md)",
    ]


def plot_lines(study: PrintedStudy, place: str) -> list[str]:
    """Return the lines that show a study's plot; [] if it has no figures yet."""
    words = f"{study.name}: scores after training, and the differences that decide"
    return [f"![{words}]({place}.png)", ""] if has_figures(study) else []


def has_figures(study: PrintedStudy) -> bool:
    """Return whether anything of a study was measured."""
    return any(cell != "-" for row in study.rows for cell in row[2:])


def waiting(study: PrintedStudy) -> str:
    """Return the note of the rows that were not carried out yet, as an item; "" without one."""
    return next((f"- {note}" for note in study.notes if note.startswith(NOT_YET)), "")


# --- The tables ---------------------------------------------------------------------


def claims_page(results: PrintedResults, summary_name: str) -> str:
    """Return the page of all claims, with p-values and how to read the tables."""
    lines = ["# Claims", "", f"[Summary](../{summary_name})", "", *claim_table(results)]
    if not is_real(results):
        lines += ["", "## Settings chosen on test questions", *paragraphs(CHOICES)]
    return "\n".join([*lines, "", "## How to read the tables", *paragraphs(LEGEND), ""])


def claim_table(results: PrintedResults) -> list[str]:
    """Return the claims of all studies as a table; surveys have none."""
    header = ("study", "claim", "sampled", "greedy", "decided by (sampled)", "p, Holm (sampled)")
    lines = [
        (study.name, claim.words, f"**{claim.sampled}**", claim.greedy, claim.because, claim.p)
        for study in results.studies
        for claim in study.claims
    ]
    return [*markdown_table(header, lines), "", *wrapped(results.correction)]


def study_page(study: PrintedStudy, summary_name: str) -> str:
    """Return the page of one study: claims, table, sentences and notes."""
    lines = [
        f"# {study.title}",
        "",
        f"[Summary](../{summary_name}), [how to read the table](claims.md#how-to-read-the-tables)",
        "",
        *wrapped(study.claim),
        "",
        *(f"- {line}" for line in claim_lines(study.claims)),
        "",
        f"    {study.command}",
        "",
        *wrapped(study.origin),
        "",
        *markdown_table(COLUMNS, study.rows),
        "",
        study.score,
        "",
        *(f"- {sentence}" for sentence in study.sentences),
        *(f"- Note: {note}" for note in study.notes),
        "",
    ]
    return "\n".join(lines)


# --- Markdown -----------------------------------------------------------------------


def paragraphs(texts: Sequence[str]) -> list[str]:
    """Return the lines of paragraphs, an empty one before each."""
    return [line for text in texts for line in ("", *wrapped(text))]


def wrapped(text: str) -> list[str]:
    """Return a paragraph in lines of at most 100 characters."""
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return a table; bars in cells are escaped."""
    cells = [header, ["---"] * len(header), *lines]
    return ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in cells]
