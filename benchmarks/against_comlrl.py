"""MAGRPO here against MAGRPO of CoMLRL's published wheel: same task, models and questions.

    python benchmarks/against_comlrl.py runs/against_comlrl          # train what is missing, tables
    python benchmarks/against_comlrl.py runs/against_comlrl --table  # the tables of what is there

Two agents, the built-in models, write the same bill unseen by each other (task `receipts`) and are
rewarded where their lines agree. Both libraries read the same prompts, ask the same questions in
the same order, sample 8 completions of each agent per question, pair all with all, and update once
per 4 questions, on all weights. All else is as each library has it by default, CoMLRL's sampling
apart (temperature and top-p .6, top-k 50; here 1 and all tokens). "alike" is this package with what
CoMLRL has by default: advantages divided by their standard deviation in the group, a constant
learning rate without warm-up, and no clip of the gradient. The learning rate of each is chosen on
the validation questions, by the mean over seeds of the reward after training.

The first table is at equal samples. The second is at equal tokens: both teams are measured after
the first update by which the agents have sampled so many tokens, those that end messages included,
and the rate of each is chosen at each number of tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from compared import environments as envs

from maporl_agents.config import MAGRPOConfig
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.models.team import Team
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.training import experiment
from maporl_agents.training.ahead import asked_in_step
from maporl_agents.training.make_game import debates_of, training_questions
from maporl_agents.training.run_questions import held_out
from maporl_env.types import Question

SIDES = ("maporl", "alike", "comlrl")
RATES = (3e-4, 1e-3, 2e-3, 3e-3)
SEEDS = (0, 1, 2)
TOKENS = (25_000, 50_000, 75_000, 100_000)
CONFIG = MAGRPOConfig(steps=100)
ALIKE = {
    "comparison": "standardised",
    "schedule": "constant",
    "warmup_steps": 0,
    "max_grad_norm": 1e9,
}


def config_of(seed: int, rate: float) -> MAGRPOConfig:
    """Return the settings of a run here."""
    return replace(CONFIG, seed=seed, magrpo=replace(CONFIG.magrpo, learning_rate=rate))


@cache
def questions_of(seed: int) -> list[Question]:
    """Return the questions of a run in order: those that a run here of that seed asks."""
    config = config_of(seed, RATES[0])
    asked = training_questions(config.game)
    return [q for step in range(config.steps) for q in asked_in_step(config, asked, step)[0]]


def prompt_of(question: Question) -> str:
    """Return what both agents read."""
    debates = debates_of(CONFIG.game, 1)
    debates.reset(questions=[question])
    texts = {prompt.text for prompt in debates.prompts()}
    (text,) = texts
    return text


def rewards_after(team: Team) -> dict[str, float]:
    """Return the mean joint reward of a team on validation and test questions, sampled."""
    found = {}
    for split in ("validation", "test"):
        config = replace(CONFIG, eval=replace(CONFIG.eval, split=split))
        held = held_out(config)
        debates = debates_of(config.game, min(experiment.EVAL_BATCH, len(held)))
        turn = evaluate(team, debates, held, config.sampling, seed=config.eval.seed).turns[-1]
        found |= {split: turn.score or 0.0, f"{split} right": turn.mean_accuracy}
    return found


class Budgets:
    """What a team earns when its tokens reach each of `TOKENS`: call it after every update."""

    def __init__(self, measured: Callable[[], dict[str, float]]) -> None:
        self.measured, self.found, self.spent = measured, {}, {"tokens": 0, "updates": 0}

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self.spent = {"tokens": self.spent["tokens"] + int(metrics["tokens"]), "updates": step}
        reached = [n for n in TOKENS if n <= self.spent["tokens"] and str(n) not in self.found]
        if reached:
            row = self.measured() | self.spent
            self.found |= {str(n): row for n in reached}


def here(seed: int, rate: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Train and measure with this package, with settings of MAGRPO other than its defaults."""
    config = config_of(seed, rate)
    config = replace(config, magrpo=replace(config.magrpo, **settings))
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        _, learner = experiment.build(config)

        def measured() -> dict[str, float]:
            nonlocal seconds
            begin = time.process_time()
            found = rewards_after(learner.team)
            seconds -= time.process_time() - begin
            return found

        budgets = Budgets(measured)
        seconds -= time.process_time()
        with RunLog.create(Path(folder) / "run", config) as log:
            questions = training_questions(config.game)
            experiment.train(config, learner, questions, log, on_step=budgets)
        seconds += time.process_time()
        rows = read_metrics(Path(folder) / "run")
    spent = {name: sum(row[name] for row in rows) for name in ("answers", "tokens")}
    after = rewards_after(learner.team)
    return {**after, **spent, "updates": len(rows), "seconds": seconds, "at": budgets.found}


def there(seed: int, rate: float, python: Path) -> dict[str, Any]:
    """Train with CoMLRL in its environment, and measure here."""
    config, questions = config_of(seed, rate), questions_of(seed)
    verifier = debates_of(config.game, 1).game
    with tempfile.TemporaryDirectory() as folder:
        bases = [Path(folder) / f"base_{seat}" for seat in range(2)]
        save_untrained(bases)
        asked = {
            "models": list(map(str, bases)),
            "prompts": list(map(prompt_of, questions)),
            "group": config.magrpo.group_size,
            "joining": config.magrpo.joining,
            "max_new_tokens": config.sampling.max_new_tokens,
            "learning_rate": rate,
            "questions_per_update": config.questions_per_step,
            "seed": seed,
            "out": f"{folder}/out",
            "tokens": TOKENS,
        }
        given = Path(__file__).parent / "compared" / "train_comlrl.py"
        command = [str(python), str(given), json.dumps(asked)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, text=True, bufsize=1, **pipes) as process:
            spent = answered(process, verifier, questions)

        def after(out: str) -> dict[str, float]:
            return rewards_after(experiment.build(with_models(config, Path(out)))[0])

        at = {n: after(f"{folder}/out_{n}") | reached for n, reached in spent.pop("at").items()}
        return {**after(f"{folder}/out"), **spent, "at": at}


def answered(
    process: subprocess.Popen[str], verifier: object, questions: Sequence[Question]
) -> dict[str, Any]:
    """Give the training process its rewards; return what it spent."""
    for line in process.stdout:
        kind, _, said = line.partition(" ")
        if kind == "SCORE":
            asked = json.loads(said)
            joint = json.dumps(asked["parts"])
            scores, _ = verifier.score([questions[asked["asked"]]], [joint])
            process.stdin.write(f"{scores[0]}\n")
            process.stdin.flush()
        elif kind == "DONE":
            return json.loads(said)
    raise RuntimeError(f"CoMLRL's process ended early, with status {process.wait()}")


def with_models(config: MAGRPOConfig, folder: Path) -> MAGRPOConfig:
    """Return settings whose agents are the models of a folder."""
    models = tuple(str(folder / f"agent_{seat}") for seat in range(2))
    return replace(config, team=replace(config.team, model=models))


def save_untrained(folders: Sequence[Path]) -> None:
    """Save the models from which both sides start, one folder per agent."""
    team, _ = experiment.build(CONFIG)
    for base, folder in zip(team.bases, folders, strict=True):
        base.model.save_pretrained(folder)
        base.chat.tokenizer.save_pretrained(folder)


def train_missing(folder: Path, python: Path, rates: Sequence[float]) -> None:
    """Train and measure every run of these rates whose file is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (file := folder / "untrained.json").exists():
        file.write_text(json.dumps(rewards_after(experiment.build(CONFIG)[0])))
    for rate in rates:
        for seed in SEEDS:
            for side in SIDES:
                file = folder / f"{side}-{rate:g}-{seed}.json"
                if file.exists():
                    continue
                if side == "comlrl":
                    found = there(seed, rate, python)
                else:
                    found = here(seed, rate, ALIKE if side == "alike" else {})
                file.write_text(json.dumps(found))
                print(file.name, json.dumps(found), flush=True)


def table(folder: Path) -> str:
    """Return the results as a table, and the rate that was chosen for each side."""
    rows = [
        "| | learning rate | validation, by seed | **test, by seed** | test, mean ± sd | right | "
        "answers | tokens | updates | CPU-seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    start = json.loads((folder / "untrained.json").read_text())
    rows.append(
        f"| untrained | - | {start['validation']:.3f} | {start['test']:.3f} | - | "
        f"{start['test right']:.3f} | - | - | - | - |"
    )
    for side in SIDES:
        runs = {rate: runs_of(folder, side, rate) for rate in RATES}
        runs = {rate: found for rate, found in runs.items() if found}
        best = max(runs, key=lambda rate: mean(run["validation"] for run in runs[rate]))
        rows += [row_of(side, rate, runs[rate], best == rate) for rate in runs]
    return "\n".join(rows)


def table_at_tokens(folder: Path) -> str:
    """Return the rewards at equal numbers of sampled tokens, at the rate chosen for each number."""
    rows = [
        "| | tokens | learning rate | validation, by seed | **test, by seed** | test, mean ± sd | "
        "right | updates |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for tokens in map(str, TOKENS):
        for side in SIDES:
            runs = {rate: runs_of(folder, side, rate) for rate in RATES}
            at = {
                rate: [run["at"][tokens] for run in found]
                for rate, found in runs.items()
                if found and all(tokens in run.get("at", {}) for run in found)
            }
            if not at:
                continue
            best = max(at, key=lambda rate: mean(run["validation"] for run in at[rate]))
            whole = at[best]
            cells = (
                *(side, f"{int(tokens):,}", f"{best:g}", each(whole, "validation")),
                *(each(whole, "test"), f"**{spread_of(whole)}**"),
                f"{mean(run['test right'] for run in whole):.3f}",
                " ".join(f"{run['updates']:.0f}" for run in whole),
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def each(runs: Sequence[Mapping[str, float]], name: str) -> str:
    """Return a figure of each run."""
    return " ".join(f"{run[name]:.3f}" for run in runs)


def spread_of(runs: Sequence[Mapping[str, float]]) -> str:
    """Return the mean and the standard deviation over runs of the reward on test questions."""
    tests = [run["test"] for run in runs]
    return f"{mean(tests):.3f} ± {stdev(tests) if len(tests) > 1 else 0.0:.3f}"


def runs_of(folder: Path, side: str, rate: float) -> list[dict[str, Any]]:
    """Return the results of one side and rate, in order of the seeds that are there."""
    files = [folder / f"{side}-{rate:g}-{seed}.json" for seed in SEEDS]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def row_of(side: str, rate: float, runs: Sequence[dict[str, float]], chosen: bool) -> str:
    """Return a row of the table."""
    mark = "**" if chosen else ""

    def whole(name: str) -> str:
        return f"{mean(run[name] for run in runs):,.0f}"

    cells = (
        *(f"{mark}{side}{mark}", f"{rate:g}{', chosen' if chosen else ''}"),
        *(each(runs, "validation"), each(runs, "test"), f"{mark}{spread_of(runs)}{mark}"),
        *(f"{mean(run['test right'] for run in runs):.3f}", whole("answers"), whole("tokens")),
        *(whole("updates"), whole("seconds")),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="of the results, one file per run")
    parser.add_argument("--table", action="store_true", help="train nothing, print the tables")
    parser.add_argument("--envs", type=Path, default=envs.USUAL_FOLDER)
    parser.add_argument("--python", type=Path, help="an interpreter that can import comlrl")
    parser.add_argument("--rates", type=float, nargs="+", choices=RATES, default=RATES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.table:
        train_missing(
            args.folder, args.python or envs.python_of(envs.COMLRL, args.envs), args.rates
        )
    print(table(args.folder))
    print(f"\nAt equal tokens:\n\n{table_at_tokens(args.folder)}")
    print(f"\n{envs.COMLRL.title}; {platform.machine()}, Python {platform.python_version()}.")


if __name__ == "__main__":
    main()
