"""Tests of the old import paths of the agents: each leads to the module that has moved."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("loading", "make_team"),
        ("loading", "load_tokenizer"),
        ("sampler", "sample"),
        ("service_queue", "ScoreQueue"),
        ("runlog", "RunLog"),
        ("rollout", "play"),
        ("team", "Team"),
        ("bases", "FullBase"),
        ("lora", "LoraBase"),
        ("ranks", "together"),
        ("chat", "Chat"),
        ("experiment", "run"),
        ("learner", "PolicyLearner"),
        ("checkpoint", "save"),
    ],
)
def test_names_of_an_old_path(old: str, name: str) -> None:
    sys.modules.pop(f"maporl_agents.{old}", None)
    with pytest.warns(DeprecationWarning, match="has moved to"):
        module = importlib.import_module(f"maporl_agents.{old}")
    assert hasattr(module, name)
