"""The report of a run in the terminal: result table, warnings, debates as text.

Reads only what a run folder holds (metrics and evaluations) or `Evaluation` objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from maporl_agents.measure.copying import silent_agents
from maporl_agents.measure.pass_at_k import RepeatedRow
from maporl_env.rendering import plain_text
from maporl_env.types import Transcript

Results = Mapping[str, Mapping[str, Any]]
"""{"sampled": evaluation, "greedy": evaluation}, each as `Evaluation.to_dict` gives it."""


@dataclass(frozen=True)
class ResultTable:
    """Turns x stages x {sampled, greedy}: vote with interval, agents, flips.

    Attributes:
        stages: e.g. {"before": results, "after": results}; one entry for an evaluation alone.
        title: printed above.
    """

    stages: Mapping[str, Results]
    title: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Leave out the blanks beside figures where the terminal is too narrow for them."""
        wide = Measurement.get(console, options.update(max_width=1_000), _table(self, 1)).maximum
        yield _table(self, int(wide <= options.max_width))


def result_table(stages: Mapping[str, Results], title: str) -> ResultTable:
    """Return the table of an evaluation, to be printed; see `ResultTable`."""
    return ResultTable(stages, title)


def _table(results: ResultTable, padding: int) -> Table:
    """Return the table, with `padding` blanks on both sides of a figure."""
    stages = results.stages
    with_scores = scores_are_not_accuracy(stages)
    caption = f"{CAPTION}{SCORE if with_scores else ''}."
    table = Table(
        title=results.title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        padding=(0, padding),
    )
    table.add_column("", overflow="fold")
    for name in ("decoding", "turn"):
        table.add_column(name, no_wrap=True)
    figures = ("vote", "agents", "w->r", "r->w", "agree", "none")
    for name in (*figures, *(["score"] if with_scores else [])):
        table.add_column(name, justify="right", no_wrap=name != "agents")
    for stage, by_decoding in stages.items():
        for decoding, evaluation in by_decoding.items():
            for t, turn in enumerate(evaluation["turns"]):
                table.add_row(
                    stage if t == 0 else "",
                    decoding if t == 0 else "",
                    str(t + 1),
                    f"{turn['vote']:.3f} ±{turn['vote_interval']:.3f}",
                    " ".join(f"{x:.2f}" for x in turn["accuracy"]),
                    f"{turn['wrong_to_right']:.3f}" if t else "-",
                    f"{turn['right_to_wrong']:.3f}" if t else "-",
                    f"{turn['agreement']:.3f}",
                    f"{turn['invalid']:.3f}",
                    *([_share(turn.get("score"))] if with_scores else []),
                )
            table.add_section()
    return table


def repeated_table(rows: Sequence[RepeatedRow], count: int, best_by: str) -> Table:
    """Return the table of several debates per question, to be printed.

    Args:
        rows: the figures by k.
        count: N, debates of each question.
        best_by: the verifier that picks; "" for none.
    """
    made = {
        share.interval for row in rows for share in (row.passed, row.majority, row.best) if share
    }
    table = Table(
        title=f"{count} sampled debates of each question, k of them at a time",
        title_justify="left",
        caption=REPEATED + " and ".join(INTERVALS[name] for name in sorted(made)) + ".",
        caption_justify="left",
    )
    table.add_column("k", justify="right")
    for name in ("pass@k", "majority of k", *([f"best of k by {best_by}"] if best_by else [])):
        table.add_column(name, justify="right", no_wrap=name[0] != "b")
    for row in rows:
        shares = [row.passed, row.majority, *([row.best] if row.best else [])]
        table.add_row(str(row.k), *map(str, shares))
    return table


REPEATED = (
    "pass@k: at least one of k debates is right; majority: the most common answer of all agents of "
    "k debates is right, ties shared; best: so is the final text of the best score. In brackets 95 "
    "% intervals over questions: "
)
INTERVALS = {
    "bootstrap": "the bootstrap's, 10,000 resamples, where a question counts in parts",
    "wilson": "Wilson's where each question is right or wrong",
}


def asked_words(stages: Mapping[str, Results]) -> str:
    """Return the number of questions of each stage, e.g. "500", or "100 before, 500 after"."""
    asked = {stage: results["sampled"]["num_questions"] for stage, results in stages.items()}
    if len(set(asked.values())) == 1:
        return f"{next(iter(asked.values())):,}"
    return ", ".join(f"{number:,} {stage}" for stage, number in asked.items())


def scores_are_not_accuracy(stages: Mapping[str, Results]) -> bool:
    """Return whether in some turn the verifier's mean score differs from the key's accuracy."""
    turns = [turn for s in stages.values() for e in s.values() for turn in e["turns"]]
    return any(
        turn.get("score") is not None
        and abs(turn["score"] - sum(turn["accuracy"]) / len(turn["accuracy"])) > 5e-4
        for turn in turns
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


CAPTION = (
    "vote: expected accuracy of the majority answer (ties shared), ± 95 % interval over questions; "
    "agents: accuracy of each; w->r, r->w: share of messages that turned from wrong to right, from "
    "right to wrong; agree: questions whose valid answers agree; none: messages without an answer"
)
SCORE = "; score: mean score of the verifier, shown where it is not the key's accuracy"


def silence(transcripts: Sequence[Transcript]) -> list[str]:
    """Return a warning for each agent that mostly writes nothing."""
    return [
        f"warning: {agent} writes nothing in {share:.0%} of its messages: look at its model and "
        "chat template, and at what ends a message (docs/how-to/models.md)"
        for agent, share in silent_agents(transcripts).items()
    ]


def unscored(transcripts: Sequence[Transcript]) -> list[str]:
    """Return a warning if the verifier gave no message at all a score, else none."""
    messages = [message for transcript in transcripts for message in transcript.messages]
    if not messages or any(message.score is not None for message in messages):
        return []
    return [
        f"warning: the verifier gave none of {len(messages):,} messages a score, so nothing can be "
        "learned or measured by it: see why in the warnings above, and try it by hand"
    ]


def warnings_of(transcripts: Sequence[Transcript]) -> list[str]:
    """Return warnings about debates as a whole, one sentence each."""
    return [*silence(transcripts), *unscored(transcripts)]


def before_and_after(before: Transcript, after: Transcript) -> RenderableType:
    """Return one question debated twice, readable in a terminal or a file."""
    return Group(
        Text("\nThe same question, before training", style="bold"),
        Text(_readable(before)),
        Text("\nand after", style="bold"),
        Text(_readable(after)),
    )


def _readable(transcript: Transcript) -> str:
    question = transcript.question
    told = plain_text.private_texts(question, transcript.agents)
    return plain_text.heading(question) + told + plain_text.lines(transcript.messages)


def telling_question(before: Sequence[Transcript], after: Sequence[Transcript]) -> int:
    """Return the first question that was wrong at first and that the trained team got right.

    Falls back to the first question where there is none.

    Args:
        before: debates of the untrained team.
        after: debates on the same questions in the same order, and maybe on more.
    """
    for index, (old, new) in enumerate(zip(before, after[: len(before)], strict=True)):
        first, last = new.of_turn(0), new.of_turn(new.turn - 1)
        if (
            all(m.score == 0 for m in old.of_turn(old.turn - 1) if m.scored)
            and all(m.score == 0 for m in first if m.scored)
            and all(m.score == 1 for m in last if m.scored)
        ):
            return index
    return 0
