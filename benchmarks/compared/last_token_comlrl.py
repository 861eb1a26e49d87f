"""CoMLRL's MAGRPO loss of two completions that differ in their last token alone.

Run in the environment of its published wheel; prints the size of the gradient as JSON.
"""

from __future__ import annotations

import json
import sys

import torch
from comlrl.trainers.reinforce import MAGRPOTrainer
from comlrl.trainers.reinforce.magrpo import MAGRPOConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

given = json.loads(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(given["model"])
trainer = MAGRPOTrainer(
    agents=[model],
    num_agents=1,
    tokenizer=AutoTokenizer.from_pretrained(given["model"]),
    train_dataset=None,  # the loss alone is asked for
    reward_func=lambda *texts, **_: [0.0] * len(texts[0]),
    formatters=[lambda item: item["prompt"]],
    args=MAGRPOConfig(num_agents=1, num_turns=1, num_generations=2, agent_devices="cpu"),
)
found = {}
for name, pair in given["pairs"].items():
    prompt, first, second = (torch.tensor(ids) for ids in pair)
    completions = {"prompt_input_ids": prompt[None], "completion_input_ids": [[first, second]]}
    loss = trainer._compute_loss_with_gradients(model, completions, [1.0, 0.0])
    model.zero_grad()
    loss.backward()
    found[name] = sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None)
print(json.dumps(found))
