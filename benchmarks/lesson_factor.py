"""Lessons trained by their factor: a coin that fell before the question was asked.

    .venv/bin/python benchmarks/lesson_factor.py            # three seeds, a processor minute each
    .venv/bin/python benchmarks/lesson_factor.py --table    # only print the table of finished runs

One agent, a language model of two layers with random weights, guesses a coin (turn 0), writes a
lesson of one word when it is told whether that was right (turn 1), and guesses again (turn 2). All
coins are asked in the same words, so that the second guess knows of the first by the lesson alone.
Each turn has a policy of its own. A warm-up by imitation teaches the second guess to take a lesson
for the side that was guessed, and lessons to be any side; then everything is trained by the PPO of
`maporl`. Three teams: lessons rewarded with their factor - 1; lessons not trained, guesses trained;
the first team reading, at equal tokens, the lessons of another question. Share of coins that were
right after a failed first guess, and that were right in either turn (the protocol's answer; 3/4 by
chance), on questions that were not trained on; sampled.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from compared.others_lessons import OthersLessons
from compared.over_seeds import main, spread

import maporl_agents
from maporl_agents.config import RunConfig
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.models.team import Team
from maporl_agents.tiny.random_model import save_random_model
from maporl_agents.training.experiment import load_team
from maporl_agents.training.make_game import make_game
from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.prompts import Template
from maporl_env.protocols.lessons import BANK, RESULT
from maporl_env.tasks import Task
from maporl_env.types import Question, Transcript

SEEDS = (0, 1, 2)
QUESTIONS = 400
STEPS = 30
WARMUP = 200
"""Updates by imitation: the second guess learns to read lessons, whose words say nothing yet."""
ENTROPY = 0.02
"""Keeps the first guess undecided: were it always the same, no lesson would be needed."""
ARMS = {"lessons rewarded with factor - 1": '"factor"', "lessons not trained": "false"}
SHUFFLED = "the first team, lessons of another question"
SIDES = ("heads", "tails")
WORDS = "the attempt failed reached 0.00 1.00 score how did fall coin ? you : ```"
TEMPLATE = Template(
    instruction="", opening="{question}", again="", cue="\nyou : ", own_verdict="", nobody=""
)


def coins(split: str, count: int) -> list[Question]:
    """Return questions in the same words, about coins that fell at random."""
    rng = random.Random(split)
    return [
        Question(f"coin/{split}/{n}", "how did the coin fall ?", rng.choice(SIDES), kind="text")
        for n in range(count)
    ]


def right(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    """Return 1 for the side of the coin and nothing else."""
    pairs = zip(questions, responses, strict=True)
    return [float(text.strip() == question.answer) for question, text in pairs]


def readings(seed: int) -> list[Transcript]:
    """Return debates of a reader who takes lessons for the side that was guessed.

    Guess and lesson are any side, so that nothing about writing lessons can be learnt from them.
    """
    asked, rng = coins("told", 256), random.Random(seed)
    options = {"protocol": "lessons", "num_agents": 1, "num_turns": 3, "verifier": right}
    config = DebateConfig(asked, template=TEMPLATE, protocol_options={"shown": 1}, **options)
    batch = BatchedDebate(config, len(asked))
    batch.reset(asked)

    def say(prompt: Prompt) -> str:
        if prompt.turn < 2:
            return rng.choice(SIDES)
        listed = prompt.text.split("Lessons")[1]
        side = next(one for one in SIDES if one in listed)
        return side if "reached" in listed else SIDES[1 - SIDES.index(side)]

    while prompts := batch.prompts():
        batch.step([say(prompt) for prompt in prompts])
    return list(batch.transcripts)


def folder(runs: Path, seed: int, arm: str) -> Path:
    """Return the run folder of a seed and an arm."""
    kind = ARMS[arm].strip('"')
    return runs / f"lesson-{kind}-{seed}"


def train(runs: Path, seed: int) -> None:
    """Train both teams of a seed unless their results are there."""
    for arm, pay in ARMS.items():
        target = folder(runs, seed, arm)
        if (target / "results.json").exists():
            continue
        model = runs / f"lesson-model-{seed}"
        save_random_model(model, [BANK, RESULT, WORDS, *SIDES], seed, spread=0.08)
        told = runs / f"lesson-told-{seed}.jsonl"
        told.write_text("".join(f"{one.to_json()}\n" for one in readings(seed)))
        maporl_agents.train(
            task=Task(
                "coins_in_words",
                {"train": coins("train", 640), "test": coins("test", QUESTIONS)},
                template=TEMPLATE,
            ),
            model=model,
            verifier=right,
            name=target.name,
            runs=runs,
            overwrite=True,
            seed=seed,
            protocol="lessons",
            protocol_options=(f"pay_lessons={pay}", "shown=1"),
            sharing="turn",
            warmup={
                "steps": WARMUP,
                "transcripts": str(told),
                "batch_size": 64,
                "learning_rate": 3e-3,
            },
            num_agents=1,
            num_turns=3,
            gamma=0.0,
            steps=STEPS,
            questions_per_step=64,
            max_new_tokens=1,
            ppo={
                "learning_rate": 1e-3,
                "kl_coef": 0.0,
                "entropy_coef": ENTROPY,
                "epochs": 2,
                "minibatches": 2,
            },
            eval={"questions": 100, "use": "last", "greedy": False},
        )
        measured(target)


def measured(target: Path) -> None:
    """Write the shares of a trained team, with its lessons and with those of other questions."""
    config, team = load_team(target, "last")
    game = make_game(config.game)
    found = {
        name: shares(config, team, way(game.debates(1).game, QUESTIONS))
        for name, way in {"own": BatchedDebate, "others": OthersLessons}.items()
    }
    (target / "lessons.json").write_text(json.dumps(found))


def shares(config: RunConfig, team: Team, debates: BatchedDebate) -> list[float]:
    """Return the share right in turn 0, right in turn 2 after a failure, and right in either."""
    asked = coins("test", QUESTIONS)
    result = evaluate(team, debates, asked, config.sampling, seed=config.eval.seed)
    scores = [(t.messages[0].score or 0, t.messages[2].score or 0) for t in result.transcripts]
    failed = [second for first, second in scores if not first]
    return [
        sum(first for first, _ in scores) / len(scores),
        sum(failed) / max(1, len(failed)),
        sum(max(pair) for pair in scores) / len(scores),
    ]


def table(runs: Path) -> str:
    """Return the Markdown table."""
    kept = {
        arm: [json.loads((folder(runs, s, arm) / "lessons.json").read_text()) for s in SEEDS]
        for arm in ARMS
    }
    first, *_ = ARMS
    each = {arm: [one["own"] for one in found] for arm, found in kept.items()}
    each[SHUFFLED] = [one["others"] for one in kept[first]]
    rows = ["| team | first guess | second after a failure | either |", "|---|---|---|---|"]
    for name, found in each.items():
        cells = [spread([one[place] for one in found]) for place in range(3)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(__doc__, SEEDS, QUESTIONS, train, table)
