"""The plain references of the engine: transformers and peft as they are, nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

LORA = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")


class Plain:
    """A model with one adapter per agent, used by `generate`, `set_adapter` and `backward`.

    Args:
        folder: the model.
        agents: number of adapters.
    """

    def __init__(self, folder: str, agents: int) -> None:
        self.names = [f"agent_{agent}" for agent in range(agents)]
        base = AutoModelForCausalLM.from_pretrained(folder)
        self.model: PeftModel = get_peft_model(base, LORA, adapter_name=self.names[0])
        for name in self.names[1:]:
            self.model.add_adapter(name, LORA)
        self.model.eval()
        self.pad = base.config.pad_token_id or 0
        trained = [p for n, p in self.model.named_parameters() if "lora_" in n]
        self.optimizer = torch.optim.AdamW([p.requires_grad_() for p in trained], lr=1e-5)

    def turn(self, prompts: Sequence[Sequence[tuple[int, ...]]], tokens: int) -> list[Tensor]:
        """Write a message after each prompt of each agent, one agent after another."""
        written = []
        for name, own in zip(self.names, prompts, strict=True):
            self.model.set_adapter(name)
            written.append(self.write(own, tokens))
        return written

    def mixed_turn(self, prompts: Sequence[Sequence[tuple[int, ...]]], tokens: int) -> Tensor:
        """Write all messages in one batch, whose rows peft gives an adapter each."""
        names = [name for name, own in zip(self.names, prompts, strict=True) for _ in own]
        rows = [prompt for own in prompts for prompt in own]
        return self.write(rows, tokens, adapter_names=names)

    @torch.inference_mode()
    def write(self, prompts: Sequence[tuple[int, ...]], tokens: int, **options: object) -> Tensor:
        """Sample `tokens` ids after each prompt: (N, P + tokens), prompts flush right."""
        width = max(map(len, prompts))
        rows = [[self.pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        seen = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return self.model.generate(
            input_ids=torch.tensor(rows),
            attention_mask=torch.tensor(seen),
            do_sample=True,
            top_k=0,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=self.pad,
            **options,
        )

    def learn(self, written: Tensor, tokens: int, minibatches: int) -> None:
        """Pass once over messages: logits, log-probabilities, backward, AdamW per minibatch.

        A policy gradient with given advantages: no critic, no reference, no ratio.
        """
        for rows in written.tensor_split(minibatches):
            ids = rows.clone()  # out of inference mode
            logits = self.model(input_ids=ids[:, :-1]).logits[:, -tokens:]
            chosen = logits.log_softmax(-1).gather(-1, ids[:, -tokens:, None])
            (-chosen.mean()).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
