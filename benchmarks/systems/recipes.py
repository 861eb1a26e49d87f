"""A system of the recipes, trained by three seeds, and asked again with what would expose it.

    .venv/bin/python -m benchmarks.systems.recipes leader    # or another name of SYSTEMS
    .venv/bin/python -m benchmarks.systems.recipes leader --table    # only print the table

Every run is an ordinary ``maporl train --recipe NAME``; a run that is finished is not repeated. A
team that was only warmed up is asked too. The trained team is asked again under each control: other
agents' messages taken from another question, other agents that say nothing, or an answer drawn at
random from what was said. Equal numbers of messages everywhere. Accuracy on held-out questions,
sampled, of the message that is the team's answer and of the others that are scored; median and
range over seeds.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.compared.over_seeds import main, spread
from maporl_agents.config import RunConfig
from maporl_agents.measure.debate_stats import right
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.models.team import Team
from maporl_agents.records.muted_log import MutedLog
from maporl_agents.studies.controls import SwappedPeers
from maporl_agents.training.experiment import build, load_team
from maporl_agents.training.make_game import make_game
from maporl_agents.training.run_questions import parts_of
from maporl_agents.training.warmup import warm_up
from maporl_env.batched import BatchedDebate
from maporl_env.types import Transcript

SEEDS = (0, 1, 2)
QUESTIONS = 200

Debates = Callable[..., BatchedDebate]
Figures = tuple[float, float]
"""Accuracy of the scored messages of others (nan without any), and of the team's answer."""


class Mute(BatchedDebate):
    """Debates in which the messages of all agents but the one that answers become empty."""

    def step(self, texts: Sequence[str], cut: Sequence[bool] | None = None) -> list[bool]:
        """Post the answering agent's texts as they are, and nothing for the others."""
        answers = answering(self)
        return super().step(
            [
                text if prompt.agent_index == answers else ""
                for prompt, text in zip(self.prompts(), texts, strict=True)
            ]
        )


class Guessing(BatchedDebate):
    """Debates in which the last agent repeats the last message of another one, drawn at random."""

    def step(self, texts: Sequence[str], cut: Sequence[bool] | None = None) -> list[bool]:
        """Post the others' texts as they are, and in place of the last agent's a drawn one."""
        answers = answering(self)
        return super().step(
            [
                self._drawn(prompt.debate) if prompt.agent_index == answers else text
                for prompt, text in zip(self.prompts(), texts, strict=True)
            ]
        )

    def _drawn(self, place: int) -> str:
        transcript = self.transcripts[place]
        newest = {message.agent: message.text for message in transcript.messages}
        return random.Random(transcript.question.id).choice(list(newest.values()))


def answering(debates: BatchedDebate) -> int:
    """Return the index of the agent whose message is the team's answer."""
    return 0 if debates.game.config.protocol == "dialogue" else len(debates.agents) - 1


@dataclass(frozen=True)
class System:
    """A recipe and its controls.

    Attributes:
        controls: what the trained team is also asked under, by name.
        turns: turns of the measurement; None for the game's.
        recipe: its name; "" for that of the system.
        flags: further words of the command line.
    """

    controls: Mapping[str, Debates] = field(default_factory=dict)
    turns: int | None = None
    recipe: str = ""
    flags: tuple[str, ...] = ()


OTHER_QUESTION = "trained, reading another question's messages"
BACKTRACKING = ("--warmup.steps", "20", "--mlpo.backtracking", "think once more .")
ROOM = ("--sampling.max-new-tokens", "48")
SYSTEMS = {
    "leader_with_room": System(turns=1, recipe="leader", flags=ROOM),
    "leader_backtracking": System(turns=1, recipe="leader", flags=(*ROOM, *BACKTRACKING)),
    "leader": System({OTHER_QUESTION: SwappedPeers, "trained, its peer is mute": Mute}, turns=1),
    "review": System({OTHER_QUESTION: SwappedPeers, "trained, the first writer is mute": Mute}),
    "teams_and_judge": System(
        {OTHER_QUESTION: SwappedPeers, "the same teams, a judge that guesses": Guessing}
    ),
    "retrieve": System(
        {OTHER_QUESTION: SwappedPeers, "the same answers, a retriever that guesses": Guessing}
    ),
    "dialogue": System({"trained, its user is mute": Mute}),
}


def train(runs: Path, name: str, seed: int) -> None:
    """Run one training unless its results are there."""
    target = runs / f"{name}-{seed}"
    if (target / "results.json").exists():
        return
    system = SYSTEMS[name]
    words = ["--recipe", system.recipe or name, "--runs", str(runs), *system.flags]
    words += ["--name", target.name, "--seed", str(seed)]
    words += ["--eval.questions", "50", "--eval.questions-before", "1", "--eval.use", "last"]
    words += ["--eval.no-greedy", "--overwrite"]
    subprocess.run([sys.executable, "-m", "maporl_agents.cli", "train", *words], check=True)


def warmed_up(config: RunConfig) -> Team:
    """Return the team of a run as it was before its first step of training."""
    game = make_game(config.game)
    team, learner = build(config, kept=config)
    with tempfile.TemporaryDirectory() as folder:
        asked = parts_of(config, game)["training"]
        warm_up(config, learner, game, asked, MutedLog(Path(folder), config))
    return team


def figures(config: RunConfig, team: Team, debates: Debates, turns: int | None) -> Figures:
    """Return the accuracies of a team on held-out questions."""
    game = make_game(config.game)
    asked = game.questions(config.eval.split)[:QUESTIONS]
    batch = debates(game.debates(1, num_turns=turns).game, QUESTIONS)
    found = evaluate(team, batch, asked, config.sampling, seed=config.eval.seed)
    return accuracies(found.transcripts)


def accuracies(transcripts: Sequence[Transcript]) -> Figures:
    """Return the share of right messages: of those scored beside the last ones, and of the last."""
    answers = [right(one.messages[-1], one.question) for one in transcripts]
    others = [
        right(message, one.question)
        for one in transcripts
        for message in one.messages[:-1]
        if message.scored
    ]
    return sum(others) / len(others) if others else float("nan"), sum(answers) / len(answers)


def measure(runs: Path, name: str, seed: int) -> dict[str, Figures]:
    """Return the figures of a run, measured once."""
    folder, system = runs / f"{name}-{seed}", SYSTEMS[name]
    kept = folder / "controls.json"
    if not kept.exists():
        config, team = load_team(folder, "last")
        untrained, _ = build(config, kept=config)
        asked: dict[str, tuple[Team, Debates]] = {"untrained": (untrained, BatchedDebate)}
        if config.warmup.steps:
            asked["after the warm-up alone"] = (warmed_up(config), BatchedDebate)
        asked["trained"] = (team, BatchedDebate)
        asked |= {label: (team, debates) for label, debates in system.controls.items()}
        found = {
            label: figures(config, who, debates, system.turns)
            for label, (who, debates) in asked.items()
        }
        kept.write_text(json.dumps(found))
    told: dict[str, Figures] = json.loads(kept.read_text())
    return told


def table(runs: Path, name: str) -> str:
    """Return the Markdown table."""
    each = [measure(runs, name, seed) for seed in SEEDS]
    rows = [f"| {name} | other messages | the answer |", "|---|---|---|"]
    for label in each[0]:
        cells = [_cell([one[label][place] for one in each]) for place in range(2)]
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(values: Sequence[float]) -> str:
    """Return the median and the range, or that there are no such messages."""
    return "-" if any(map(math.isnan, values)) else spread(values)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in SYSTEMS:
        sys.exit(f"name one of {', '.join(SYSTEMS)}")
    chosen = sys.argv.pop(1)
    main(
        str(__doc__),
        SEEDS,
        QUESTIONS,
        lambda runs, seed: train(runs, chosen, seed),
        lambda runs: table(runs, chosen),
    )
