"""The flags by which ``maporl eval`` and ``maporl play`` name a team and a game."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from maporl_agents.config import GameConfig, RunConfig, Sampling, TeamConfig, asking
from maporl_agents.tiny import MODELS
from maporl_env.tasks import BUILT_IN


@dataclass(frozen=True)
class Groups:
    """The settings of a run that a measurement takes, as flags of `maporl train` set them."""

    game: GameConfig
    team: TeamConfig
    sampling: Sampling


def start_of(own: RunConfig | None, task: str, model: Sequence[str]) -> Groups:
    """Return the settings that flags change: those of a run, or the usual ones of the models.

    Args:
        own: the settings of the run; None for models that were not trained here.
        task: that is asked for; "" for that of the run, or the usual one.
        model: of the agents, without a run.
    """
    game = asking((base := own or RunConfig()).game, task or base.game.task)
    if own is not None:
        return Groups(game, own.team, own.sampling.by_own_models())
    short = game.task in BUILT_IN or not MODELS.keys().isdisjoint(model)
    limit = 32 if short else 300
    return Groups(game, TeamConfig(tuple(model), tuning="none"), Sampling(max_new_tokens=limit))


@dataclass(frozen=True)
class ChosenFlags:
    """A team, from a run or untrained, and the game that it plays."""

    task: str = ""
    """A named task (shopping, sharing, coins, notes, gsm8k, ...; docs/reference/environment.md
    lists all, and their options), a JSONL or CSV file of questions, or your own as module:name or
    file.py:name. Empty for that of the run, else shopping."""
    data: Path | None = None
    """The task's file, for tasks that need one (e.g. GSM8K's test.jsonl); else the hub is asked."""
    model: tuple[str, ...] = ("tiny",)
    """One for all agents, or one per agent: built in ("tiny", "tiny-sharing"), fetched
    ("smollm2-135m", see `maporl fetch`), a folder, or a Hugging Face hub name."""
    run: Path | None = None
    """The trained team of this run folder instead of `model`, in the game that it was trained in
    unless flags change it."""
    checkpoint: Literal["", "best", "last"] = ""
    """Of the run: the "best" checkpoint on its validation slice or the "last"; empty for what the
    run's settings (eval.use) say."""
    agents: int = 0
    """A, how many take part; 0 for as many as the run has, else 2."""
    turns: int = 0
    """T, how many turns; 0 for as many as the run has, else 3."""
    protocol: str = ""
    """As for `maporl train --game.protocol`; empty for that of the run, else debate."""
    protocol_options: tuple[str, ...] = ()
    """Options of your own protocol, KEY=VALUE each."""
    verifier: str = ""
    """The verifier of the messages, as for `maporl train --game.verifier`: your own as
    module:function or file.py:function, too. Empty for that of the run, else the answer key."""
    shots: int | None = None
    """Worked examples that agents read first, as for `maporl train --game.shots`; left out for as
    many as the run has, else none."""
    answer_rule: Literal["", "box", "answer_line"] = ""
    """Reading of numbers, as for `maporl train --game.answer-rule`; empty for that of the run,
    else from the last box."""
    verdicts: str = ""
    """Show all agents the scores of this verifier, e.g. key or noisy_key; empty for none, or for
    what the run was trained with."""
    split: str | None = None
    """Which questions; the test split if there is one, else the validation split."""
    max_new_tokens: int = 0
    """Limit per message; 0 for that of the run, else 32 for built-in tasks or models, else 300."""
    settings: Annotated[Groups | None, tyro.conf.arg(name="")] = None


@dataclass(frozen=True)
class OneDebate(ChosenFlags):
    """A team, and the one debate that it plays."""

    index: int | None = None
    """Number of the question in the split; left out, one is drawn."""
    long_questions: Literal["", "refuse", "keep"] = ""
    """A question whose debate may not fit a model's window: refuse it, or begin all the same. Empty
    for what the run does, else refuse."""
    temperature: float | None = None
    """0 is greedy. Left out, it is that of the run, else of the model's generation settings, else
    1."""
    seed: int = 0
    """Names the question drawn and the sampling noise."""

    def pick(self, number: int) -> int:
        """Return the index of the question played; ValueError if there is no such question."""
        index = random.Random(self.seed).randrange(number) if self.index is None else self.index
        if not 0 <= index < number:
            raise ValueError(f"question {index} does not exist: there are {number}, from 0")
        return index
