"""The page of the scheme: it names every option and only functions that exist."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields
from pathlib import Path

import pytest

from maporl_agents.config import GameConfig, PPOConfig, Sampling, TeamConfig, TrainConfig

PAGE = (Path(__file__).parents[3] / "docs" / "explanation" / "schemes" / "maporl.md").read_text(
    encoding="utf-8"
)


@pytest.mark.parametrize("config", [GameConfig, TeamConfig, PPOConfig, Sampling, TrainConfig])
def test_every_option_is_on_the_page(config: type) -> None:
    groups = {"game", "team", "sampling", "ppo", "eval"}
    names = {field.name for field in fields(config)} - groups
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []


def test_every_function_of_the_table_exists() -> None:
    rows = PAGE.split("## From equation to function")[1].split("##")[0].splitlines()
    named = [name for row in rows if row.count("|") >= 4 for name in re.findall(r"`([\w.]+)", row)]
    dotted = [name for name in named if "." in name]
    assert len(dotted) >= 15
    for name in dotted:
        path = name if name.startswith("maporl_") else f"maporl_agents.{name}"
        parts = path.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            try:
                found: object = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            for part in parts[cut:]:
                found = getattr(found, part)
            assert callable(found), name
            break
        else:
            pytest.fail(name)
