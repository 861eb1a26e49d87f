"""SmolLM2 in 4 and 8 bits on the CPU: what rounding costs, in nats and in time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from maporl_agents.config import Sampling, TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import sample

pytest.importorskip("bitsandbytes", reason="the extra 'quant' is not installed")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1800)]

ENGLISH = (
    "The sun rises in the east and sets in the west. Water boils at one hundred degrees, and "
    "freezes at zero. A week has seven days, a year has twelve months. Three and four are seven."
)
MOST_LOST = {"nf4": 0.20, "int8": 0.05}
"""Nats per token of English by which a rounded model may be worse (seen: docs/how-to/models.md)."""
LEAST_ALIKE = {"nf4": 0.55, "int8": 0.90}
"""Share of places where the most probable next token is that of the model in float32."""


def team_of(quantization: str) -> Team:
    config = TeamConfig(
        model=("smollm2-135m",),
        tuning="lora",
        device="cpu",
        quantization=quantization,  # type: ignore[arg-type]
    )
    return make_team(config, num_agents=1, num_turns=1, seed=0)


def of_text(logprobs: torch.Tensor, ids: torch.Tensor) -> float:
    """Return the mean log-probability of a text's ids but the first, (S, V) after each of S."""
    return logprobs[:-1].gather(-1, ids[1:, None]).mean().item()


@torch.no_grad()
def read(team: Team) -> tuple[float, torch.Tensor]:
    """Return the mean log-probability of the English text, and the likeliest id at each place."""
    base = team.bases[0]
    ids = torch.tensor(base.chat.encode(ENGLISH))
    logprobs = base.plain_logits(ids, "agent_0").log_softmax(-1)
    return of_text(logprobs, ids), logprobs.argmax(-1)


def tokens_per_second(team: Team, rows: int = 16) -> float:
    """Return tokens of decoding per processor second, of greedy messages of equal length."""
    chat = team.bases[0].chat
    prompts = [tuple(chat.encode(f"{n}. The sun rises in the")) for n in range(rows)]
    taken = []
    for count in (2, 18):
        sampling = Sampling(max_new_tokens=count, temperature=0)
        start = time.process_time()
        written = sample(team, prompts, ["agent_0"] * rows, sampling, seed=0)
        taken.append((sum(len(one.ids) for one in written), time.process_time() - start))
    (few, first), (many, second) = taken
    return (many - few) / (second - first)


@pytest.fixture(scope="module")
def plain(smollm2: Path) -> tuple[float, torch.Tensor]:
    team = team_of("none")
    print(f"none: {tokens_per_second(team):.0f} tokens per CPU-s")
    return read(team)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_rounding_costs_little(kind: str, plain: tuple[float, torch.Tensor]) -> None:
    team = team_of(kind)
    found, likeliest = read(team)
    expected, theirs = plain
    alike = (likeliest == theirs).float().mean().item()
    speed = tokens_per_second(team)
    print(
        f"{kind}: {found:.3f} nats per token (float32 {expected:.3f}), likeliest alike "
        f"{alike:.2f}, {speed:.0f} tokens per CPU-s"
    )
    assert found != expected, "nothing was rounded"
    assert expected - found < MOST_LOST[kind]
    assert alike >= LEAST_ALIKE[kind]
