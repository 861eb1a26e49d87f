"""GSM8K with a real language model: SmolLM2-135M, two agents, three turns, before and after MAPoRL.

    maporl fetch smollm2-135m
    benchmarks/real_gsm8k.py train runs/gsm8k --minutes 120     # goes on where it was cut
    benchmarks/real_gsm8k.py measure runs/gsm8k                 # likewise, batch by batch
    benchmarks/real_gsm8k.py page runs/gsm8k docs/explanation/results/gsm8k.md

`train` stops after the given minutes on the clock, at SIGTERM and at Ctrl-C, each time with a saved
step. `measure` asks the first held-out questions, the same for both teams, sampled and greedy; it
is cut and continued in the same way, and `page` says how many questions were asked so far. The data
are those of ``$MAPORL_DATA/gsm8k`` or of the hub. The number of examples was
chosen on 40 questions of the training split; docs/log.md has what else was tried.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from maporl_agents import config as options
from maporl_agents.measure.debate_stats import turn_stats
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.models.sources.model_download import fetch
from maporl_agents.records.run_log import read_metrics
from maporl_agents.terminal import console
from maporl_agents.training import experiment
from maporl_agents.training.loop import Interrupted
from maporl_agents.training.make_game import make_game
from maporl_agents.training.resume import resume
from maporl_env.answers import answers_equal, extract_answer, read_gold
from maporl_env.credit import Penalties
from maporl_env.types import Message, Question, Transcript

MODEL = "smollm2-135m"
QUESTIONS, BATCH = 200, 50
STAGES, DECODINGS = ("before", "after"), ("sampled", "greedy")
OUTCOMES = ("right", "wrong number", "ended without an answer", "cut without an answer")


def settings(folder: Path) -> options.TrainConfig:
    """Return the settings of the run; its model stands in the folder."""
    return options.TrainConfig(
        name="run",
        steps=10_000,
        questions_per_step=8,
        checkpoint_every=1,
        game=options.GameConfig(
            task="gsm8k",
            train_split="train",
            num_agents=2,
            num_turns=3,
            penalties=Penalties(no_answer=0.2, unfinished=0.2),
            shots=4,
            answer_rule="answer_line",
        ),
        team=options.TeamConfig(
            model=(str(folder / "model"),), tuning="lora", sharing="one", dtype="bfloat16"
        ),
        sampling=options.Sampling(max_new_tokens=200, temperature=0.7, stop=("\n\n", "Question:")),
        ppo=options.PPOConfig(
            learning_rate=5e-4,
            warmup_steps=2,
            schedule="constant",
            minibatches=2,
            critic_coef=0.1,
            leave_out_equal_rewards=True,
            micro_tokens=4096,
        ),
        eval=options.EvalConfig(questions=1, questions_before=1, greedy=False, use="last"),
    )


def prepare(folder: Path) -> None:
    """Link the model without its chat template: it then reads plain text."""
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    for file in fetch(MODEL, print).iterdir():
        if file.name != "chat_template.jinja" and not (model / file.name).exists():
            (model / file.name).symlink_to(file.resolve())


# --- Training -----------------------------------------------------------------------


def train(folder: Path, minutes: float) -> None:
    """Train until the time is up or a signal arrives; the last step is saved."""
    prepare(folder)
    run = folder / "run"
    timer = threading.Timer(60 * minutes, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    with costed(folder / "training.json"):
        try:
            if (run / "config.json").is_file():
                resume(run, console())
            else:
                experiment.run(settings(folder), run, console())
        except Interrupted as stop:
            print(f"saved after step {stop.step}; the same command goes on")


@contextmanager
def costed(path: Path) -> Iterator[None]:
    """Append what the block took, in processor seconds and on the clock, to a list in a file."""
    sittings = json.loads(path.read_text()) if path.is_file() else []
    start, cpu = time.time(), time.process_time()
    try:
        yield
    finally:
        sittings.append(
            {
                "began": datetime.fromtimestamp(start, timezone.utc).isoformat(timespec="seconds"),
                "seconds": round(time.time() - start, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
            }
        )
        path.write_text(json.dumps(sittings, indent=1))


# --- Measuring ----------------------------------------------------------------------


def measure(folder: Path, stages: Sequence[str], count: int) -> None:
    """Ask held-out questions, batch by batch; what was asked before is not asked again."""
    prepare(folder)
    for stage in stages:
        config = settings(folder)
        if stage == "before":
            team, _ = experiment.build(config)
        else:
            _, team = experiment.load_team(folder / "run")
        game = make_game(config.game)
        held = experiment.held_out(replace(config, eval=options.EvalConfig(questions=count)), game)
        for start in range(0, len(held), BATCH):
            for decoding in DECODINGS:
                part = held[start : start + BATCH]
                path = folder / stage / f"{decoding}-{start:04}.json"
                if path.is_file():
                    continue
                cpu = time.process_time()
                result = evaluate(
                    team,
                    game.debates(BATCH),
                    part,
                    config.sampling,
                    seed=config.eval.seed + start,
                    greedy=decoding == "greedy",
                )
                saved = {
                    "tokens": result.num_tokens,
                    "cpu_seconds": round(time.process_time() - cpu, 1),
                    "step": trained_steps(folder) if stage == "after" else 0,
                    "transcripts": [one.to_dict() for one in result.transcripts],
                }
                path.parent.mkdir(exist_ok=True)
                scratch = path.with_suffix(".part")
                scratch.write_text(json.dumps(saved))
                scratch.rename(path)
                print(f"{stage} {decoding}: {start + len(part)} questions", flush=True)


def trained_steps(folder: Path) -> int:
    """Return the number of training steps of the run."""
    return len(read_metrics(folder / "run"))


# --- The page -----------------------------------------------------------------------


def batches(folder: Path, stage: str, decoding: str) -> list[dict[str, Any]]:
    """Return the saved batches of a measurement in the order of the questions."""
    return [json.loads(p.read_text()) for p in sorted((folder / stage).glob(f"{decoding}-*.json"))]


def outcome(message: Message, question: Question) -> str:
    """Return which of `OUTCOMES` a message is."""
    answer = extract_answer(message.text, question.kind)
    if answer is None:
        return OUTCOMES[3] if message.cut else OUTCOMES[2]
    right = answers_equal(answer, read_gold(question.answer, question.kind))
    return OUTCOMES[0] if right else OUTCOMES[1]


def table(folder: Path) -> Iterator[str]:
    """Yield the rows of the page's table."""
    yield "| team | decoding | questions | turn | vote | " + " | ".join(OUTCOMES) + " | tokens |"
    yield "| --- " * (6 + len(OUTCOMES)) + "|"
    for stage in STAGES:
        for decoding in DECODINGS:
            saved = batches(folder, stage, decoding)
            debates = [Transcript.from_dict(d) for batch in saved for d in batch["transcripts"]]
            tokens = sum(batch["tokens"] for batch in saved)
            for turn, stats in enumerate(turn_stats(debates)):
                said = [(m, d.question) for d in debates for m in d.of_turn(turn)]
                counts = Counter(outcome(*one) for one in said)
                shares = " | ".join(f"{counts[name] / len(said):.3f}" for name in OUTCOMES)
                per_message = tokens / sum(len(d.messages) for d in debates)
                vote = f"{stats.vote:.3f} ± {stats.vote_interval:.3f}"
                if not stats.vote:
                    vote = f"0.000, at most {1 - 0.05 ** (1 / len(debates)):.3f}"
                yield (
                    f"| {stage} | {decoding} | {len(debates)} | {turn + 1} | {vote} | {shares} | "
                    f"{per_message:.0f} |"
                )


def examples(folder: Path) -> Iterator[str]:
    """Yield one message of each kind of failure, from the untrained team's sampled debates."""
    found: dict[str, str] = {}
    for batch in batches(folder, "before", "sampled"):
        for saved in batch["transcripts"]:
            debate = Transcript.from_dict(saved)
            for message in debate.messages:
                found.setdefault(outcome(message, debate.question), " ".join(message.text.split()))
    for name in OUTCOMES:
        if name in found:
            yield f"- {name}: `{found[name].replace('`', chr(39))[:160]}`"


def training_text(folder: Path) -> str:
    """Return what the training took and how its steps went."""
    if not (folder / "training.json").is_file():
        return "not carried out yet."
    sittings = json.loads((folder / "training.json").read_text())
    rows = read_metrics(folder / "run")
    cpu = sum(one["cpu_seconds"] for one in sittings)
    clock = sum(one["seconds"] for one in sittings)
    answers = sum(row["answers"] for row in rows)
    tokens = sum(row["tokens"] for row in rows)
    return (
        f"{len(rows)} steps of 8 questions, sittings: {len(sittings)} (begun "
        f"{', '.join(one['began'] for one in sittings)}): {cpu / 60:.1f} processor minutes, "
        f"{clock / 60:.0f} minutes on the clock of a busy machine, {answers:.0f} messages, "
        f"{tokens:.0f} generated tokens."
    )


def page(folder: Path) -> str:
    """Return the page in Markdown."""
    spent = [
        sum(batch["cpu_seconds"] for d in DECODINGS for batch in batches(folder, stage, d)) / 60
        for stage in STAGES
    ]
    steps = {b["step"] for d in DECODINGS for b in batches(folder, "after", d)}
    lines = [
        "# GSM8K with SmolLM2-135M",
        "",
        "Made by `benchmarks/real_gsm8k.py`; no figure is written by hand.",
        "",
        "Two agents on one LoRA adapter on a base in bfloat16, three turns, temperature 0.7, at",
        "most 200 tokens a message, which ends with its paragraph; plain text, four worked",
        "examples of the training split, answers read by the rule `answer_line` (with two examples",
        "1 of 80 messages to questions of the training split was right, with four 4; with two",
        "that box their answer none of 40). Split `test`.",
        "",
        *table(folder),
        "",
        f"{QUESTIONS} questions are meant; rows with fewer, and missing rows, wait for the",
        "commands to be given again.",
        "",
        "vote: expected accuracy of the majority answer, ties shared, ± 95 % interval over",
        "questions, or where none is right the share that still gives none in 5 % of such samples;",
        "the next four columns are shares of messages and add up to 1; tokens: per message, over",
        "all turns.",
        "",
        "## Messages of the untrained team",
        "",
        *examples(folder),
        "",
        "## What it took",
        "",
        f"Training: {training_text(folder)}",
        "",
        f"The measurements took {spent[0]:.1f} processor minutes before training and "
        f"{spent[1]:.1f} after step {', '.join(map(str, sorted(steps))) or '-'}.",
        "",
        f"{datetime.now(timezone.utc):%Y-%m-%d}, {platform.machine()}, one thread.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "measure", "page"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help="of the page; printed without")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    args = parser.parse_args()
    folder = args.folder.resolve()
    if args.what == "train":
        train(folder, args.minutes)
    elif args.what == "measure":
        measure(folder, args.stages, args.questions)
    elif args.out is not None:
        args.out.write_text(page(folder), encoding="utf-8")
    else:
        print(page(folder))


if __name__ == "__main__":
    main()
