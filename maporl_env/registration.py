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
    if PETTINGZOO_ID not in pettingzoo.aec_registry:
        pettingzoo.register("aec", PETTINGZOO_ID, "maporl_env.debate_v0:env")
    if PETTINGZOO_ID not in pettingzoo.parallel_registry:
        pettingzoo.register("parallel", PETTINGZOO_ID, "maporl_env.debate_v0:parallel_env")
    if GYMNASIUM_ID not in gymnasium.registry:
        gymnasium.register(
            id=GYMNASIUM_ID,
            entry_point="maporl_env.bridges.single_agent:SingleAgentDebate",
            vector_entry_point="maporl_env.bridges.vector:VectorDebate",
            disable_env_checker=False,
        )
    if TOKEN_ID not in gymnasium.registry:
        gymnasium.register(id=TOKEN_ID, entry_point="maporl_env.bridges.tokens:TokenDebate")
    if GAME_ID not in pettingzoo.aec_registry:
        pettingzoo.register("aec", GAME_ID, "maporl_env.collaboration_v0:env")
    if GAME_ID not in pettingzoo.parallel_registry:
        pettingzoo.register("parallel", GAME_ID, "maporl_env.collaboration_v0:parallel_env")
    if LONE_GAME_ID not in gymnasium.registry:
        gymnasium.register(
            id=LONE_GAME_ID, entry_point="maporl_env.bridges.collaboration:LoneCollaboration"
        )
