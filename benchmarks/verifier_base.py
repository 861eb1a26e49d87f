"""A small language model for real text: the base of the GSM8K verifier of docs/how-to/verifier.md.

    .venv/bin/python benchmarks/verifier_base.py TRAIN.jsonl OUT   # about five minutes on one core

A byte-level BPE tokenizer and a Llama of about a million parameters, both trained from scratch on
the questions and worked answers of GSM8K's training file, in the words in which the verifier puts
them. It learns how such answers look; arithmetic is beyond its size and budget.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from maporl_agents.seeding import seed_of
from maporl_agents.tiny.pretrain import random_model
from maporl_env.prompts import opening
from maporl_env.replay import LAST_LINE_TEMPLATE
from maporl_env.tasks.files import read_rows
from maporl_env.types import Question


def texts_of(path: Path) -> list[tuple[str, str]]:
    """Return (question as the verifier puts it, answer that ends in a line "A: N")."""
    return [
        (
            opening(LAST_LINE_TEMPLATE, Question("", str(row["question"]), "0")),
            str(row["answer"]).replace("####", "A:"),
        )
        for _, row in read_rows(path)
    ]


def make_tokenizer(texts: Sequence[tuple[str, str]], size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; digits stand alone."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((text for pair in texts for text in pair), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """Return the untrained model."""
    shape = {"num_hidden_layers": 4, "max_position_embeddings": 1024, "initializer_range": 0.05}
    return random_model(LlamaConfig, LlamaForCausalLM, tokenizer, seed, hidden_size=128, **shape)


def batch(rows: Sequence[list[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and labels, (N, S); -100 where no token stands."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id)
    labels = torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
    return ids, labels


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=250, help="of 16 questions with answers")
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    texts = texts_of(args.train)
    tokenizer = make_tokenizer(texts, args.vocabulary)
    end = [tokenizer.eos_token_id]
    rows = [tokenizer(q)["input_ids"] + tokenizer(a)["input_ids"] + end for q, a in texts]
    model = make_model(tokenizer, args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random(seed_of(args.seed, "rows"))
    loss = torch.tensor(0.0)
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min((step + 1) / 50, 1.0, 2 * (1 - step / args.steps))
        ids, labels = batch(rng.sample(rows, 16), tokenizer.pad_token_id)
        logits = model(input_ids=ids).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}  loss {loss.item():.3f}", flush=True)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{args.steps} steps, loss {loss.item():.3f}, {size / 1e6:.2f} M parameters, in {args.out}"
    )


if __name__ == "__main__":
    main()
