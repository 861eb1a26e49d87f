"""What ``maporl eval`` and ``maporl play`` do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from maporl_agents.algorithms.maporl import questions_of_step
from maporl_agents.config import GameConfig, Sampling, TeamConfig
from maporl_agents.measure import terminal_report
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.models.loading import make_team
from maporl_agents.models.parallel_bases import share_cores
from maporl_agents.models.team import Team
from maporl_agents.play.speak import requests, speak
from maporl_agents.play.window_check import NoneFits, fitting, some
from maporl_agents.records import questions_record
from maporl_agents.records.storage import save_json
from maporl_agents.seeding import seed_of
from maporl_agents.training.experiment import load_team, read_config
from maporl_agents.training.make_game import debate_config, training_split
from maporl_agents.types import Completion, TokenIds
from maporl_env import replay
from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.rendering import plain_text
from maporl_env.tasks import BUILT_IN, load_task
from maporl_env.types import Question

if TYPE_CHECKING:
    from maporl_agents.commands.play_options import Eval, Play


def evaluate_team(args: Eval, console: Console) -> None:
    """Measure a team sampled and greedy; print the table, write JSON if asked."""
    game, sampling = game_and_sampling(args)
    config = debate_config(game)
    if args.limit < 1:
        raise ValueError(f"--limit is the number of questions, at least 1, not {args.limit}")
    split, measured = pick_split(game, args.split)
    questions = questions_of_step(measured, 0, min(args.limit, len(measured)), seed=0)
    team = team_of(args, game)
    questions = fitting_questions(team, game, sampling, questions, console)
    memory = memory_warning_of(args.run, game, split, questions, measured)
    shout(console, memory)
    debates = BatchedDebate(config, min(args.batch, len(questions)))
    results = {}
    for decoding, greedy in (("sampled", False), ("greedy", True)):
        with console.status(f"{len(questions)} questions, {decoding} ..."):
            results[decoding] = evaluate(
                team, debates, questions, sampling, seed=args.seed, greedy=greedy
            )
    stage = {decoding: result.to_dict() for decoding, result in results.items()}
    name = str(args.run) if args.run else ", ".join(args.model)
    console.print(
        terminal_report.result_table({name: stage}, f"{game.task}, {len(questions)} questions")
    )
    for warning in terminal_report.silence(results["sampled"].transcripts):
        console.print(warning)
    shout(console, memory)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        save_json(args.out, stage | ({"warnings": [memory]} if memory else {}))
        lines = (transcript.to_json() for transcript in results["sampled"].transcripts)
        args.out.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        console.print(f"wrote {args.out}")


def play_debate(args: Play, console: Console) -> None:
    """Print one debate message by message; the last agent may be a person."""
    game, sampling = game_and_sampling(args)
    split, questions = pick_split(game, args.split)
    index = pick_index(args, len(questions))
    debates = BatchedDebate(debate_config(game), 1)
    person = game.num_agents - 1 if args.human else None
    team = team_of(args, game) if game.num_agents > 1 or person is None else None
    shout(console, memory_warning_of(args.run, game, split, [questions[index]], questions))
    debates.reset(questions=[questions[index]])
    show(console, plain_text.heading(questions[index]))
    if person is not None:
        show(console, introduction(debates.agents))
    turn = 0
    own: list[list[TokenIds]] = [[] for _ in debates.agents]
    while speaking := debates.prompts():
        texts = []
        for prompt in speaking:
            if prompt.seat == person:
                texts.append(ask_person(prompt))
            else:
                assert team is not None
                message = say(team, prompt, own[prompt.seat], sampling, args.seed)
                own[prompt.seat].append(message.ids)
                texts.append(message.text)
        debates.step(texts)
        if debates.played[0] > turn:
            show(console, plain_text.lines(debates.transcripts[0].of_turn(turn)))
            turn += 1
    show_end(console, debates)


def play_recording(args: Play, console: Console) -> None:
    """Print one debate that recorded text plays, after saying who was recorded."""
    own = ("replay", "turns", "index", "seed")
    for option in fields(args):
        if option.name not in own and getattr(args, option.name) != option.default:
            raise ValueError(f"--replay plays what was recorded: leave out --{option.name}")
    assert args.replay is not None
    recordings = replay.load(args.replay)
    recording = recordings[pick_index(args, len(recordings))]
    debates = replay.play([recording], args.turns or None)
    for seat, speaker in enumerate(recording.speakers):
        show(console, plain_text.harmless(f"agent_{seat}: {speaker}"))
    show(console, plain_text.heading(recording.question))
    show(console, plain_text.lines(debates.transcripts[0].messages))
    show_end(console, debates)


def pick_index(args: Play, number: int) -> int:
    """Return which of so many questions is played; ValueError if there is no such question."""
    index = random.Random(args.seed).randrange(number) if args.index is None else args.index
    if not 0 <= index < number:
        raise ValueError(f"question {index} does not exist: there are {number}, from 0")
    return index


def show_end(console: Console, debates: BatchedDebate) -> None:
    """Print the vote, the key and the rewards of a debate that is over."""
    transcript = debates.transcripts[0]
    votes = ", ".join(map(str, debates.debates[0].outcome())) or "no answer"
    rewards = debates.turn_rewards()[0]
    console.print(f"\nvote: {votes}    key: {transcript.question.answer}")
    for t, row in enumerate(rewards):
        console.print(f"reward of turn {t + 1}: " + "  ".join(f"{x:+.3f}" for x in row))


def show(console: Console, text: str) -> None:
    """Print text of agents, headings coloured in a terminal, never as markup."""
    for line in text.splitlines():
        style = "bold cyan" if line.startswith(("Turn", "Question")) else ""
        console.print(Text(line, style=style))


def say(
    team: Team, prompt: Prompt, own: Sequence[TokenIds], sampling: Sampling, seed: int
) -> Completion:
    """Return one message of one agent, whose earlier ones consist of the ids `own`."""
    stream = seed_of(seed, "play", prompt.turn, prompt.seat)
    [completion] = speak(team, requests(team, [prompt], [own]), sampling, stream)
    return completion


def introduction(agents: Sequence[str]) -> str:
    """Return who plays, and how a person answers."""
    *others, you = agents
    models = f"{', '.join(others)}: {'a model' if len(others) == 1 else 'models'}. " * bool(others)
    return (
        f"You are {you}. {models}Each turn shows what {you} reads; type one line, Enter sends it. "
        "Write your final answer as \\boxed{...}; an empty line is a message without an answer."
    )


def ask_person(prompt: Prompt) -> str:
    """Show a person what their agent reads, and read a line."""
    print(f"\n--- turn {prompt.turn + 1}: you, {prompt.agent}, read ---")
    print(plain_text.harmless(prompt.text))
    try:
        return input(f"{prompt.agent} > ")
    except EOFError:
        return ""


def pick_split(game: GameConfig, split: str | None) -> tuple[str, Sequence[Question]]:
    """Return the name of a split and its questions; see `Task.measured_split` for the usual one."""
    loaded = load_task(game.task, game.data or None)
    name = split or loaded.measured_split
    return name, loaded.split(name)


def memory_warning_of(
    run: Path | None,
    game: GameConfig,
    split: str,
    asked_now: Sequence[Question],
    measured: Sequence[Question],
) -> str:
    """Return a warning if questions are among those that the team was, or would be, trained on.

    Args:
        run: whose team it is; None for models that were not trained here.
        game: what is played.
        split: the name of the questions' split.
        asked_now: the questions.
        measured: all of their split.
    """
    trained = game if run is None else read_config(run).game
    splits = load_task(trained.task, trained.data or None).splits
    training = splits.get(training_split(trained), ())
    seen = questions_record.seen_in_training(asked_now, measured, training)
    return questions_record.memory_warning(seen, len(asked_now), split)


def fitting_questions(
    team: Team, game: GameConfig, sampling: Sampling, questions: list[Question], console: Console
) -> list[Question]:
    """Return the questions that fit the team's models.

    Where none is sure to fit if messages are as long as they may be, that is printed, and the
    questions need to fit in the first turn.

    Raises:
        ValueError: as `window_check.fitting`.
    """
    debate = debate_config(game)
    questions_record = {"chosen": questions}
    try:
        parts, left_out = fitting(team, debate, sampling, questions_record, game.long_questions)
    except NoneFits as error:
        first_turn = replace(debate, num_turns=1)
        parts, left_out = fitting(team, first_turn, sampling, questions_record, game.long_questions)
        console.print(Text(f"warning: {error}"), soft_wrap=True)
    for ids in left_out.values():
        console.print(f"left out as too long: {len(ids):,} questions ({some(ids)})")
    return list(parts["chosen"])


def shout(console: Console, warning: str) -> None:
    """Print a warning, if there is one, so that nobody overlooks it."""
    if warning:
        console.print(Text(warning, style="bold red"), soft_wrap=True)


def team_of(args: Eval | Play, game: GameConfig) -> Team:
    """Return the team of a run, or of the named models, for speaking only."""
    if args.run is not None:
        return load_team(args.run)[1]
    team = make_team(
        TeamConfig(model=args.model, tuning="none"),
        num_agents=game.num_agents,
        num_turns=game.num_turns,
        seed=0,
    )
    share_cores(len(team.bases))
    return team


def game_and_sampling(args: Eval | Play) -> tuple[GameConfig, Sampling]:
    """Return what is played and how messages are drawn: as in the run, changed by the flags."""
    own = None if args.run is None else read_config(args.run)
    game = GameConfig() if own is None else own.game
    if args.task and args.task != game.task:
        game = replace(game, task=args.task, data="", template="")
    wanted: dict[str, Any] = {
        "data": str(args.data or ""),
        "num_agents": args.agents,
        "num_turns": args.turns,
        "protocol": args.protocol,
        "protocol_options": args.protocol_options,
        "verifier": args.verifier,
        "feedback_verifier": args.verdicts,
        "reward_feedback": bool(args.verdicts),
        "long_questions": getattr(args, "long_questions", ""),
    }
    game = replace(game, **{name: value for name, value in wanted.items() if value})
    limit = args.max_new_tokens or (32 if game.task in BUILT_IN else 300)
    if own is None:
        return game, Sampling(max_new_tokens=limit, temperature=args.temperature)
    limits: dict[str, Any] = {}
    if args.max_new_tokens:
        limits = {"max_new_tokens": limit, "agent_max_new_tokens": ()}
    return game, replace(own.sampling, temperature=args.temperature, **limits)
