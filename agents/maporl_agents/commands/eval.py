"""``maporl eval``: a team debates held-out questions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from maporl_agents.commands.chosen_flags import ChosenFlags
from maporl_agents.config import LongQuestions, Sampling
from maporl_agents.measure import terminal_report
from maporl_agents.terminal import console
from maporl_env.tasks import load_task
from maporl_env.types import Question

if TYPE_CHECKING:
    from maporl_agents.commands.chosen_team import ChosenGame
    from maporl_agents.commands.eval_passes import Passes
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
    samples: int = 1
    """N, sampled debates of each question. From 2 on pass@k (one of k is right) and the majority
    of k are shown for k up to N, with 95 % intervals over questions: Wilson's, or the bootstrap's
    where a question counts in parts. The table by turn is of the first debate of each."""
    best_by: str = ""
    """Also show how often the final text that this verifier scores best, of k debates, is right:
    any name that --verifier takes, your own as module:function too."""
    greedy: bool = True
    """Also measure greedy decoding, which takes as long again as sampling each question once."""
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
    """Also write the results as JSON to this file and the transcripts beside it (.jsonl, greedy
    ones .greedy.jsonl), batch by batch: after a kill the same command goes on where it stopped."""
    overwrite: bool = False
    """Replace what stands at --out although it is of other settings."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        for flag, count in (("--limit", self.limit), ("--samples", self.samples)):
            if count < 1:
                raise ValueError(f"{flag} is the number of questions, at least 1, not {count}")
        if self.overwrite and self.out is None:
            raise ValueError("--overwrite belongs to --out: name the file, or leave it out")
        if self.task:
            load_task(self.task, self.data)  # before torch is
        evaluate_team(self, console())
        return 0


def evaluate_team(args: Eval, console: Console) -> None:
    """Measure a team sampled and greedy; print the tables, write JSON if asked."""
    from maporl_agents.commands.chosen_team import chosen_game, memory_warning_of, shout, team_of
    from maporl_agents.commands.eval_passes import Passes, picker
    from maporl_agents.play.questions import questions_of_step
    from maporl_agents.records.eval_record import EvalRecord

    chosen = chosen_game(args)
    game, sampling, made, split, told = chosen
    picks = picker(args.best_by)
    if told:
        console.print(told)
    measured = made.questions(split)
    questions = questions_of_step(measured, 0, min(args.limit, len(measured)), seed=0)
    team = team_of(args, game)
    questions = fitting_questions(team, made, sampling, questions, game.long_questions, console)
    memory = memory_warning_of(args.run, chosen, questions)
    shout(console, memory)
    passes = Passes(
        team, made, sampling, questions, args.samples, args.greedy, args.seed, args.batch, picks
    )
    if args.out is None:
        passes.play(None, console)
    else:
        record = EvalRecord(args.out, asked_of(args, chosen, questions), overwrite=args.overwrite)
        with record:
            passes.play(record, console)
            record.finish(passes.to_dict() | ({"warnings": [memory]} if memory else {}))
    show(passes, args, chosen, console)
    shout(console, memory)
    if args.out is not None:
        console.print(f"wrote {args.out}")


def show(passes: Passes, args: Eval, chosen: ChosenGame, console: Console) -> None:
    """Print the table by turn, that of several debates per question, failures and warnings."""
    models = args.model if args.settings is None else args.settings.team.model
    name = str(args.run) if args.run else ", ".join(models)
    short = ", ".join(Path(one).name for one in ([name] if args.run else models))
    count = f"{len(passes.questions)} questions"
    title = f"{'' if short == name else f'{name}: '}{chosen.settings.task}, {count}"
    stage = {decoding: result.to_dict() for decoding, result in passes.results.items()}
    console.print(terminal_report.result_table({short: stage}, title))
    if rows := passes.repeated():
        console.print(terminal_report.repeated_table(rows, args.samples, args.best_by))
    for decoding, by_turn in passes.failures().items():
        for line in by_turn[-1].lines() if by_turn else ():
            console.print(f"{decoding}, {line}" if line[0] != " " else line, markup=False)
    for warning in terminal_report.warnings_of(passes.results["sampled"].transcripts):
        console.print(warning)


def asked_of(args: Eval, chosen: ChosenGame, questions: list[Question]) -> dict[str, Any]:
    """Return all that the results depend on, as JSON values."""
    from maporl_agents.commands.chosen_team import weights_of
    from maporl_env.tasks.line_index import fingerprint

    return {
        "game": asdict(chosen.settings),
        "sampling": asdict(chosen.sampling),
        "team": weights_of(args),
        "questions": fingerprint(questions),
        "split": chosen.split,
        **{name: getattr(args, name) for name in ("samples", "greedy", "seed", "batch", "best_by")},
    }


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
