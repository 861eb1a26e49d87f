"""The debate of MAPoRL under the name that verifiers looks for."""

from maporl_env.bridges.verifiers import DebateEnv, DebateHarness, DebateTaskset

__all__ = ["DebateEnv", "DebateHarness", "DebateTaskset"]
