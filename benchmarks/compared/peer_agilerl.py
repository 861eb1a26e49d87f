"""AgileRL's LLMPPO, of whatever version its environment holds, without vLLM: as it runs on a CPU.

What it does: one agent; adapters for the policy, for the reference and for the critic, which so has
passes of its own; advantages of single tokens. On a CPU it generates one prompt at a time (its
batches need vLLM). What it does not do: several agents on one base. Its layers for GPUs, which it
puts in wherever their package is installed, are switched off from outside.
"""

from __future__ import annotations

import json
import sys

import torch
from agilerl.algorithms import LLMPPO
from agilerl.algorithms.core import base
from material import reward_of
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from worker import Worker

base.HAS_LIGER_KERNEL = False  # its layers would be put in, which only a GPU runs
given = json.loads(sys.argv[1])
torch.set_num_threads(1)
worker = Worker()
tokens, minibatch = given["tokens"], given["rows"] // given["minibatches"]
tokenizer = AutoTokenizer.from_pretrained(given["model"])
policy = AutoModelForCausalLM.from_pretrained(given["model"])
worker.ready(parameters=sum(p.numel() for p in policy.parameters()))
del policy  # the library loads it itself, with a value head
agent = LLMPPO(
    pad_token_id=tokenizer.pad_token_id,
    pad_token=tokenizer.pad_token,
    model_name=given["model"],
    model_config={"torch_dtype": torch.float32, "attn_implementation": "sdpa"},
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
