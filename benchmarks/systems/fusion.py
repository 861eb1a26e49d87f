"""FuseLLM's table: a trained debate distilled into one model, and the control that would expose it.

    .venv/bin/python -m benchmarks.systems.fusion  # five seeds, a processor minute each
    .venv/bin/python -m benchmarks.systems.fusion --table  # only print the table of finished runs

Every seed trains an ordinary debate of two agents and two turns, debates training questions with
it, and keeps the last message of agent 0 where it is right. One model that knows half of the prices
then learns from these texts, reading the question alone: by imitation, or with the fused
distributions of both agents, who read the debate, fused by MinCE or AvgCE. So does a model of
another vocabulary, whose tokens are pieces of words (`other_words`). In the control each agent
reads the debate about another question. The same texts and steps everywhere. Accuracy on held-out
questions, sampled, and tokens per question; median and range over seeds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.compared.over_seeds import main, spread
from benchmarks.systems.other_words import model_in
from maporl_agents.config import GameConfig, RunConfig, TeamConfig
from maporl_agents.measure.evaluate import Evaluation, evaluate
from maporl_agents.mixtures.fused import Fusion
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.systems.distilled import TEXTS, Texts, learn, messages, right_debates
from maporl_agents.training.experiment import load_team
from maporl_agents.training.make_game import debates_of, questions_of

SEEDS = tuple(range(5))
QUESTIONS = 60
FILE = "fusion.json"
ALONE = GameConfig(num_agents=1, num_turns=1)
DEBATE = ["--game.num-agents", "2", "--game.num-turns", "2", "--steps", "25"]


class Arm(NamedTuple):
    """How a student learns.

    Attributes:
        share: of the texts in the loss; 1 is imitation.
        fusion: of the two teachers.
        shuffled: the teachers read the debate about another question.
    """

    share: float
    fusion: Fusion = "min_ce"
    shuffled: bool = False


ARMS = {
    "imitation of the debate's texts": Arm(1.0),
    "MinCE, share of the texts .9 (the paper's)": Arm(0.9),
    "MinCE, share .1": Arm(0.1),
    "AvgCE, share .9": Arm(0.9, "avg_ce"),
    "AvgCE, share .1": Arm(0.1, "avg_ce"),
    "MinCE, share .9, sources shuffled": Arm(0.9, shuffled=True),
    "MinCE, share .1, sources shuffled": Arm(0.1, shuffled=True),
    "AvgCE, share .1, sources shuffled": Arm(0.1, "avg_ce", shuffled=True),
}
OF_OTHER_WORDS = {
    name: ARMS[name]
    for name in (
        "imitation of the debate's texts",
        "MinCE, share of the texts .9 (the paper's)",
        "MinCE, share .1",
        "AvgCE, share .1",
        "MinCE, share .1, sources shuffled",
    )
}
STUDENTS = {"one model": ARMS, "one of another vocabulary": OF_OTHER_WORDS}


def folder(runs: Path, seed: int) -> Path:
    """Return the run folder of a debate."""
    return runs / f"debate-{seed}"


def train(runs: Path, seed: int) -> None:
    """Train one debate unless its results are there."""
    target = folder(runs, seed)
    if (target / "results.json").exists():
        return
    words = [*DEBATE, "--runs", str(runs), "--name", target.name, "--seed", str(seed)]
    words += ["--eval.questions", "50", "--eval.questions-before", "2", "--eval.use", "last"]
    words += ["--eval.no-greedy", "--overwrite"]
    subprocess.run([sys.executable, "-m", "maporl_agents.cli", "train", *words], check=True)


def student(runs: Path, kind: str, seed: int) -> Team:
    """Return a model that knows what agent 0 knows before training, alone."""
    model = "tiny" if kind == "one model" else str(model_in(runs / "other-words"))
    team = TeamConfig(model=(model,), tuning="full")
    return make_team(team, num_agents=1, num_turns=1, seed=seed)


def fused(config: RunConfig, team: Team, given: Texts, pupil: Team, arm: Arm, seed: int) -> Team:
    """Train a student by an arm of the table; return it."""
    read = [*given.rollouts[1:], given.rollouts[0]] if arm.shuffled else []
    learnt = messages(pupil, ALONE, config, team, given, read, arm.fusion)
    learn(pupil, learnt, arm.share, seed)
    return pupil


def asked(config: RunConfig, team: Team, game: GameConfig) -> Evaluation:
    """Return how a team answers held-out questions."""
    questions = questions_of(config.game, "test")[:QUESTIONS]
    debates = debates_of(game, QUESTIONS)
    return evaluate(team, debates, questions, config.sampling, seed=config.eval.seed)


def alone(config: RunConfig, team: Team) -> tuple[float, float]:
    """Return accuracy and tokens per question of one model."""
    found = asked(config, team, ALONE)
    return found.turns[0].vote, found.num_tokens / QUESTIONS


def of_teachers(config: RunConfig, team: Team) -> dict[str, tuple[float, float]]:
    """Return the rows of the debate, whole and at the tokens of one model."""
    whole = asked(config, team, config.game)
    each = whole.num_tokens / QUESTIONS / len(whole.transcripts[0].messages)
    found = {"the debate, its vote": (whole.turns[-1].vote, whole.num_tokens / QUESTIONS)}
    for agent, accuracy in enumerate(whole.turns[0].accuracy):
        found[f"the debate at the tokens of one model: agent {agent}'s first answer"] = (
            accuracy,
            each,
        )
    return found


def measure(runs: Path, seed: int) -> dict[str, tuple[float, float]]:
    """Return accuracy and tokens per question of each row, measured once."""
    kept = folder(runs, seed) / FILE
    if not kept.exists():
        config, team = load_team(folder(runs, seed), "last")
        found = of_teachers(config, team)
        given = right_debates(config, team, seed)
        print(f"seed {seed}: {len(given.questions)} of {TEXTS} texts are right", flush=True)
        for kind, arms in STUDENTS.items():
            found[f"{kind}, untrained"] = alone(config, student(runs, kind, seed))
            for name, arm in arms.items():
                pupil = fused(config, team, given, student(runs, kind, seed), arm, seed)
                found[f"{kind}, {name}"] = alone(config, pupil)
        kept.write_text(json.dumps(found))
    told: dict[str, tuple[float, float]] = json.loads(kept.read_text())
    return told


def table(runs: Path) -> str:
    """Return the Markdown table."""
    each = [measure(runs, seed) for seed in SEEDS]
    rows = ["| who answers | accuracy | tokens per question |", "|---|---|---|"]
    for name in each[0]:
        accuracies, tokens = zip(*(one[name] for one in each), strict=True)
        cells = [spread(accuracies), f"{median(tokens):.1f}"]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(__doc__, SEEDS, QUESTIONS, train, table)
