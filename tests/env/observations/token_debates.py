"""Options of debates in token ids, and the ids of a text."""

from __future__ import annotations

from typing import Any

from maporl_env import debate_v0
from maporl_env.types import Question

from ..official import Converted

FEW = [Question(f"few/{n}", f"What is {n} + {n}?", str(2 * n)) for n in range(5)]
PINNED = {"question": Question("q", "What is 2 + 2?", "4")}
END = 257
SMALL: dict[str, Any] = {"observation": "tokens", "observation_tokens": 700, "message_tokens": 5}
BOX: dict[str, Any] = {**SMALL, "task": FEW}
WRITING: dict[str, Any] = {**BOX, "action": "token"}
SETTINGS: list[dict[str, Any]] = [
    BOX,
    {**BOX, "obs_dtype": "float32", "num_agents": 2, "stop": "consensus"},
    {**BOX, "num_agents": 1, "num_turns": 1},
    WRITING,
    {**WRITING, "obs_dtype": "float32", "num_agents": 2, "reward_mode": "score"},
    {**WRITING, "num_agents": 1, "num_turns": 1},
]
CONVERTED = Converted(debate_v0)
SEQUENTIAL: list[dict[str, Any]] = [
    {**BOX, "protocol": "sequential"},
    {**WRITING, "protocol": "sequential"},
    {**WRITING, "protocol": "pipeline"},
]


def ids(text: str) -> list[int]:
    """A message as env ids, its end included."""
    return [byte + 1 for byte in text.encode()] + [END]


def read(observation: Any) -> str:
    """The text of an observation, without its padding."""
    return bytes(int(id_) - 1 for id_ in observation if id_).decode(errors="replace")
