"""Entries in the registries of PettingZoo and Gymnasium, made once."""

from __future__ import annotations

import gymnasium
import pettingzoo

PETTINGZOO_ID = "maporl/debate-v0"
GYMNASIUM_ID = "maporl/Debate-v0"
TOKEN_ID = "maporl/TokenDebate-v0"
GAME_ID = "maporl/collaboration-v0"
TAKEAWAY_ID = "maporl/takeaway-v0"
BOXES_ID = "maporl/boxes-v0"
LONE_GAME_ID = "maporl/Collaboration-v0"


def register_all() -> None:
    """Register every environment that is not registered yet.

    PettingZoo has registries from 1.27 on; with an older one its environments are made by `env` and
    `parallel_env` of their modules.
    """
    if hasattr(pettingzoo, "register"):
        _register_in_pettingzoo("aec", PETTINGZOO_ID, "debate_v0:env")
        _register_in_pettingzoo("parallel", PETTINGZOO_ID, "debate_v0:parallel_env")
        _register_in_pettingzoo("aec", GAME_ID, "collaboration_v0:env")
        _register_in_pettingzoo("parallel", GAME_ID, "collaboration_v0:parallel_env")
        _register_in_pettingzoo("aec", TAKEAWAY_ID, "takeaway_v0:env")
        _register_in_pettingzoo("parallel", BOXES_ID, "games.boxes_v0:parallel_env")
    vector = "maporl_env.bridges.vector:VectorDebate"
    _register_in_gymnasium(GYMNASIUM_ID, "single_agent:SingleAgentDebate", vector)
    _register_in_gymnasium(TOKEN_ID, "tokens:TokenDebate")
    _register_in_gymnasium(LONE_GAME_ID, "collaboration:LoneCollaboration")


def _register_in_pettingzoo(api: str, name: str, maker: str) -> None:
    if name not in getattr(pettingzoo, f"{api}_registry"):
        pettingzoo.register(api, name, f"maporl_env.{maker}")


def _register_in_gymnasium(name: str, bridge: str, vector: str | None = None) -> None:
    if name not in gymnasium.registry:
        gymnasium.register(
            id=name, entry_point=f"maporl_env.bridges.{bridge}", vector_entry_point=vector
        )
