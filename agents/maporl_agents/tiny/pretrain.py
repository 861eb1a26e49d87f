"""Pre-train the built-in models: ``python -m maporl_agents.tiny.pretrain [tiny | tiny-sharing]``.

The data are in `shopping_data` and `sharing_data`; the loop here is the same for all. Run
with the defaults it makes the shipped weights again, bit for bit on the machine that made them.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from maporl_agents.seeding import seed_of
from maporl_agents.text.chat import Chat
from maporl_agents.tiny import MODELS, WEIGHTS, maker_data, sharing_data, shopping_data
from maporl_agents.tiny.rows import NO_LOSS, DrawRow, Row, pad
from maporl_agents.tiny.tokenizer import make_tokenizer

Tensors = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of the pre-training; those of `RECIPES` made the shipped weights."""

    model: str = "tiny"
    """Which built-in model: decides tokenizer and data."""
    seed: int = 0
    """Names initialisation and data."""
    steps: int = 700
    """Optimiser steps of the first phase, per set of weights."""
    cool_down_steps: int = 80
    """Steps of the second phase. "tiny": authors mostly redo, so that copying is known but rare."""
    tokens_per_step: int = 2048
    """Real tokens per step, about."""
    learning_rate: float = 4e-3
    """Peak rate of AdamW: 50 warm-up steps, flat to 40 %, then linear to 0; the second phase
    falls linearly from 30 % of it."""
    one_turn_share: float = 0.4
    """Share of transcripts that end after the first turn."""
    drill_share: float = 0.2
    """Share of copying drills: of all transcripts ("tiny", first phase), or of those with later
    turns ("tiny-sharing")."""
    out: Path = WEIGHTS
    """Folder that receives one folder per set of weights."""


RECIPES = {
    "tiny": PretrainConfig(),
    "tiny-sharing": PretrainConfig(
        model="tiny-sharing",
        steps=800,
        cool_down_steps=0,
        one_turn_share=0.1,
        drill_share=0.4,
    ),
}
RECIPES["tiny-maker"] = PretrainConfig(
    model="tiny-maker", steps=1_000, cool_down_steps=0, one_turn_share=0.5, drill_share=0.15
)
RECIPES["tiny-sharing-qwen2"] = replace(RECIPES["tiny-sharing"], model="tiny-sharing-qwen2")
"""The settings behind the shipped weights."""


def make_model(
    tokenizer: PreTrainedTokenizerFast, seed: int, name: str = "tiny"
) -> PreTrainedModel:
    """Return a fresh tiny Llama, or a smaller Qwen2, its weights named by the seed alone."""
    make_config, build, width = (
        (Qwen2Config, Qwen2ForCausalLM, 48)
        if name.endswith("qwen2")
        else (LlamaConfig, LlamaForCausalLM, 64)
    )
    shape = {"num_hidden_layers": 3, "max_position_embeddings": 512, "initializer_range": 0.08}
    return random_model(make_config, build, tokenizer, seed, hidden_size=width, **shape)


def random_model(
    make_config: type[PretrainedConfig],
    build: type[PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    *,
    hidden_size: int,
    **shape: Any,
) -> PreTrainedModel:
    """Return a model with four heads and tied embeddings, its weights named by the seed alone."""
    config = make_config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **shape,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(config)


def reader(config: PretrainConfig, chat: Chat, agent: int) -> DrawRow:
    """Return the function that draws the training rows of a model."""
    shares = {"one_turn_share": config.one_turn_share, "drill_share": config.drill_share}
    if config.model == "tiny":
        return shopping_data.reader(chat, agent, **shares)
    if config.model == "tiny-maker":
        return maker_data.reader(chat, **shares)
    return sharing_data.reader(chat, **shares)


def batches(config: PretrainConfig, chat: Chat, agent: int) -> Iterator[list[Tensors]]:
    """Yield the groups of one step, each (ids, labels) of shape (N, S); a group per kind of row."""
    rng = random.Random(seed_of(config.seed, "data", agent))
    draw = reader(config, chat, agent)
    for step in itertools.count():
        groups: dict[str, list[Row]] = {}
        num_tokens = 0
        while num_tokens < config.tokens_per_step:
            row = draw(rng, step >= config.steps)
            groups.setdefault(row.kind, []).append(row)
            num_tokens += len(row.ids)
        yield [pad(rows, chat.pad_id) for rows in groups.values()]


def rate(config: PretrainConfig, step: int) -> float:
    """Return the fraction of the peak learning rate at a step."""
    warm, flat = 50, 0.4 * config.steps
    if step >= config.steps:
        return 0.3 * (1 - (step - config.steps) / max(config.cool_down_steps, 1))
    return min((step + 1) / warm, 1.0, max((config.steps - step) / (config.steps - flat), 0.0))


def token_losses(model: PreTrainedModel, ids: Tensor, labels: Tensor) -> Tensor:
    """Return the summed cross-entropy of the labelled tokens."""
    logits = model(input_ids=ids).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


def pretrain(
    config: PretrainConfig, agent: int, tokenizer: PreTrainedTokenizerFast | None = None
) -> PreTrainedModel:
    """Return one set of trained weights; with another tokenizer, of a model with its vocabulary."""
    tokenizer = tokenizer or make_tokenizer(config.model)
    chat = Chat(tokenizer)
    model = make_model(tokenizer, seed_of(config.seed, "init"), config.model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = LambdaLR(optimizer, lambda step: rate(config, step))
    data = batches(config, chat, agent)
    loss = torch.tensor(0.0)
    num_steps = config.steps + config.cool_down_steps
    for step in range(num_steps):
        groups = next(data)
        count = sum(int((labels[:, 1:] != NO_LOSS).sum()) for _, labels in groups)
        loss = torch.stack([token_losses(model, *group) for group in groups]).sum() / count
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            name = MODELS[config.model][agent]
            print(f"{name}  step {step + 1} / {num_steps}  loss {loss.item():.3f}", flush=True)
    return model


def pretrain_and_save(config: PretrainConfig, agent: int) -> Path:
    """Train one set of weights on one core and write it as a plain transformers checkpoint."""
    torch.set_num_threads(1)
    folder = config.out / MODELS[config.model][agent]
    pretrain(config, agent).save_pretrained(folder)
    make_tokenizer(config.model).save_pretrained(folder)
    return folder


def main(config: PretrainConfig | None = None) -> None:
    """Train all weights of a model side by side."""
    if config is None:
        import tyro

        argv = sys.argv[1:]
        name = argv.pop(0) if argv and argv[0] in RECIPES else "tiny"
        config = tyro.cli(PretrainConfig, description=__doc__, default=RECIPES[name], args=argv)
    count = len(MODELS[config.model])
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        for folder in pool.map(pretrain_and_save, [config] * count, range(count)):
            print(f"wrote {folder}")


if __name__ == "__main__":
    main()
