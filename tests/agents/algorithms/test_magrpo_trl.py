"""Parity: our group advantages and losses are those of TRL's GRPO on the same tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maporl_agents.advantages import group_advantages
from maporl_agents.losses import policy_loss

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'maporl[trl]'")
datasets = pytest.importorskip("datasets", reason="TRL needs the library datasets")

GROUP, GROUPS, MAX_TOKENS = 4, 3, 6
REWARDS = [1.0, 0.0, 0.25, 0.5, 0.3, 0.3, 0.3, 0.3, 0.9, 0.1, 0.0, 0.0]


def make_trainer(folder: Path, model: Path, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments = trl.GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=GROUP * GROUPS,
        num_generations=GROUP,
        max_completion_length=MAX_TOKENS,
        report_to="none",
        use_cpu=True,
        bf16=False,
        seed=0,
        **options,
    )
    rewards = iter(REWARDS)
    return trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=lambda completions, **_: [next(rewards) for _ in completions],
        args=arguments,
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["how much is it ?"] * GROUPS}),
    )


@pytest.mark.parametrize(
    ("loss_type", "reduction"), [("grpo", "sequence"), ("bnpo", "token"), ("dr_grpo", "constant")]
)
@pytest.mark.parametrize(("scale_rewards", "scale"), [("none", "none"), ("group", "std")])
def test_advantages_loss_and_gradient_are_those_of_trl(
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    loss_type: str,
    reduction: Any,
    scale_rewards: str,
    scale: Any,
) -> None:
    with torch.random.fork_rng():  # TRL samples with the process-global generator
        trainer = make_trainer(
            tmp_path, checkpoint("llama"), loss_type=loss_type, scale_rewards=scale_rewards,
            beta=0.0, epsilon=0.1,
        )  # fmt: skip
        trainer.model.train()
        prompts = [{"prompt": f"how much is {i // GROUP} ?"} for i in range(GROUP * GROUPS)]
        batch = trainer._generate_and_score_completions(prompts)

    rewards = torch.tensor(REWARDS)
    groups = torch.arange(GROUPS).repeat_interleave(GROUP)
    ours = group_advantages(rewards, groups, scale=scale)
    assert torch.allclose(ours, batch["advantages"], atol=1e-6)

    mask = batch["completion_mask"].bool()
    assert mask.any()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    logprobs = trainer._get_per_token_logps_and_entropies(
        trainer.model, ids, attention, mask.shape[1]
    )[0]
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    batch["old_per_token_logps"] = logprobs.detach() + 0.2 * noise  # ratios on both sides of 1
    trainer.current_gradient_accumulation_steps = 1
    theirs = trainer._compute_loss(trainer.model, batch)
    mine, stats = policy_loss(
        logprobs,
        batch["old_per_token_logps"],
        ours[:, None].expand_as(mask),
        mask,
        clip_coef=0.1,
        reduction=reduction,
        max_tokens=MAX_TOKENS,
    )
    assert float(stats["clip_frac"]) > 0.2
    assert math.isclose(float(mine), float(theirs), abs_tol=1e-6)
    parameters = list(trainer.model.parameters())
    gradients = list(
        zip(
            torch.autograd.grad(mine, parameters),
            torch.autograd.grad(theirs, parameters),
            strict=True,
        )
    )
    for one, other in gradients:
        assert torch.allclose(one, other, atol=1e-6)
    apart = max(float((one - other).abs().max()) for one, other in gradients)
    print(
        f"{loss_type}, scale {scale}: losses apart by {abs(float(mine) - float(theirs)):.1e}, "
        f"gradients by {apart:.1e}"
    )
