"""The figures of docs/how-to/verifier.md: verifiers with and without balance, and one as reward.

    .venv/bin/python benchmarks/learned_verifier.py                 # shopping: 15 core-minutes
    .venv/bin/python benchmarks/learned_verifier.py --gsm8k FOLDER  # and real text: 10 more
    .venv/bin/python benchmarks/learned_verifier.py --gsm8k FOLDER --model smollm2-135m \
        --dtype bfloat16 --runs runs/verifier-smollm2    # real text alone, a real model: an hour

FOLDER holds GSM8K's train.jsonl and example_model_solutions.jsonl. Every step is an ordinary
command that is printed before it runs; one whose result is there is not repeated. Leaves both
verifiers side by side (RUNS/*-both: report.json, reliability.png), and prints for the run that was
paid by the balanced one the score that was paid beside the accuracy by the key, step by step, and
what is wrong with the answers of its last turn.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from verifier_mistakes import mistake

from maporl_agents.records.run_log import read_metrics
from maporl_agents.verifier.data import Example
from maporl_env.answers import answers_equal, extract_answer, read_gold
from maporl_env.types import Transcript

MAPORL = (sys.executable, "-m", "maporl_agents.cli")
BALANCES = {"balanced": "question", "unbalanced": "none"}


def run(done: Path, *command: object) -> None:
    """Run a command unless its result is there."""
    if done.exists():
        print(f"there already: {done}")
        return
    words = [str(word) for word in command]
    print(f"\n$ {shlex.join(words)}", flush=True)
    subprocess.run(words, check=True)


def compare(runs: Path, answers: Path, name: str, *options: object, tuning: str = "full") -> None:
    """Train a balanced verifier and its unbalanced twin on the same budget; measure both."""
    folders = []
    for label, balance in BALANCES.items():
        folders.append(runs / f"{name}-{label}")
        done = folders[-1] / "report.json"
        train = (*MAPORL, "verifier", "train", answers, folders[-1], "--balance", balance)
        run(done, *train, "--tuning", tuning, *options)
    both = runs / f"{name}-both"
    run(both / "report.json", *MAPORL, "verifier", "eval", answers, *folders, "--out", both)


def shopping(runs: Path, steps: int) -> None:
    """The built-in task, and MAPoRL with the rewards of its balanced verifier."""
    answers = runs / "shopping-answers"
    sizes = ("--questions", 1500, "--test-questions", 300, "--debates", 8)
    run(answers / "data.json", *MAPORL, "verifier", "data", answers, *sizes)
    compare(runs, answers, "shopping", "--steps", 600)
    verifier = runs / "shopping-balanced"
    paid = runs / "paid-by-it"
    game = ("--game.verifier", f"learned:{verifier}", "--steps", steps, "--eval.questions", 250)
    train = (*MAPORL, "train", "--runs", runs, "--name", paid.name, *game)
    run(paid / "results.json", *train)
    print(watch(paid))
    print(f"\n{last_turn_mistakes(paid)}")


def real_text(runs: Path, data: Path, model: str, dtype: str) -> None:
    """Answers of four language models to the questions of GSM8K, divided by question.

    Without a model, a small one that was pre-trained on the same text is the verifiers' base.
    `dtype` is that of the given model's weights; float32 takes three times as long as bfloat16
    on processors that have the latter.
    """
    answers, base = runs / "gsm8k-answers", runs / "gsm8k-base"
    recordings = data / "example_model_solutions.jsonl"
    run(answers / "data.json", *MAPORL, "verifier", "data", answers, "--recordings", recordings)
    if model:
        rates = ("--learning-rate", 1e-4, "--head-learning-rate", 1e-3)
        sizes = ("--model", model, "--steps", 150, "--rows-per-step", 16, "--rows-at-once", 4)
        compare(runs, answers, "gsm8k", *sizes, *rates, "--dtype", dtype, tuning="lora")
        return
    script = Path(__file__).with_name("verifier_base.py")
    run(base / "config.json", sys.executable, script, data / "train.jsonl", base)
    rates = ("--learning-rate", 5e-4, "--head-learning-rate", 2e-3)
    compare(runs, answers, "gsm8k", "--model", base, "--steps", 150, "--rows-per-step", 16, *rates)


def watch(run_folder: Path, every: int = 5) -> str:
    """Return a Markdown table: the verifier's score and the key's accuracy, by turn and step."""
    rows = read_metrics(run_folder)
    turns = sum(name.startswith("score/") for name in rows[0])
    names = [f"turn {turn + 1}: score, key" for turn in range(turns)]
    lines = [f"| step | {' | '.join(names)} |", f"|---|{'---|' * turns}"]
    for row in [rows[0], *rows[every - 1 :: every]]:
        cells = [
            f"{row[f'score/turn_{turn + 1}']:.3f}, {row[f'accuracy/turn_{turn + 1}']:.3f}"
            for turn in range(turns)
        ]
        lines.append(f"| {row['step']:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def last_turn_mistakes(run_folder: Path) -> str:
    """Return a Markdown table: mean verifier score by mistake in the last turn, after training."""
    paid: dict[str, list[float]] = defaultdict(list)
    for line in (run_folder / "transcripts" / "after.jsonl").read_text().splitlines():
        debate = Transcript.from_dict(json.loads(line))
        question = debate.question
        gold = read_gold(question.answer, question.kind)
        for message in debate.of_turn(debate.turn - 1):
            right = answers_equal(extract_answer(message.text, question.kind), gold)
            kind = mistake(Example(question, message.text, right))
            paid[kind] += [] if message.score is None else [message.score]
    rows = sorted(paid.items(), key=lambda item: -len(item[1]))
    lines = ["| last turn, held-out | messages | mean score paid |", "|---|---|---|"]
    return "\n".join(lines + [f"| {k} | {len(x)} | {fmean(x):.3f} |" for k, x in rows if x])


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/verifier"))
    parser.add_argument("--gsm8k", type=Path, help="folder of GSM8K's files")
    parser.add_argument("--model", default="", help="base of the verifiers of real text")
    parser.add_argument("--dtype", default="float32", help="of that base's weights")
    parser.add_argument("--steps", type=int, default=40, help="of the run that is paid")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    if not args.model:
        shopping(args.runs, args.steps)
    if args.gsm8k is not None:
        real_text(args.runs, args.gsm8k, args.model, args.dtype)


if __name__ == "__main__":
    main()
