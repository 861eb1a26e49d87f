"""TRL's PPOTrainer of version 1.12.0, the last that has one, in an environment of its own.

What it does: one agent; a policy with LoRA, the reference by switching the adapter off, a value
model and a reward model of the same size, both whole models; all weights of the value model are
trained. What it does not do: several agents, a reward function (it is a model here, whose forward
pass it pays), stop at the end of messages (every row has its full length).
"""

from __future__ import annotations

import json
import sys

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer
from trl_settings import QUIET
from worker import Worker

given = json.loads(sys.argv[1])
torch.set_num_threads(1)
worker = Worker()


class Pause(TrainerCallback):
    """Ends an iteration at the end of a step."""

    def on_step_end(self, *_: object, **__: object) -> None:
        worker.wait()


tokenizer = AutoTokenizer.from_pretrained(given["model"], padding_side="left")
policy = AutoModelForCausalLM.from_pretrained(given["model"])
value, reward = (
    AutoModelForSequenceClassification.from_pretrained(given["model"], num_labels=1)
    for _ in range(2)
)
worker.ready(parameters=sum(p.numel() for p in policy.parameters()))
rows = given["rows"]
trainer = PPOTrainer(
    args=PPOConfig(
        output_dir=given["folder"],
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=1,
        num_mini_batches=given["minibatches"],
        num_ppo_epochs=given["epochs"],
        local_rollout_forward_batch_size=rows,
        response_length=given["tokens"],
        total_episodes=rows * 1000,
        num_sample_generations=0,
        **QUIET,
    ),
    processing_class=tokenizer,
    model=policy,
    ref_model=None,
    reward_model=reward,
    value_model=value,
    train_dataset=Dataset.from_dict(
        {"input_ids": [tokenizer(prompt)["input_ids"] for prompt in given["prompts"]]}
    ),
    peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"),
    callbacks=[Pause()],
)
worker.wait()
trainer.train()
