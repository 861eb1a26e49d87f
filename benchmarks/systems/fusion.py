"""FuseLLM's table: a trained debate distilled into one model, and the control that would expose it.

    .venv/bin/python -m benchmarks.systems.fusion  # three seeds, a processor minute or two each
    .venv/bin/python -m benchmarks.systems.fusion --table  # only print the table of finished runs

Every seed trains an ordinary debate of two agents and two turns, debates training questions with
it, and keeps the last message of agent 0 where it is right. One model that knows half of the prices
then learns from these texts, reading the question alone: by imitation, or with the fused
distributions of both agents, who read the debate. In the control each agent reads the debate about
another question. The same texts and steps everywhere. Accuracy on held-out questions, sampled, and
tokens per question; median and range over seeds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.compared.over_seeds import main, spread
from maporl_agents.config import GameConfig, RunConfig, TeamConfig
from maporl_agents.measure.evaluate import Evaluation, evaluate
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.systems.distilled import TEXTS, Texts, learn, messages, right_debates
from maporl_agents.training.experiment import load_team
from maporl_agents.training.make_game import debates_of, questions_of

SEEDS = (0, 1, 2)
QUESTIONS = 60
FILE = "fusion.json"
ALONE = GameConfig(num_agents=1, num_turns=1)
DEBATE = ["--game.num-agents", "2", "--game.num-turns", "2", "--steps", "25"]
ARMS = {
    "imitation of the debate's texts": (1.0, False),
    "fusion, share of the texts .9 (the paper's)": (0.9, False),
    "fusion, share .1": (0.1, False),
    "fusion, share .9, sources shuffled": (0.9, True),
    "fusion, share .1, sources shuffled": (0.1, True),
}


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


def student(seed: int) -> Team:
    """Return the model of agent 0 before training, alone."""
    team = TeamConfig(model=("tiny",), tuning="full")
    return make_team(team, num_agents=1, num_turns=1, seed=seed)


def fused(config: RunConfig, team: Team, given: Texts, arm: str, seed: int) -> Team:
    """Return a student that was trained by an arm of the table."""
    share, other = ARMS[arm]
    pupil = student(seed)
    read = [*given.rollouts[1:], given.rollouts[0]] if other else []
    learn(pupil, messages(pupil, ALONE, config, team, given, read), share, seed)
    return pupil


def asked(config: RunConfig, team: Team, game: GameConfig) -> Evaluation:
    """Return how a team answers held-out questions."""
    questions = questions_of(config.game, "test")[:QUESTIONS]
    debates = debates_of(game, QUESTIONS)
    return evaluate(team, debates, questions, config.sampling, seed=config.eval.seed)


def measure(runs: Path, seed: int) -> dict[str, tuple[float, float]]:
    """Return accuracy and tokens per question of each row, measured once."""
    kept = folder(runs, seed) / FILE
    if not kept.exists():
        config, team = load_team(folder(runs, seed), "last")
        whole = asked(config, team, config.game)
        found = {
            "the debate, its vote": (whole.turns[-1].vote, whole.num_tokens / QUESTIONS),
            "the debate at the tokens of one model: agent 0's first answer": (
                whole.turns[0].accuracy[0],
                whole.num_tokens / QUESTIONS / len(whole.transcripts[0].messages),
            ),
        }
        alone = asked(config, student(seed), ALONE)
        found["one model, untrained"] = alone.turns[0].vote, alone.num_tokens / QUESTIONS
        given = right_debates(config, team, seed)
        print(f"seed {seed}: {len(given.questions)} of {TEXTS} texts are right", flush=True)
        for arm in ARMS:
            one = asked(config, fused(config, team, given, arm, seed), ALONE)
            found[f"one model, {arm}"] = one.turns[0].vote, one.num_tokens / QUESTIONS
        kept.write_text(json.dumps(found))
    told: dict[str, tuple[float, float]] = json.loads(kept.read_text())
    return told


def table(runs: Path) -> str:
    """Return the Markdown table."""
    each = [measure(runs, seed) for seed in SEEDS]
    rows = ["| who answers | accuracy | tokens per question |", "|---|---|---|"]
    for name in each[0]:
        cells = [spread([one[name][0] for one in each]), f"{each[0][name][1]:.1f}"]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(__doc__, SEEDS, QUESTIONS, train, table)
