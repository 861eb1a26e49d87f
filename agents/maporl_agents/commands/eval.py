"""``maporl eval``: a team debates held-out questions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from maporl_agents.commands.chosen_flags import ChosenFlags
from maporl_agents.config import LongQuestions, Sampling
from maporl_agents.measure import terminal_report
from maporl_agents.records.storage import save_json
from maporl_agents.terminal import console
from maporl_env.tasks import load_task
from maporl_env.types import Question

if TYPE_CHECKING:
    from maporl_agents.models.team import Team
    from maporl_agents.training.make_game import LoadedGame


@dataclass(frozen=True)
class Eval(ChosenFlags):
    """Let a team debate held-out questions and print accuracy by turn, votes and flips.

    Accuracy is by the key; where a verifier's scores are something else, they are in the column
    "score".
    """

    limit: int = 500
    """Largest number of questions."""
    greedy: bool = True
    """Also measure greedy decoding, which takes as long again as sampling."""
    temperature: float | None = None
    """Of the sampled half of the table. Left out, it is that of the run, else of the model's
    generation settings, else 1."""
    batch: int = 64
    """Debates side by side."""
    long_questions: Literal["", "refuse", "leave_out", "keep"] = ""
    """Questions whose debate may not fit a model's window: as for `maporl train
    --game.long-questions`. Empty for what the run does, else refuse."""
    seed: int = 20_000
    """Names the sampling noise."""
    out: Path | None = None
    """Also write the results as JSON to this file and the transcripts beside it (.jsonl)."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        if self.task:
            load_task(self.task, self.data)  # before torch is
        evaluate_team(self, console())
        return 0


def evaluate_team(args: Eval, console: Console) -> None:
    """Measure a team sampled and greedy; print the table, write JSON if asked."""
    from maporl_agents.commands.chosen_team import chosen_game, memory_warning_of, shout, team_of
    from maporl_agents.measure.evaluate import evaluate
    from maporl_agents.measure.failures import failures
    from maporl_agents.play.questions import questions_of_step
    from maporl_agents.training.progress import evaluation_progress

    if args.limit < 1:
        raise ValueError(f"--limit is the number of questions, at least 1, not {args.limit}")
    chosen = chosen_game(args)
    game, sampling, made, split, told = chosen
    if told:
        console.print(told)
    measured = made.questions(split)
    questions = questions_of_step(measured, 0, min(args.limit, len(measured)), seed=0)
    team = team_of(args, game)
    questions = fitting_questions(team, made, sampling, questions, game.long_questions, console)
    memory = memory_warning_of(args.run, chosen, questions)
    shout(console, memory)
    debates = made.debates(min(args.batch, len(questions)))
    results = {}
    for decoding, greedy in (("sampled", False), ("greedy", True))[: 1 + args.greedy]:
        with evaluation_progress(len(questions), console) as shown:
            results[decoding] = evaluate(
                team,
                debates,
                questions,
                sampling,
                seed=args.seed,
                greedy=greedy,
                on_part=lambda part: shown(len(part)),
            )
    stage = {decoding: result.to_dict() for decoding, result in results.items()}
    name = str(args.run) if args.run else ", ".join(args.model)
    short = ", ".join(Path(one).name for one in ([name] if args.run else args.model))
    title = f"{'' if short == name else f'{name}: '}{game.task}, {len(questions)} questions"
    console.print(terminal_report.result_table({short: stage}, title))
    failed = {decoding: failures(result.transcripts) for decoding, result in results.items()}
    for decoding, by_turn in failed.items():
        for line in by_turn[-1].lines() if by_turn else ():
            console.print(f"{decoding}, {line}" if line[0] != " " else line, markup=False)
    for warning in terminal_report.warnings_of(results["sampled"].transcripts):
        console.print(warning)
    shout(console, memory)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for decoding, by_turn in failed.items():
            stage[decoding]["failures"] = [turn.to_dict() for turn in by_turn]
        save_json(args.out, stage | ({"warnings": [memory]} if memory else {}))
        lines = (transcript.to_json() for transcript in results["sampled"].transcripts)
        args.out.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        console.print(f"wrote {args.out}")


def fitting_questions(
    team: Team,
    game: LoadedGame,
    sampling: Sampling,
    questions: list[Question],
    choice: LongQuestions,
    console: Console,
) -> list[Question]:
    """Return the questions that fit the team's models, also if all messages are of full length.

    Raises:
        ValueError: as `window_check.fitting`.
    """
    from maporl_agents.play.window_check import NoneFits, fitting, some

    part = {"chosen": questions}
    try:
        parts, left_out = fitting(team, game.config, sampling, part, choice)
    except NoneFits as error:
        raise ValueError(
            f"no question is sure to fit: {error.reason}; lower --max-new-tokens, take fewer "
            "--turns or --agents, or begin all the same with --long-questions keep"
        ) from error
    for ids in left_out.values():
        console.print(f"left out as too long: {len(ids):,} questions ({some(ids)})")
    return list(parts["chosen"])
