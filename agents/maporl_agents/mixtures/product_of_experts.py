"""A product of experts: one next-token distribution from those of several policies.

    p(x) proportional to (product over policies k of p_k(x)^w_k)^(1 / temperature)

(Hinton 2002, "Training products of experts by minimizing contrastive divergence".) A token that
one expert rules out is ruled out, however likely the others find it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maporl_agents.config import Sampling
from maporl_agents.mixtures.joint_decoding import Choice, drafts_of, write_together
from maporl_agents.models.team import Team
from maporl_agents.models.uniforms import draw, uniforms
from maporl_agents.types import Completion, Request


@dataclass(frozen=True)
class ProductOfExperts:
    """An engine for `play.speak`: each message is written by all experts together.

    Attributes:
        policies: names of K policies with one vocabulary.
        weights: K exponents above 0; () for 1 / K each, the geometric mean.

    Raises:
        ValueError: no policy, or weights that are not as many or not above 0.
    """

    policies: tuple[str, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.policies:
            raise ValueError("a product of experts needs at least one policy")
        if self.weights and len(self.weights) != len(self.policies):
            raise ValueError(
                f"{len(self.policies)} experts need as many weights, not {len(self.weights)}"
            )
        if not all(math.isfinite(weight) and weight > 0 for weight in self.weights):
            raise ValueError(f"weights of experts must be above 0, not {self.weights}")

    def __call__(
        self, team: Team, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Completion]:
        """Return one completion per request; its log-probabilities are those of the product.

        Raises:
            ValueError: vocabularies that differ, or settings that leave out tokens: the product is
                over the whole vocabulary.
        """
        if sampling.temperature and sampling.truncation:
            raise ValueError(
                "a product of experts is over the whole vocabulary: set sampling top_k 0, top_p 1 "
                "and min_p 0"
            )
        weights = self.weights or (1 / len(self.policies),) * len(self.policies)
        drafts = drafts_of(team, asked, self.policies, sampling, seed)
        streams = [draft.rows[0].stream for draft in drafts]
        longest = max((draft.rows[0].limit for draft in drafts), default=0)
        noise = uniforms(streams, longest)

        def choose(some: Sequence[int], logprobs: Tensor) -> Choice:
            combined = product(logprobs, weights, sampling.temperature or 1.0)
            if sampling.temperature == 0:
                ids = combined.argmax(-1)
            else:
                numbers = [noise[index, len(drafts[index].ids)] for index in some]
                ids = draw(combined, torch.tensor(numbers, device=combined.device))
            return Choice(ids, combined.gather(1, ids[:, None])[:, 0])

        return write_together(team, drafts, choose)


def product(logprobs: Tensor, weights: Sequence[float], temperature: float = 1.0) -> Tensor:
    """Return the log-probabilities of a product of experts, (N, V), from (N, K, V) of its factors.

    Args:
        logprobs: natural log-probabilities of each expert.
        weights: K exponents.
        temperature: divides the exponents, above 0.
    """
    exponents = torch.tensor(weights, dtype=logprobs.dtype, device=logprobs.device) / temperature
    return (logprobs * exponents[:, None]).sum(1).log_softmax(-1)
