"""Parity: our loss on preference pairs, and its gradient, are those of TRL's DPO."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from maporl_agents.losses import preference_loss

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'maporl[trl]'")


class _Passive:
    """What a trainer of TRL asks of its accelerator, on one device."""

    device = torch.device("cpu")

    @staticmethod
    def gather(x: torch.Tensor) -> torch.Tensor:
        return x

    gather_for_metrics = gather


def test_our_dpo_loss_is_that_of_trl() -> None:
    generator = torch.Generator().manual_seed(0)
    logprobs = -torch.rand(8, 6, generator=generator)
    logprobs.requires_grad_()
    mask = torch.arange(7) >= torch.tensor([1, 2, 3, 4, 2, 1, 5, 6])[:, None]
    references = -5 * torch.rand(8, generator=generator)

    class Model:
        training = True

        def __call__(self, **_: Any) -> Any:
            per_token = torch.where(mask[:, 1:], logprobs, 0.0)
            other = torch.zeros_like(per_token)
            return SimpleNamespace(
                log_probs=per_token, entropy=other, mean_logits=other, is_top1=other.bool()
            )

    class Trainer:
        accelerator = _Passive()
        aux_loss_enabled = use_weighting = False
        ld_alpha = None
        precompute_ref_logps = True
        f_divergence_type = "reverse_kl"
        loss_types, loss_weights = ("sigmoid",), (1.0,)
        beta, label_smoothing = 0.2, 0.0
        model = Model()

        def __init__(self) -> None:
            self._metrics: Any = {"train": defaultdict(list)}

        _total_train_tokens, _tp_size = 0, 1

    inputs = {
        "input_ids": torch.ones(8, 7, dtype=torch.long),
        "attention_mask": torch.ones(8, 7, dtype=torch.long),
        "completion_mask": mask.long(),
        "ref_chosen_logps": references[:4],
        "ref_rejected_logps": references[4:],
    }
    theirs = trl.DPOTrainer._compute_loss(Trainer(), Trainer.model, inputs, False)
    summed = torch.where(mask[:, 1:], logprobs, 0.0).sum(1)
    ours = preference_loss(summed[:4], summed[4:], references[:4], references[4:], beta=0.2)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    gradients = [
        torch.autograd.grad(loss, logprobs, retain_graph=True)[0] for loss in (ours, theirs)
    ]
    assert gradients[0].abs().max() > 0.01
    assert torch.allclose(*gradients, atol=1e-6)
    apart = float((gradients[0] - gradients[1]).abs().max())
    print(f"DPO: losses apart by {abs(ours.item() - theirs.item()):.1e}, gradients by {apart:.1e}")
