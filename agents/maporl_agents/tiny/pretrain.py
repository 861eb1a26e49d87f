"""Pre-train the two tiny agents: ``python -m maporl_agents.tiny.pretrain``.

Both start from the same random weights and read different transcripts: agent 0 those of authors
who know the prices of the first half of the items, agent 1 of the other half. An unknown price is
drawn afresh every time. The data is neutral, so that what MAPoRL teaches is not baked in: in later
turns an author keeps its answer, copies a peer's or tries again, whatever is right; and the peers
it sees know what it knows, so it never learns that somebody else may know more.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from maporl_agents.chat import Chat
from maporl_agents.seeding import seed_of
from maporl_agents.tiny import WEIGHTS
from maporl_agents.tiny.tokenizer import make_tokenizer
from maporl_agents.types import TokenIds
from maporl_env.protocols import SimultaneousDebate
from maporl_env.tasks import shopping
from maporl_env.types import Message, Question, Transcript

Tensors = tuple[Tensor, Tensor]

MOVES = ("keep", "copy", "redo")
"""What authors do in later turns, blind to what is right; each entry is as probable."""

COOL_DOWN_MOVES = (*MOVES, "redo", "redo", "redo")
"""The same in the second phase."""


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of the pre-training; the defaults made the shipped weights."""

    seed: int = 0
    """Names initialisation and data."""
    steps: int = 700
    """Optimiser steps of the first phase, per agent: keep, copy and redo a third each."""
    cool_down_steps: int = 80
    """Steps of the second phase: authors mostly redo, so that copying is known but rare."""
    tokens_per_step: int = 2048
    """Real tokens per step, about."""
    learning_rate: float = 4e-3
    """Peak rate of AdamW: 50 warm-up steps, flat to 40 %, then linear to 0; the second phase
    falls linearly from 30 % of it."""
    one_turn_share: float = 0.4
    """Share of transcripts that end after the first turn."""
    drill_share: float = 0.2
    """Share of first-phase transcripts that are copying drills; the rest are neutral debates of
    three turns."""
    out: Path = WEIGHTS
    """Folder that receives ``agent_0`` and ``agent_1``."""


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return a fresh tiny Llama, its weights named by the seed alone."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.08,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def believed(item: str, known: set[str], rng: random.Random) -> int:
    """Return the price an author writes down: the true one if it knows it, else a guess."""
    return shopping.PRICES[item] if item in known else rng.randint(1, 12)


def attempt(question: Question, known: set[str], rng: random.Random) -> str:
    """Return a worked answer by an author with the given knowledge."""
    words = question.prompt.split()
    (n, first), (m, second) = (words[2], words[3]), (words[5], words[6])
    prices = (believed(first, known, rng), believed(second, known, rng))
    return shopping.solution((int(n), int(m)), prices)


def author_transcript(
    question: Question,
    turns: int,
    known: set[str],
    rng: random.Random,
    moves: Sequence[str] = MOVES,
) -> Transcript:
    """Return a debate of two authors with the same knowledge, whose moves ignore correctness."""
    history = Transcript(question, ("agent_0", "agent_1"))
    for turn in range(turns):
        texts = []
        for seat in range(2):
            move = rng.choice(moves) if turn else "redo"
            before = history.of_turn(turn - 1) if turn else ()
            texts.append(
                attempt(question, known, rng)
                if move == "redo"
                else before[seat if move == "keep" else 1 - seat].text
            )
        history = history.publish(
            Message(turn, agent, text) for agent, text in zip(history.agents, texts, strict=True)
        )
    return history


def drill_transcript(question: Question, known: set[str], rng: random.Random) -> Transcript:
    """Return two turns, the second kept or copied at random: what is unknown must be read off.

    The authors know what they know: a drill in which they knew nothing would teach to copy known
    prices too, and such agents copy whole answers instead of the one price they lack.
    """
    history = Transcript(question, ("agent_0", "agent_1"))
    first = [attempt(question, known, rng) for _ in range(2)]
    second = [rng.choice(first) for _ in range(2)]
    for turn, texts in enumerate((first, second)):
        history = history.publish(
            Message(turn, agent, text) for agent, text in zip(history.agents, texts, strict=True)
        )
    return history


def row(
    history: Transcript, chat: Chat, protocol: SimultaneousDebate, *, last_only: bool
) -> tuple[TokenIds, int]:
    """Return the ids of one author's whole conversation and where the loss begins.

    It begins after the first question, or before the author's last message (`last_only`).
    """
    agent = history.agents[0]
    view = protocol.view(agent, history)
    own = [
        (*chat.encode(text), chat.tokenizer.eos_token_id) for role, text in view if role == "own"
    ]
    last_own = max(i for i, (role, _) in enumerate(view) if role == "own")
    start = last_own if last_only else 1
    return chat.prompt_ids(view[: last_own + 1], own), len(chat.prompt_ids(view[:start], own))


def batches(config: PretrainConfig, chat: Chat, agent: int) -> Iterator[list[Tensors]]:
    """Yield the groups of one step, each (ids, labels) of shape (N, S); a group per kind of row.

    Labels are -100 where no loss is taken (question and padding).
    """
    rng = random.Random(seed_of(config.seed, "data", agent))
    known = set(shopping.known_items(agent))
    questions = shopping.load().split("train")
    protocol = SimultaneousDebate(template=shopping.TEMPLATE)
    for step in itertools.count():
        cooling = step >= config.steps
        moves = COOL_DOWN_MOVES if cooling else MOVES
        groups: dict[str, list[tuple[TokenIds, int]]] = {}
        num_tokens = 0
        while num_tokens < config.tokens_per_step:
            question = rng.choice(questions)
            kind = pick_kind(config.one_turn_share, 0.0 if cooling else config.drill_share, rng)
            history = (
                drill_transcript(question, known, rng)
                if kind == "drill"
                else author_transcript(question, 1 if kind == "one turn" else 3, known, rng, moves)
            )
            groups.setdefault(kind, []).append(
                row(history, chat, protocol, last_only=kind == "drill")
            )
            num_tokens += len(groups[kind][-1][0])
        yield [pad(rows, chat.pad_id) for rows in groups.values()]


def pick_kind(one_turn_share: float, drill_share: float, rng: random.Random) -> str:
    """Draw the kind of the next row."""
    place = rng.random()
    if place < one_turn_share:
        return "one turn"
    return "drill" if place < one_turn_share + drill_share else "three turns"


def pad(rows: list[tuple[TokenIds, int]], pad_id: int) -> Tensors:
    """Return (ids, labels) of rows given as (ids, where the loss begins)."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad_id)
    labels = torch.full((len(rows), width), -100)
    for i, (tokens, start) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        labels[i, start : len(tokens)] = torch.tensor(tokens[start:])
    return ids, labels


def rate(config: PretrainConfig, step: int) -> float:
    """Return the fraction of the peak learning rate at a step."""
    warm, flat = 50, 0.4 * config.steps
    if step >= config.steps:
        return 0.3 * (1 - (step - config.steps) / max(config.cool_down_steps, 1))
    return min((step + 1) / warm, 1.0, max((config.steps - step) / (config.steps - flat), 0.0))


def token_losses(model: LlamaForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Return the summed cross-entropy of the labelled tokens."""
    logits = model(input_ids=ids).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


def pretrain(config: PretrainConfig, agent: int) -> LlamaForCausalLM:
    """Return one trained agent."""
    tokenizer = make_tokenizer()
    chat = Chat(tokenizer)
    model = make_model(tokenizer, seed_of(config.seed, "init"))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = LambdaLR(optimizer, lambda step: rate(config, step))
    data = batches(config, chat, agent)
    loss = torch.tensor(0.0)
    num_steps = config.steps + config.cool_down_steps
    for step in range(num_steps):
        groups = next(data)
        count = sum(int((labels[:, 1:] != -100).sum()) for _, labels in groups)
        loss = torch.stack([token_losses(model, *group) for group in groups]).sum() / count
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            print(f"agent {agent}  step {step + 1} / {num_steps}  loss {loss.item():.3f}")
    return model


def pretrain_and_save(config: PretrainConfig, agent: int) -> Path:
    """Train one agent on one core and write it as a plain transformers checkpoint."""
    torch.set_num_threads(1)
    folder = config.out / f"agent_{agent}"
    pretrain(config, agent).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def main(config: PretrainConfig | None = None) -> None:
    """Train both agents side by side."""
    if config is None:
        import tyro

        config = tyro.cli(PretrainConfig, description=__doc__)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for folder in pool.map(pretrain_and_save, [config] * 2, range(2)):
            print(f"wrote {folder}")


if __name__ == "__main__":
    main()
