"""TRL's GRPOTrainer, of whatever version its environment holds.

What it does: one agent, LoRA, the reference by switching the adapter off, a reward function, groups
of samples of one prompt that are compared. What it does not do: a critic, several agents.
"""

from __future__ import annotations

import json
import sys

import torch
from datasets import Dataset
from material import reward_of
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl_settings import QUIET
from worker import Worker

given = json.loads(sys.argv[1])
torch.set_num_threads(1)
worker = Worker()
rows, minibatches = given["rows"], given["minibatches"]
STEPS = given["epochs"] * minibatches


class Pause(TrainerCallback):
    """Ends an iteration after as many optimiser steps as one batch of samples gives."""

    def on_step_end(self, args: object, state: object, *_: object, **__: object) -> None:
        if state.global_step % STEPS == 0:  # type: ignore[attr-defined]
            worker.wait()


def reward(completions: list[str], **_: object) -> list[float]:
    """Return the reward of each completion."""
    return [reward_of(text, given["tokens"]) for text in completions]


tokenizer = AutoTokenizer.from_pretrained(given["model"], padding_side="left")
policy = AutoModelForCausalLM.from_pretrained(given["model"])
worker.ready(parameters=sum(p.numel() for p in policy.parameters()))
trainer = GRPOTrainer(
    model=policy,
    reward_funcs=reward,
    args=GRPOConfig(
        output_dir=given["folder"],
        per_device_train_batch_size=rows // minibatches,
        gradient_accumulation_steps=1,
        steps_per_generation=minibatches,
        num_iterations=given["epochs"],
        num_generations=given["group"],
        max_completion_length=given["tokens"],
        beta=0.02,
        max_steps=1000 * STEPS,
        logging_strategy="no",
        **QUIET,
    ),
    processing_class=tokenizer,
    train_dataset=Dataset.from_dict({"prompt": given["prompts"]}),
    peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"),
    callbacks=[Pause()],
)
worker.wait()
trainer.train()
