"""CoMLRL's MAGRPO on questions and a reward that another process gives, in its own environment.

Reads its settings as JSON from the first argument. A reward is asked for by a line `SCORE {"asked":
number of the question, "parts": [a text per agent]}` on standard output, and read from standard
input as a number. The trained models are saved below `out`, as agent_0, agent_1, ...; the last line
is `DONE {"answers": ..., "tokens": ..., "updates": ..., "seconds": ..., "at": ...}`, tokens with
the one that ends a message, seconds of processor time. "at" says for each number of `tokens` what
had been spent after the first update by which so many were sampled; the models of then are below
`out_NUMBER`.
"""

from __future__ import annotations

import json
import random
import sys
import time

import numpy as np
import torch
from comlrl.trainers.reinforce import MAGRPOTrainer
from comlrl_settings import trainer_of
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

given = json.loads(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(given["seed"])
random.seed(given["seed"])
np.random.seed(given["seed"])  # noqa: NPY002
spent = {"answers": 0, "tokens": 0, "updates": 0}


class Counted(MAGRPOTrainer):
    """The trainer, which counts what it samples and its updates."""

    def _generate_completions(self, *args: object, **kwargs: object) -> dict:
        made = super()._generate_completions(*args, **kwargs)
        for ids in made["completion_input_ids"][0]:
            ended = (ids == tokenizer.eos_token_id).nonzero()
            spent["answers"] += 1
            spent["tokens"] += int(ended[0]) + 1 if len(ended) else len(ids)
        return made


def reward(*parts: list[str], batch_items: list[dict]) -> list[float]:
    """Return the joint reward of each joint answer, as the parent process says."""
    scores = []
    for joint in zip(*parts, strict=True):
        asked = {"asked": batch_items[0]["number"], "parts": joint}
        print("SCORE " + json.dumps(asked), flush=True)
        scores.append(float(sys.stdin.readline()))
    return scores


tokenizer = AutoTokenizer.from_pretrained(given["models"][0])
agents = [AutoModelForCausalLM.from_pretrained(folder) for folder in given["models"]]
config = {
    "num_generations": given["group"],
    "joint_mode": given["joining"],
    "max_new_tokens": given["max_new_tokens"],
    "agent_learning_rate": given["learning_rate"],
    "rollout_buffer_size": given["questions_per_update"],
}
prompts = {"prompt": given["prompts"], "number": list(range(len(given["prompts"])))}
asked = Dataset.from_dict(prompts)
trainer = trainer_of(
    Counted, agents, reward, config=config, tokenizer=tokenizer, train_dataset=asked
)
at: dict[int, dict[str, int]] = {}


def after_update(*_: object) -> None:
    """Count an update, after that of the last agent; save the models at the numbers of tokens."""
    spent["updates"] += 1
    for number in given["tokens"]:
        if number <= spent["tokens"] and number not in at:
            at[number] = {name: spent[name] for name in ("tokens", "updates")}
            trainer.save_model(f"{given['out']}_{number}")


trainer.optimizers[-1].register_step_post_hook(after_update)
begin = time.process_time()
trainer.train()
spent["seconds"] = time.process_time() - begin
trainer.save_model(given["out"])
print("DONE " + json.dumps({**spent, "at": at}), flush=True)
