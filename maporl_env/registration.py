"""Entries in the registries of PettingZoo and Gymnasium, made once."""

from __future__ import annotations

import gymnasium
import pettingzoo

PETTINGZOO_ID = "maporl/debate-v0"
GYMNASIUM_ID = "maporl/Debate-v0"
TOKEN_ID = "maporl/TokenDebate-v0"
GAME_ID = "maporl/collaboration-v0"
LONE_GAME_ID = "maporl/Collaboration-v0"


def register_all() -> None:
    """Register every environment that is not registered yet."""
    for name, module in ((PETTINGZOO_ID, "debate_v0"), (GAME_ID, "collaboration_v0")):
        if name not in pettingzoo.aec_registry:
            pettingzoo.register("aec", name, f"maporl_env.{module}:env")
        if name not in pettingzoo.parallel_registry:
            pettingzoo.register("parallel", name, f"maporl_env.{module}:parallel_env")
    vector = "maporl_env.bridges.vector:VectorDebate"
    _register_in_gymnasium(GYMNASIUM_ID, "single_agent:SingleAgentDebate", vector)
    _register_in_gymnasium(TOKEN_ID, "tokens:TokenDebate")
    _register_in_gymnasium(LONE_GAME_ID, "collaboration:LoneCollaboration")


def _register_in_gymnasium(name: str, bridge: str, vector: str | None = None) -> None:
    if name not in gymnasium.registry:
        gymnasium.register(
            id=name, entry_point=f"maporl_env.bridges.{bridge}", vector_entry_point=vector
        )
