"""AgileRL's LLMPPO, of whatever version its environment holds, without vLLM: as it runs on a CPU.

What it does: one agent; adapters for the policy and for the critic, which so has a pass through the
layers of its own, and a reference; generates one prompt at a time (its batches need vLLM on a GPU);
advantages of single tokens. What it does not do: several agents in one engine, batched sampling
here, its fused loss kernel (for GPUs).
"""

from __future__ import annotations

import json
import sys

import torch
from agilerl.algorithms import LLMPPO
from material import reward_of
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from worker import Worker

given = json.loads(sys.argv[1])
torch.set_num_threads(1)
worker = Worker()
tokens, minibatch = given["tokens"], given["rows"] // given["minibatches"]
tokenizer = AutoTokenizer.from_pretrained(given["model"])
policy = AutoModelForCausalLM.from_pretrained(given["model"])
worker.ready(parameters=sum(p.numel() for p in policy.parameters()))
agent = LLMPPO(
    pad_token_id=tokenizer.pad_token_id,
    pad_token=tokenizer.pad_token,
    actor_network=policy,
    batch_size=given["rows"],
    mini_batch_size=minibatch,
    micro_batch_size_per_gpu=minibatch,
    update_epochs=given["epochs"],
    max_output_tokens=tokens,
    min_output_tokens=tokens,
    temperature=1.0,
    top_k=0,
    lr_actor=1e-5,
    lora_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"),
    gradient_checkpointing=False,
    use_liger_loss=False,
    advantage_granularity="token",
    device="cpu",
)
prompts = [dict(tokenizer(text, return_tensors="pt")) for text in given["prompts"]]
while True:
    worker.wait()
    written, masks = agent.get_action(prompts)[:2]
    texts = [tokenizer.decode(row.flatten()[-tokens:]) for row in written]
    rewards = torch.tensor([reward_of(text, tokens) for text in texts])
    agent.learn((written, masks, rewards))
