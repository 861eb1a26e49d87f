"""One GPU: a step of MAPoRL on a random model of Qwen2.5-3B's size, and the laws of its numerics.

    .venv/bin/python benchmarks/gpu.py                                  # nf4 and bfloat16
    .venv/bin/python benchmarks/gpu.py --size miniature --tokens 12     # the same on any CPU

Needs no network: the model is random and its tokenizer is made of 151,643 made-up words, so that
every message has its full length. Prints a Markdown table: seconds and new tokens per second of a
step and of its parts, peak memory beside the plan's, and the share of the device's limits that is
reached. Then the laws: before an update the ratio of a policy to itself is 1 and its KL to the
reference policy 0, and a log-probability does not depend on how its sequence was laid out.

Limits. F products and B bytes per second are measured first, W are the linear weights of the trunk,
H those of the head, D the tokens of all conversations (a pass over an agent's last text serves its
earlier turns), S the sampled ones:
- play: 2 W (prompt tokens) / F, then per token (bytes of weights and of the key-value cache) / B;
- score: twice, policy and reference, 2 (W D + H S) / F;
- update: 4 (W D + H S) / F, forward and the gradients of inputs: the base is frozen.
Attention and adapters are left out, so that the share is too low rather than too high.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from maporl_agents.algorithms import maporl
from maporl_agents.config import GameConfig, PPOConfig, Sampling, TeamConfig, TrainConfig
from maporl_agents.models.devices import pick_device
from maporl_agents.planning.machine import GIB, Machine, this_machine
from maporl_agents.planning.plan import Plan, plan_of
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, training_questions
from maporl_agents.types import Rollout
from maporl_agents.update.token_logprobs import score_tokens

SIZES = {
    # hidden, inside, layers, heads, key-value heads, words
    "qwen2.5-3b": (2048, 11008, 36, 16, 2, 151_643),
    "qwen2.5-0.5b": (896, 4864, 24, 14, 2, 151_643),
    "miniature": (64, 128, 2, 4, 2, 500),
}
KINDS = {"nf4": {"quantization": "nf4"}, "bfloat16": {}}
QUESTION_WORDS = 120
BOUNDS = {"float32": 1e-4, "bfloat16": 0.15}
"""Largest difference of a log-probability between two layouts of its sequence: bfloat16 keeps eight
bits, and the logits of a model of this width are sums of many roundings."""


def save_model(folder: Path, size: str) -> None:
    """Write a random model of a size, and a tokenizer of made-up words."""
    hidden, inside, layers, heads, kv_heads, words = SIZES[size]
    vocabulary = {"<eos>": 0, "<unk>": 1} | {f"w{i}": i + 2 for i in range(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>"
    )
    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=hidden,
        intermediate_size=inside,
        num_hidden_layers=layers,
        max_position_embeddings=32_768,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.device(pick_device("auto")), torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_questions(folder: Path, count: int) -> Path:
    """Write questions of made-up words."""
    prompt = " ".join(f"w{i}" for i in range(QUESTION_WORDS))
    rows = [{"id": str(i), "prompt": prompt, "answer": "1", "kind": "number"} for i in range(count)]
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def settings(args: argparse.Namespace, model: Path, questions: Path, kind: str) -> TrainConfig:
    """Return the run that is measured: two agents, three turns, an adapter each."""
    return TrainConfig(
        questions_per_step=args.debates,
        game=GameConfig(task=str(questions), num_agents=2, num_turns=3),
        team=TeamConfig(
            model=(str(model),),
            tuning="lora",
            dtype="bfloat16",
            gradient_checkpointing=args.recompute,
            **KINDS[kind],
        ),
        sampling=Sampling(max_new_tokens=args.tokens, max_rows=args.rows),
        ppo=PPOConfig(epochs=1, minibatches=2, micro_tokens=args.micro),
    )


@dataclass
class Stopwatch:
    """Seconds and peak memory of named parts, the device's queue emptied before and after."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    def now(self) -> float:
        """Return the time, after the device has finished its queue."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Add what runs inside to a part."""
        start = self.now()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + self.now() - start


PARTS = {"play": "play", "evaluate_tokens": "score", "update": "update"}
"""Functions of the algorithm, and the part of a step that they are."""


@contextmanager
def watched(watch: Stopwatch) -> Iterator[None]:
    """Time the parts of every step that is taken inside."""
    originals = {name: getattr(maporl, name) for name in PARTS}

    def timed(name: str):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            with watch.timing(PARTS[name]):
                return originals[name](*args, **kwargs)

        return call

    for name in PARTS:
        setattr(maporl, name, timed(name))
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(maporl, name, function)


@dataclass
class Result:
    """Time and memory of one kind of weights.

    Attributes:
        kind: nf4 or bfloat16.
        seconds: of one step, by part.
        tokens: written in one step.
        peak_bytes: the most the device's allocator gave out; 0 where there is no GPU.
        plan: what was foretold.
        least: seconds that the device's limits would allow each part.
    """

    kind: str
    seconds: dict[str, float]
    tokens: int
    peak_bytes: int
    plan: Plan
    least: dict[str, float]


def measure(size: str, config: TrainConfig, kind: str, machine: Machine, steps: int) -> Result:
    """Take steps after one to warm up; return the mean of them."""
    device = pick_device(config.team.device)
    plan = plan_of(config, machine)
    team, learner = experiment.build(config)
    debates = debates_of(config.game, config.questions_per_step)
    questions = training_questions(config.game)[: config.questions_per_step]
    _, first = maporl.train_step(learner, debates, questions, config, seed=0)
    assert first["kl"] == 0, f"the KL of a fresh policy is {first['kl']}"
    print(f"{kind}: KL of a fresh policy to the reference policy: 0")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    watch = Stopwatch(device)
    with watched(watch):
        for seed in range(1, steps + 1):
            with watch.timing("step"):
                rollouts, _ = maporl.train_step(learner, debates, questions, config, seed=seed)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    for law in laws(config, learner, rollouts):
        print(f"{kind}: {law}")
    tokens = sum(len(done.ids) for rollout in rollouts for done in rollout.completions)
    seconds = {part: total / steps for part, total in watch.seconds.items()}
    del team, learner
    gc.collect()
    least = limits(size, config, rollouts, plan, machine)
    return Result(kind, seconds, tokens, peak, plan, least)


@torch.no_grad()
def laws(config: TrainConfig, learner: maporl.PPOLearner, rollouts: list[Rollout]) -> Iterator[str]:
    """Check the laws of numerics; yield what was found.

    Raises:
        AssertionError: one does not hold.
    """
    team, heat = learner.team, config.sampling.temperature
    batch, _ = maporl.collate(team, rollouts[:2])

    def logprobs(rows: list[int]) -> torch.Tensor:
        return score_tokens(team, batch.select(rows), temperature=heat).logprobs

    everything = list(range(len(batch)))
    together, once_more = logprobs(everything), logprobs(everything)
    ratio = float((together - once_more).exp().sub(1).abs().max())
    assert ratio == 0, f"at equal shapes the ratio of a policy to itself is off by {ratio}"
    yield "ratio of a policy to itself at equal shapes: 1, bit for bit"
    apart = torch.cat([logprobs([row]) for row in everything])
    moved = float((apart - together).abs().max())
    bound = BOUNDS[config.team.dtype]
    assert moved <= bound, f"alone or together, a log-probability moves by {moved}, over {bound}"
    yield f"a log-probability alone and in a batch: within {moved:.4f} (bound {bound})"
    sampled = float((batch.sampled_logprobs - together)[batch.mask].abs().max())
    yield f"a log-probability when sampled, before the last update, and when scored: {sampled:.4f}"


def limits(
    size: str, config: TrainConfig, rollouts: list[Rollout], plan: Plan, machine: Machine
) -> dict[str, float]:
    """Return the least seconds of each part by the formulas at the top."""
    hidden, inside, layers, heads, kv_heads, words = SIZES[size]
    cache = 2 * kv_heads * (hidden // heads)  # numbers per token and layer
    trunk = layers * (2 * hidden**2 + hidden * cache + 3 * hidden * inside)
    head = hidden * words
    last = [
        len(prompt) + len(done.ids)
        for rollout in rollouts
        for prompt, done in list(zip(rollout.prompts, rollout.completions, strict=True))[-2:]
    ]
    prompts = [len(prompt) for rollout in rollouts for prompt in rollout.prompts]
    sampled = sum(len(done.ids) for rollout in rollouts for done in rollout.completions)
    products = 2.0 * (trunk * sum(last) + head * sampled)
    weights = plan.held["base models, frozen"] + plan.held["trained policies"]
    calls = 3 * -(-2 * len(rollouts) // config.sampling.max_rows) * config.sampling.max_new_tokens
    written = config.sampling.max_new_tokens
    kept = 2.0 * layers * cache * sum(written * (length + written / 2) for length in prompts)
    decode = (calls * weights + kept) / machine.bytes_per_second
    return {
        "play": 2.0 * trunk * sum(prompts) / machine.flops + decode,
        "score": 2 * products / machine.flops,
        "update": 2 * products / machine.flops,
    }


def row(result: Result) -> str:
    """Return a line of the table."""
    reached = {part: result.least[part] / result.seconds[part] for part in PARTS.values()}
    cells = [
        result.kind,
        f"{result.seconds['step']:.1f}",
        *(f"{result.seconds[part]:.1f} ({reached[part]:.0%})" for part in PARTS.values()),
        f"{result.tokens / result.seconds['step']:,.0f}",
        f"{result.tokens / result.seconds['play']:,.0f}",
        f"{result.peak_bytes / GIB:.1f}" if result.peak_bytes else "-",
        f"{_planned(result.plan) / GIB:.1f}",
        f"{sum(result.plan.seconds.values()):.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _planned(plan: Plan) -> float:
    """Return the planned peak of training, without evaluations."""
    phases = [size for phase, size in plan.phases.items() if phase != "evaluation"]
    return sum(plan.held.values()) + max(phases)


def main() -> None:
    """Measure what is asked for; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="qwen2.5-3b")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--debates", type=int, default=16, help="per step")
    parser.add_argument("--tokens", type=int, default=300, help="of each message")
    parser.add_argument("--rows", type=int, default=64, help="decoded side by side")
    parser.add_argument("--micro", type=int, default=8192, help="tokens in one pass of the update")
    parser.add_argument("--steps", type=int, default=2, help="measured, after one to warm up")
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing")
    args = parser.parse_args()
    device = pick_device("auto")
    machine = this_machine(device, torch.bfloat16)
    print(
        f"{datetime.date.today()}, {machine.name}, torch {torch.__version__}: "
        f"{machine.flops / 1e12:,.3g} TFLOP/s bfloat16, "
        f"{machine.bytes_per_second / 1e9:,.3g} GB/s\n"
        f"{args.size}, {args.debates} debates, 2 agents x 3 turns x {args.tokens} tokens\n"
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(folder / "model", args.size)
        questions = save_questions(folder, args.debates)
        results = []
        for kind in args.kinds:
            config = settings(args, folder / "model", questions, kind)
            results.append(measure(args.size, config, kind, machine, args.steps))
    print(
        "\n| weights | step, s | play (of the limit) | score | update | tokens/s, step | "
        "tokens/s, play | peak, GiB | planned | best time planned, s |\n" + "|---" * 10 + "|"
    )
    for result in results:
        print(row(result))


if __name__ == "__main__":
    main()
