"""Measure grouped adapters against peft's loop over the adapters of a batch.

Prints, for a random Llama of 5 M parameters with LoRA of rank 8 on all linear layers, the CPU
seconds of peft's per-row path over those of the grouped one: a decoding step without gradients, and
a forward and backward pass of 24 texts of 264 ids. One thread, interleaved, median and range.
`--memory` prints the peak memory of such a pass and an optimiser step by the number of agents.

    python benchmarks/adapters.py
    python benchmarks/adapters.py --memory
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from peft import LoraConfig
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from maporl_agents.models.grouped_adapters import GroupedLayer
from maporl_agents.models.lora import LoraBase
from maporl_agents.text.chat import Chat
from maporl_agents.text.tokenizer_files import load_tokenizer
from maporl_agents.tiny import checkpoint

WIDTH, LAYERS, VOCABULARY, RANK = 256, 4, 8000, 8
REPEATS = 5


def make_base(agents: int, rank: int = RANK) -> LoraBase:
    """Return a random model with a stirred adapter for each agent."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=704,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    model = LlamaForCausalLM(config)
    lora = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    chat = Chat(load_tokenizer(str(checkpoint(0, "tiny"))), [0], VOCABULARY)
    base = LoraBase(model, chat, [f"agent_{i}" for i in range(agents)], lora)
    for name, p in base.peft.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.02)
    return base


def by_peft(base: LoraBase) -> LoraBase:
    """Let peft run the adapters of a base, in a loop over those of a batch."""
    for layer in base.peft.modules():
        if isinstance(vars(layer).get("forward"), GroupedLayer):
            del layer.forward
            layer.register_forward_pre_hook(base._route._name_rows, with_kwargs=True)
    return base


def texts(rows: int, width: int, agents: int) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """Return ids, attention, positions and policies of a batch, sorted by policy."""
    ids = torch.randint(0, VOCABULARY, (rows, width), generator=torch.Generator().manual_seed(1))
    names = [f"agent_{row * agents // rows}" for row in range(rows)]
    return ids, torch.ones_like(ids), torch.arange(width).expand_as(ids), names


def decode(base: LoraBase, rows: int, agents: int) -> Callable[[], object]:
    """Return a function that reads one token of each row after 200 others."""
    ids, attention, positions, names = texts(rows, 200, agents)
    cache = DynamicCache(config=base.model.config)

    @torch.inference_mode()
    def step() -> None:
        if not cache.get_seq_length():
            base.hidden(ids, attention, positions, names, cache=cache)
        one = torch.ones(rows, 1, dtype=torch.long)
        seen = cache.get_seq_length()
        base.hidden(one, torch.ones(rows, seen + 1), one * seen, names, cache=cache)
        cache.crop(-1)

    return step


def update(base: LoraBase, rows: int, agents: int) -> Callable[[], object]:
    """Return a function that reads 24 texts of 264 ids forward and backward."""
    batch = texts(rows, 264, agents)

    def step() -> None:
        base.hidden(*batch).square().mean().backward()

    return step


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Return CPU seconds of a call."""
    before = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - before) / repeats


def compare(make: Callable[..., Callable[[], object]], rows: int, agents: int, calls: int) -> None:
    """Print the CPU seconds of peft's loop over the grouped ones."""
    runs = [make(turn(make_base(agents)), rows, agents) for turn in (by_peft, lambda base: base)]
    for run in runs:
        run()
    pairs = [[seconds(run, calls) for run in runs] for _ in range(REPEATS)]
    ratios = sorted(loop / own for loop, own in pairs)
    own = median(own for _, own in pairs)
    print(
        f"| {make.__name__} | {rows} | {agents} | {median(ratios):.2f} "
        f"({ratios[0]:.2f}-{ratios[-1]:.2f}) | {own * 1e3:.1f} |"
    )


def peak(agents: int, rank: int) -> None:
    """Print the bytes of all adapters, and this process's peak memory after two steps."""
    base = make_base(agents, rank)
    parameters = [p for i in range(agents) for p in base.trainable(f"agent_{i}").values()]
    state = sum(p.numel() * p.element_size() for p in parameters)
    optimiser = torch.optim.AdamW(parameters)
    step = update(base, 24, agents)
    for _ in range(2):
        step()
        optimiser.step()
    print(state, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=int, nargs=2, help="agents and rank, for --memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        peak(*options.peak)
    elif options.memory:
        measure_memory()
    else:
        print("| pass | rows | agents | peft / grouped (range) | ms |\n|---|---|---|---|---|")
        for agents in (3, 8):
            compare(decode, 12, agents, 20)
            compare(decode, 48, agents, 10)
            compare(update, 24, agents, 1)


def measure_memory() -> None:
    """Print the peak of a training step of 24 texts by the number of agents that share it."""
    rank = 64
    found = {}
    for agents in (1, 2, 4, 8):
        command = [sys.executable, __file__, "--peak", str(agents), str(rank)]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        state, top = map(int, line.split())
        found[agents] = top
        own = 4 * state / agents  # weights, gradients and both moments of AdamW
        print(f"{agents} agents: {top / 2**20:.0f} MB; each has {own / 2**20:.1f} MB of its own")
    print(f"each more: {(found[8] - found[1]) / 7 / own:.2f} of its own")


if __name__ == "__main__":
    main()
