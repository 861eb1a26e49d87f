"""The coefficient of the KL penalty, adapted from step to step."""

from __future__ import annotations

MAX_KL_ERROR = 0.2
"""Bound of the relative error in the rule of the adaptive KL coefficient (Ziegler et al.)."""


def adapted_kl_coef(kl_coef: float, kl: float, *, target: float, gain: float) -> float:
    """Return the KL coefficient for the next step, higher if the KL is above its target.

    Ziegler et al., arXiv 1909.08593, section 2.2:

        error = clip((kl - target) / target, -0.2, 0.2)
        coef  = coef * (1 + gain * error)
    """
    error = max(-MAX_KL_ERROR, min(MAX_KL_ERROR, kl / target - 1))
    return kl_coef * (1 + gain * error)
