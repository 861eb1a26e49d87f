"""Predictions of `maporl plan` beside measurements: processor time, tokens, tensors, the process.

    .venv/bin/python benchmarks/plan.py                      # all runs, some minutes of one core
    .venv/bin/python benchmarks/plan.py --runs shopping-16   # these alone

Prints a Markdown table of ratios, planned / measured; 1.00 is right. A measured step is one of the
run itself, with its own weights, whose messages all reach their limits. (Where the name ends in
"usual", messages end where they do, and the run is planned with their mean length.)
- time: the forecast of a rehearsal, and the best of a few real steps, taken in turns; processor
  seconds, for others may use the machine. A rehearsal of the whole step is a measurement itself, so
  a line through smaller steps, each timed once or twice, is shown too;
- tensors: the most bytes of tensors alive at once, counted operator by operator;
- process: by how much a fresh process grows at its height over two steps and an evaluation, on top
  of what a step of a smaller model leaves behind. Once as it is, and once with
  MALLOC_MMAP_THRESHOLD_=65536: freed blocks are then given back instead of kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from maporl_agents import tiny
from maporl_agents.algorithms import maporl
from maporl_agents.config import (
    EvalConfig,
    GameConfig,
    PPOConfig,
    Sampling,
    TeamConfig,
    TrainConfig,
    from_dict,
)
from maporl_agents.models.loading import Load, load_model
from maporl_agents.planning.ledger import Ledger
from maporl_agents.planning.machine import this_machine
from maporl_agents.planning.plan import Plan, plan_of
from maporl_agents.planning.rehearsal import Rehearsal, Spent, rehearse
from maporl_agents.planning.sketch import nbytes, owned
from maporl_agents.planning.stand_ins import EndlessChat
from maporl_agents.play.questions import questions_of_step
from maporl_agents.recipes import recipe
from maporl_agents.text.chat import Chat
from maporl_agents.text.tokenizer_files import load_tokenizer
from maporl_agents.text.vocabulary import rows_of
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, training_questions
from maporl_agents.update.optimiser import PPOLearner

BUILT_IN = ("shopping", "sharing")
KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "gpt2": (GPT2Config, GPT2LMHeadModel),
}
RUNS = (
    *(f"{name}-{questions}" for name in BUILT_IN for questions in (4, 16, 64)),
    *(f"{kind}-8" for kind in KINDS),
    "llama54m-2",
    *(f"{name}-16-usual" for name in BUILT_IN),
)
"""Name of a recipe or of a random model, questions per step, and whether messages are as usual."""


def settings(run: str, folder: Path) -> TrainConfig:
    """Return the run of a name; random models are written to the folder."""
    name, questions, *_ = run.split("-")
    if name in BUILT_IN:
        config = recipe(name)
        assert isinstance(config, TrainConfig)
        team = replace(config.team, device="cpu")
        return replace(config, team=team, questions_per_step=int(questions))
    large = name == "llama54m"
    model = folder / name
    if not model.exists():
        save_random("llama" if large else name, model, *((768, 10) if large else (32, 2)))
    return TrainConfig(
        questions_per_step=int(questions),
        game=GameConfig(num_turns=2),
        team=TeamConfig(model=(str(model),), tuning="lora", device="cpu"),
        sampling=Sampling(max_new_tokens=12),
        ppo=PPOConfig(micro_tokens=512, minibatches=2),
        eval=EvalConfig(questions=int(questions)),
    )


def save_random(kind: str, folder: Path, width: int, layers: int) -> None:
    """Write a random model with the built-in tokenizer."""
    tokenizer = load_tokenizer(str(tiny.checkpoint(0)))
    config, model = KINDS[kind]
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    shape: PreTrainedConfig = config(
        vocab_size=512,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        **({} if kind == "gpt2" else {"num_key_value_heads": 2}),
        pad_token_id=tokenizer.pad_token_id,
        **ends,
    )
    with torch.random.fork_rng(devices=[]):
        model(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_endless(name: str, config: TeamConfig) -> tuple[PreTrainedModel, Chat]:
    """Return a model with its own weights whose messages all reach their limits."""
    model, chat = load_model(name, config)
    return model, EndlessChat(chat.tokenizer, embeddings=rows_of(model.config))


class RealSteps:
    """A run with its own weights, step by step."""

    def __init__(self, config: TrainConfig, load: Load = load_endless) -> None:
        self.config = config
        self.team, learner = experiment.build(config, load=load)
        assert isinstance(learner, PPOLearner)
        self.learner = learner
        self.game, self.count = config.training_game()
        self.debates = debates_of(self.game, self.count)
        questions = training_questions(config.game)
        self.asked = questions_of_step(questions, 0, self.count, config.seed)

    def take(self) -> float:
        """Take a step; return its processor seconds."""
        start = time.process_time()
        self.rollouts, _ = maporl.train_step(
            self.learner, self.debates, self.asked, self.config, seed=0
        )
        return time.process_time() - start

    def tokens(self) -> int:
        """Return the number of tokens in the prompts and completions of the last step."""
        return sum(
            len(prompt) + len(said.ids)
            for rollout in self.rollouts
            for prompt, said in zip(rollout.prompts, rollout.completions, strict=True)
        )

    def message_tokens(self) -> int:
        """Return the mean length of the last step's messages."""
        lengths = [len(said.ids) for rollout in self.rollouts for said in rollout.completions]
        return round(sum(lengths) / len(lengths))

    def peak_bytes(self) -> int:
        """Return the most bytes of tensors alive at once in a step."""
        moments = [t for state in self.learner.optimizer.state.values() for t in state.values()]
        kept = [t for t in moments if isinstance(t, torch.Tensor)]
        ledger = Ledger([*owned(self.team), *kept])
        with ledger:
            self.take()
        return nbytes([*owned(self.team), *kept]) + ledger.peak_bytes


def compare(config: TrainConfig, seconds: float, repeats: int, *, usual: bool) -> list[str]:
    """Return the cells of a run: ratios of time, tokens and tensors."""
    steps = RealSteps(config, load_model if usual else load_endless)
    steps.take()  # to warm up
    length = steps.message_tokens() if usual else 0
    here = this_machine(torch.device("cpu"), torch.float32)
    plan = plan_of(config, here, message_tokens=length)
    took, foretold = [], []
    for _ in range(repeats):
        foretold.append(rehearse(config, plan, seconds))
        took.append(steps.take())
    whole = min(each.forecast.processor for each in foretold)
    real = min(took)
    tensors = without_evaluation(plan) / steps.peak_bytes()
    tokens = (plan.prompt_tokens + plan.new_tokens) / steps.tokens()
    rehearsed = "+".join(map(str, sorted(foretold[-1].timed)[-2:]))
    return [
        f"{real:.2f} s",
        f"{whole / real:.2f}",
        by_line(foretold, real),
        rehearsed,
        f"{tokens:.2f}",
        f"{tensors:.2f}",
    ]


def by_line(rehearsals: list[Rehearsal], real: float) -> str:
    """Return the ratio of what smaller steps foretell, at the best of each."""
    sizes = sorted(set.intersection(*(set(each.timed) for each in rehearsals)))
    smaller = [size for size in sizes if size < rehearsals[0].count]
    if len(smaller) < 2:
        return "-"
    best = {
        size: Spent(*map(min, *(each.timed[size] for each in rehearsals)))
        if len(rehearsals) > 1
        else rehearsals[0].timed[size]
        for size in smaller
    }
    line = Rehearsal(rehearsals[0].count, best)
    return f"{line.forecast.processor / real:.2f} ({smaller[-2]}+{smaller[-1]})"


def without_evaluation(plan: Plan) -> float:
    """Return the planned peak of a step."""
    return sum(plan.held.values()) + max(
        size for phase, size in plan.phases.items() if phase != "evaluation"
    )


def grow(config: TrainConfig) -> None:
    """Print how far this process grows over two steps and an evaluation of a run."""
    RealSteps(settings("shopping-4", Path())).take()  # libraries come into use
    before = status("VmRSS")
    steps = RealSteps(config)
    Path("/proc/self/clear_refs").write_text("5")  # weights are read: count the peak from here
    steps.take()
    steps.take()
    experiment.measure(config, steps.team, experiment.held_out(config))
    print(status("VmHWM") - before)


def status(name: str) -> int:
    """Return a number of bytes that the system keeps about this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def growth(config: TrainConfig, **environment: str) -> int:
    """Return by how much a fresh process grows."""
    done = subprocess.run(
        [sys.executable, __file__, "--grow", json.dumps(asdict(config))],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def main() -> None:
    """Parse the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", default=RUNS, choices=RUNS, metavar="RUN")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each rehearsal")
    parser.add_argument("--repeats", type=int, default=4, help="of rehearsal and real steps")
    parser.add_argument("--process", action="store_true", help="measure processes, too")
    parser.add_argument("--grow", help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault("MAPORL_CORES", "1")
    torch.set_num_threads(1)
    if args.grow:
        grow(from_dict(TrainConfig, json.loads(args.grow)))
        return
    head = ["run", "a step", "time", "by a line", "debates rehearsed", "tokens", "tensors"]
    head += ["process", "process, blocks given back"] if args.process else []
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for run in args.runs:
            config = settings(run, Path(folder))
            cells = compare(config, args.seconds, args.repeats, usual=run.endswith("usual"))
            if args.process:
                peak = plan_of(config, this_machine(torch.device("cpu"), torch.float32)).peak_bytes
                ratio = partial(growth, config)
                cells.append(f"{peak / ratio():.2f}")
                cells.append(f"{peak / ratio(MALLOC_MMAP_THRESHOLD_='65536'):.2f}")
            print(f"| {' | '.join([run, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
