"""CoMLRL's MAGRPOTrainer, of whatever version its environment holds.

What it does: several agents, each a model of its own with LoRA; a group of samples of one prompt
per agent, one agent after another; one update of each agent, a pass per completion. What it does
not do: a critic, a reference (it is off, as by default), several prompts in one batch.
"""

from __future__ import annotations

import json
import sys

import torch
from comlrl.trainers.reinforce import MAGRPOTrainer
from comlrl_settings import trainer_of
from datasets import Dataset
from material import reward_of
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from worker import Worker

given = json.loads(sys.argv[1])
torch.set_num_threads(1)
worker = Worker()
LORA = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")


class Paused(MAGRPOTrainer):
    """The trainer, which waits before every step."""

    def _train_step_returns(self, *args: object, **kwargs: object) -> object:
        worker.wait()
        return super()._train_step_returns(*args, **kwargs)


def reward(*completions: list[str], **_: object) -> list[float]:
    """Return the mean reward of the agents' texts: one list of texts per agent."""
    tokens = given["tokens"]
    joint = zip(*completions, strict=True)
    return [sum(reward_of(text, tokens) for text in texts) / len(texts) for texts in joint]


tokenizer = AutoTokenizer.from_pretrained(given["model"])
agents = [
    get_peft_model(AutoModelForCausalLM.from_pretrained(given["model"]), LORA)
    for _ in range(given["agents"])
]
worker.ready(agents=len(agents))
config = {
    "num_generations": given["group"],
    "max_new_tokens": given["tokens"],
    "agent_learning_rate": 1e-5,
    "rollout_buffer_size": 1,
}
asked = Dataset.from_dict({"prompt": given["prompts"][:1] * 1000})
trainer = trainer_of(
    Paused, agents, reward, config=config, tokenizer=tokenizer, train_dataset=asked
)
trainer.train()
