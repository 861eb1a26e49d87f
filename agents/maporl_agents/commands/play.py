"""``maporl play``: one debate, as it happens or as it was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from maporl_agents.commands.chosen_flags import OneDebate
from maporl_agents.config import Sampling
from maporl_agents.seeding import seed_of
from maporl_agents.terminal import console
from maporl_env import replay
from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.rendering import plain_text

if TYPE_CHECKING:
    from maporl_agents.models.caches.kept_caches import KeptCaches
    from maporl_agents.models.team import Team
    from maporl_agents.types import Completion, TokenIds
    from maporl_env.batched import DebateConfig
    from maporl_env.tasks.worked import AnswerRule
    from maporl_env.tools import Toolbox
    from maporl_env.types import Question


@dataclass(frozen=True)
class Play(OneDebate):
    """Print one debate as it happens; --human lets you be one of the agents.

    A person is shown what their agent reads and no more; the whole debate with its scores follows
    at the end. `maporl watch` has the messages of a debate approved by a person in a browser.
    """

    replay: Path | None = None
    """Play this file of recorded text (transcripts, or GSM8K's example_model_solutions.jsonl), with
    as many agents as were recorded, and as many turns unless --turns asks for more: agents
    then repeat their last texts."""
    human: bool = False
    """You are the last agent (a leader, judge or simulated user where there is one); type your
    messages."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        play = play_debate if self.replay is None else play_recording
        play(self, console())
        return 0


def play_debate(args: Play, console: Console) -> None:
    """Print one debate message by message; the last agent may be a person."""
    from maporl_agents.commands.chosen_team import chosen_game, memory_warning_of, shout, team_of
    from maporl_agents.types import StopReason

    chosen = chosen_game(args)
    game, sampling, made, split, told = chosen
    if told:
        console.print(told)
    questions = made.questions(split)
    index = args.pick(len(questions))
    debates = made.debates(1)
    person = game.num_agents - 1 if args.human else None
    team = team_of(args, game) if game.num_agents > 1 or person is None else None
    if team is not None and game.long_questions != "keep":
        require_room(team, made.config, sampling, questions[index])
    shout(console, memory_warning_of(args.run, chosen, [questions[index]]))
    debates.reset(questions=[questions[index]])
    show(console, plain_text.heading(questions[index]))
    if person is None:
        show(console, plain_text.private_texts(questions[index], debates.agents))
    else:  # who reads what it is told itself when it speaks
        show(console, introduction(debates.agents, game.answer_rule))
    turn = 0
    own: list[list[TokenIds]] = [[] for _ in debates.agents]
    drafts: list[list[TokenIds]] = [[] for _ in debates.agents]
    kept = None if team is None else kept_caches(team, sampling)
    tools = debates.game.config.toolbox
    while speaking := debates.prompts():
        said: list[Completion | str] = []
        for prompt in speaking:
            if prompt.agent_index == person:
                said.append(ask_person(prompt))
            else:
                assert team is not None
                mine = own[prompt.agent_index] + drafts[prompt.agent_index]
                said.append(say(team, prompt, mine, sampling, args.seed, kept=kept, tools=tools))
        texts = [one if isinstance(one, str) else one.text for one in said]
        cut = [not isinstance(one, str) and one.stop is StopReason.LENGTH for one in said]
        taken = debates.step(texts, cut)
        for prompt, one, is_message in zip(speaking, said, taken, strict=True):
            ids = [] if isinstance(one, str) else [one.ids]
            agent = prompt.agent_index
            if is_message:
                own[agent] += ids
            drafts[agent] = [] if is_message else drafts[agent] + ids
        if debates.played[0] > turn:
            if person is None:  # who reads what their agent reads, and no score before the end
                show(console, plain_text.lines(debates.transcripts[0].of_turn(turn)))
            turn += 1
    if person is not None:
        show(console, plain_text.lines(debates.transcripts[0].messages))
    show_end(console, debates)


def require_room(team: Team, config: DebateConfig, sampling: Sampling, question: Question) -> None:
    """Raise ValueError if a question is too long for the team, were all messages of full length."""
    from maporl_agents.play.window_check import too_long

    for reason in too_long(team, config, sampling, [question]).values():
        raise ValueError(
            f"question {question.id!r} is too long: {reason}; lower --max-new-tokens, take fewer "
            "--turns or --agents, choose another question by --index, or begin all the same with "
            "--long-questions keep"
        )


def play_recording(args: Play, console: Console) -> None:
    """Print one debate that recorded text plays, after saying who was recorded."""
    own = ("replay", "turns", "index", "seed")
    for option in fields(args):
        if option.name not in own and getattr(args, option.name) != option.default:
            raise ValueError(f"--replay plays what was recorded: leave out --{option.name}")
    assert args.replay is not None
    recordings = replay.load(args.replay)
    recording = recordings[args.pick(len(recordings))]
    debates = replay.play([recording], args.turns or None)
    for agent, speaker in enumerate(recording.speakers):
        show(console, plain_text.harmless(f"agent_{agent}: {speaker}"))
    show(console, plain_text.heading(recording.question))
    show(console, plain_text.private_texts(recording.question, debates.agents))
    transcript = recording.marked(debates.transcripts[0])
    show(console, plain_text.lines(transcript.messages))
    show(console, plain_text.interventions(transcript))
    show_end(console, debates)


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
    team: Team,
    prompt: Prompt,
    own: Sequence[TokenIds],
    sampling: Sampling,
    seed: int,
    *,
    kept: KeptCaches | None,
    tools: Toolbox | None,
) -> Completion:
    """Return one message of one agent, whose earlier ones consist of the ids `own`."""
    from maporl_agents.play.speak import requests, speak

    stream = seed_of(seed, "play", prompt.turn, prompt.agent_index)
    asked = requests(team, [prompt], [own])
    [completion] = speak(team, asked, sampling, stream, kept=kept, tools=tools)
    return completion


def kept_caches(team: Team, sampling: Sampling) -> KeptCaches:
    """Return empty caches for the debate."""
    from maporl_agents.models.caches.kept_caches import KeptCaches

    return KeptCaches(team.bases, sampling.cache_gb)


def introduction(agents: Sequence[str], answer_rule: AnswerRule) -> str:
    """Return who plays, and how a person answers."""
    written = "\\boxed{...}" if answer_rule == "box" else "Answer: ..."
    *others, you = agents
    models = f"{', '.join(others)}: {'a model' if len(others) == 1 else 'models'}. " * bool(others)
    return (
        f"You are {you}. {models}Each turn shows what {you} reads; type one line, Enter sends it. "
        f"Write your final answer as {written}; an empty line is a message without an answer."
    )


def ask_person(prompt: Prompt) -> str:
    """Show a person what their agent reads, and read a line."""
    print(f"\n--- turn {prompt.turn + 1}: you, {prompt.agent}, read ---")
    print(plain_text.harmless(prompt.text))
    try:
        return input(f"{prompt.agent} > ")
    except EOFError:
        return ""
