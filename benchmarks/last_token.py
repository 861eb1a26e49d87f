"""What a loss does to the last sampled token: ours and that of CoMLRL's published wheel.

    python benchmarks/last_token.py                  # makes CoMLRL's environment, once (--envs)
    python benchmarks/last_token.py --python PYTHON  # an interpreter that can import comlrl

Two completions of one prompt, of which one has the return 1 and the other 0, so that their
advantages are opposite. If they differ in their last token alone, all that can be learnt is that
token. The gradient is printed as the sum of its absolute values over all weights of a small random
model; 0 means that nothing is learnt. "one token" is a completion of a single token.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from compared import environments as envs
from transformers import AutoModelForCausalLM, PreTrainedModel

from maporl_agents.advantages import group_advantages
from maporl_agents.losses import policy_loss
from maporl_agents.tiny.random_model import random_llama
from maporl_agents.tiny.tokenizer import make_tokenizer

PAIRS = {
    "last of three": ([5, 6, 7], [10, 11, 12], [10, 11, 13]),
    "first of three": ([5, 6, 7], [12, 10, 11], [13, 10, 11]),
    "one token": ([5, 6, 7], [12], [13]),
}
"""Ids of the prompt and of the two completions."""


def save_random_model(folder: Path) -> None:
    """Save a random Llama of two layers with the built-in tokenizer."""
    tokenizer = make_tokenizer()
    random_llama(len(tokenizer), 0, width=32, heads=2).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def gradient(model: PreTrainedModel, pair: tuple[list[int], list[int], list[int]]) -> float:
    """Return the size of the gradient of our policy loss for a pair of completions."""
    prompt, *completions = pair
    rows = torch.tensor([prompt + ids for ids in completions])
    logprobs = model(rows).logits[:, :-1].log_softmax(-1)
    taken = logprobs.gather(-1, rows[:, 1:, None])[..., 0][:, len(prompt) - 1 :]
    advantages = group_advantages(torch.tensor([1.0, 0.0]), torch.tensor([0, 0]))
    mask = torch.ones_like(taken, dtype=torch.bool)
    loss, _ = policy_loss(
        taken, taken.detach(), advantages[:, None].expand_as(taken), mask, clip_coef=0.2
    )
    model.zero_grad()
    loss.backward()
    return sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--envs", type=Path, default=envs.USUAL_FOLDER)
    parser.add_argument("--python", type=Path)
    args = parser.parse_args()
    python = args.python or envs.python_of(envs.COMLRL, args.envs)
    script = Path(__file__).parent / "compared" / "last_token_comlrl.py"
    with TemporaryDirectory() as folder:
        save_random_model(Path(folder))
        asked = json.dumps({"model": folder, "pairs": PAIRS})
        done = subprocess.run(
            [str(python), str(script), asked], capture_output=True, text=True, check=True
        )
        theirs = json.loads(done.stdout.splitlines()[-1])
        model = AutoModelForCausalLM.from_pretrained(folder)
        print(f"| completions differ in | {envs.COMLRL.title} | maporl |\n|---|---|---|")
        for name, pair in PAIRS.items():
            print(f"| {name} | {theirs[name]:.4g} | {gradient(model, pair):.4g} |")


if __name__ == "__main__":
    main()
