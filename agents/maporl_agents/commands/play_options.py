"""The options of ``maporl eval`` and ``maporl play``; `commands` does what they ask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maporl_agents.terminal import console
from maporl_env.tasks import load_task


@dataclass(frozen=True)
class Eval:
    """Let a team debate held-out questions and print accuracy by turn, votes and flips."""

    task: str = ""
    """A named task (shopping, sharing, coins, gsm8k, anli, ...; docs/reference/environment.md
    lists all), a JSONL or CSV file of questions, or your own as module:name or file.py:name.
    Empty for that of the run, else shopping."""
    data: Path | None = None
    """The task's file, for tasks that need one (e.g. GSM8K's test.jsonl); else the hub is asked."""
    model: tuple[str, ...] = ("tiny",)
    """One for all agents, or one per agent: built in ("tiny", "tiny-sharing"), a folder, or a
    Hugging Face hub name."""
    run: Path | None = None
    """Measure the trained team of this run folder instead of `model`, in the game that it was
    trained in unless flags change it."""
    agents: int = 0
    """A, how many take part; 0 for as many as the run has, else 2."""
    turns: int = 0
    """T, how many turns; 0 for as many as the run has, else 3."""
    protocol: str = ""
    """As for `maporl train --game.protocol`; empty for that of the run, else debate."""
    protocol_options: tuple[str, ...] = ()
    """Options of your own protocol, KEY=VALUE each."""
    verifier: str = ""
    """What scores the messages, as for `maporl train --game.verifier`: your own reward as
    module:function or file.py:function, too. Empty for that of the run, else the answer key.
    Accuracy is by the key; where scores are something else, they are shown as "paid"."""
    verdicts: str = ""
    """Show everybody the scores of this verifier, e.g. key or noisy_key; empty for none, or for
    what the run was trained with."""
    limit: int = 500
    """At most so many questions."""
    max_new_tokens: int = 0
    """Limit per message; 0 for that of the run, else 32 for built-in tasks and 300 elsewhere."""
    temperature: float = 1.0
    """Of the sampled half of the table."""
    batch: int = 64
    """Debates side by side."""
    split: str | None = None
    """Which questions; the test split if there is one, else the validation split."""
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
        from maporl_agents.commands.team_commands import evaluate_team

        evaluate_team(self, console())
        return 0


@dataclass(frozen=True)
class Play:
    """Print one debate as it happens; --human lets you be one of the agents."""

    task: str = ""
    """A built-in task, a file of questions, or your own as module:name or file.py:name. Empty for
    that of the run, else shopping."""
    data: Path | None = None
    """The task's file, for tasks that need one."""
    model: tuple[str, ...] = ("tiny",)
    """One for all agents, or one per agent: built in ("tiny", "tiny-sharing"), a folder, or a
    Hugging Face hub name."""
    run: Path | None = None
    """Play with the trained team of this run folder instead of `model`, in the game that it was
    trained in unless flags change it."""
    replay: Path | None = None
    """Play this file of recorded text: transcripts, or GSM8K's example_model_solutions.jsonl."""
    agents: int = 0
    """A, how many take part; 0 for as many as the run has, else 2. A replay has as many as were
    recorded."""
    turns: int = 0
    """T, how many turns; 0 takes those of the run, else 3, or as many as were recorded (the last
    texts are held after)."""
    protocol: str = ""
    """As for `maporl train --game.protocol`; empty for that of the run, else debate."""
    protocol_options: tuple[str, ...] = ()
    """Options of your own protocol, KEY=VALUE each."""
    verifier: str = ""
    """What scores the messages, your own reward as module:function or file.py:function, too; empty
    for that of the run, else the answer key."""
    verdicts: str = ""
    """Show everybody the scores of this verifier, e.g. key or noisy_key; empty for none, or for
    what the run was trained with."""
    human: bool = False
    """You are the last agent; type your answers."""
    index: int | None = None
    """Which question of the split; None draws one."""
    split: str | None = None
    """Which questions; the test split if there is one, else the validation split."""
    max_new_tokens: int = 0
    """Limit per message; 0 for that of the run, else 32 for built-in tasks and 300 elsewhere."""
    temperature: float = 1.0
    """0 is greedy."""
    seed: int = 0
    """Names the question drawn and the sampling noise."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        from maporl_agents.commands import team_commands

        play = team_commands.play_debate if self.replay is None else team_commands.play_recording
        play(self, console())
        return 0
