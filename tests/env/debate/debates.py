"""Questions and options that the tests of `debate_v0` share."""

from __future__ import annotations

from typing import Any

from maporl_env import debate_v0
from maporl_env.types import Question

from ..official import Converted

FEW = [Question(f"few/{n}", f"What is {n} + {n}?", str(2 * n)) for n in range(20)]
GOLD = Question("gold", "What is the secret?", "918273645")
UNAVOIDABLE = {
    "Observation space for each agent probably should be gymnasium.spaces.box or "
    "gymnasium.spaces.discrete",
    "Action space for each agent probably should be gymnasium.spaces.box or "
    "gymnasium.spaces.discrete",
    "Observation is not a NumPy array",
}
TOLD = [
    Question(f"told/{n}", "What is the sum?", str(n + 9), private=(str(n), "4", ""), hidden="4 + 5")
    for n in range(8)
]
"""Questions that tell two of three agents something."""
SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_agents": 1, "num_turns": 1},
    {"num_agents": 4, "num_turns": 2, "stop": "consensus", "reward_mode": "score"},
    {"alpha": (1, 2), "beta": (0.5, 1), "reward_feedback": True, "history": "last"},
    {"protocol": "joint", "num_agents": 2},
    {"task": TOLD},
]
CONVERTED = Converted(debate_v0)
SEQUENTIAL: list[dict[str, Any]] = [
    {"protocol": "sequential"},
    {"protocol": "pipeline"},
    {"protocol": "pipeline", "task": TOLD},
    {"protocol": "leader", "task": TOLD},
    {"protocol": "dialogue", "num_agents": 2},
    {"protocol": "teams_and_judge", "task": TOLD},
    {"protocol": "review", "num_agents": 4, "num_turns": 1},
    {"protocol": "retrieve", "num_agents": 4, "num_turns": 1},
    {"protocol": "lessons", "task": TOLD},
]
