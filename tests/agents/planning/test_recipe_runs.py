"""Every recipe plans and runs from end to end, its models replaced by miniatures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import pytest
from rich.console import Console

from maporl_agents import recipes
from maporl_agents.config import PPOConfig, RunConfig, TrainConfig
from maporl_agents.planning.machine import GIB, Machine
from maporl_agents.planning.plan import plan_of
from maporl_agents.recipes import recipe
from maporl_agents.tiny import MODELS
from maporl_agents.training import experiment
from maporl_env.tasks.published import anli

Run = TypeVar("Run", bound=RunConfig)

pytestmark = pytest.mark.thorough  # each builds and runs whole trainings

MACHINE = Machine("a machine", 16 * GIB, 1e12, 1e11, 1e-5, overlaps=False)
ROWS = {
    "gsm8k": {"question": "How much is 2 and 3 ?", "answer": "2 + 3 = 5\n#### 5"},
    "anli": {"premise": "It rains.", "hypothesis": "It is dry.", "label": 2},
}
FAMILIES = {"Phi-3": "phi3", "Qwen2.5": "qwen2", "Llama-3": "llama", "smollm2": "llama"}
"""Of a recipe's model: the miniature of its architecture, which writes in its family's dialect."""
RL_ROW = {"question": "How much is 3 and 3 ?", "answer": "6"}
"""Of TinyGSM, which the paper trains its agents on."""
SLOW = ("phi3-anli", "phi3-llama-gsm8k", "coins", "shopping")
"""Like another recipe in all that a run can stumble over."""
THOROUGH = ("small-gpu", "phi3-qwen-gsm8k")
"""Quantised or of several families: `test_quantize` and `test_team` hold such runs, too."""
MARKS = dict.fromkeys(SLOW, pytest.mark.slow) | dict.fromkeys(THOROUGH, pytest.mark.thorough)


def data(task: str, folder: Path) -> str:
    """Write a few questions in the task's own format; return their folder, "" if it has none."""
    if task not in ROWS:
        return ""
    for split in ("train", "test"):
        lines = 4 * (json.dumps(ROWS[task]) + "\n")
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    if task == "gsm8k":
        lines = 4 * (json.dumps(RL_ROW) + "\n")
        (folder / "tinygsm.jsonl").write_text(lines, encoding="utf-8")
    return str(folder)


def in_miniature(config: Run, folder: Path, models: tuple[str, ...]) -> Run:
    """Return the same settings for models that are not those, two questions and short messages."""
    team = replace(config.team, device="cpu", model=models)
    if team.quantization != "none" and find_spec("bitsandbytes") is None:
        team = replace(team, quantization="none")
    return replace(
        config,
        steps=1,
        questions_per_step=2,
        game=replace(config.game, data=data(config.game.task, folder)),
        team=team,
        sampling=replace(config.sampling, max_new_tokens=6),
        eval=replace(config.eval, questions=2),
    )


@pytest.mark.timeout(600)  # on a machine that others use too
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[MARKS[n]] if n in MARKS else []) for n in recipes.names()],
)
def test_plans_and_runs(
    name: str, native: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anli, "NUM_VERIFIER", 2)
    config = recipe(name)
    built_in = set(config.team.model) <= set(MODELS)
    models = config.team.model
    if not built_in:
        families = [
            family for model in models for name, family in FAMILIES.items() if name in model
        ]
        models = tuple(str(native(family, 64)) for family in families)
    (tmp_path / "data").mkdir()
    config = in_miniature(config, tmp_path / "data", models)

    plan = plan_of(config, MACHINE)
    assert plan.fits
    messages = 2 * config.game.num_agents * config.game.num_turns
    everybody = config.game.protocol in ("debate", "sequential")  # speaks in every turn
    if everybody and isinstance(config, TrainConfig):
        assert plan.new_tokens == messages * 6
    assert plan.new_tokens > 0

    stages: dict[str, Any] = experiment.run(config, tmp_path / "run", Console(quiet=True))
    assert set(stages) == {"before", "after"}
    assert experiment.read_config(tmp_path / "run") == config  # resolved, and a recipe again
    assert recipe(tmp_path / "run" / "config.json") == config


def test_the_checked_settings_are_those_of_the_recipe(tmp_path: Path) -> None:
    """What `in_miniature` changes has nothing to do with how agents learn."""
    config = recipe("phi3-gsm8k")
    assert isinstance(config, TrainConfig)
    small = in_miniature(config, tmp_path, ("a",))
    assert small.ppo == config.ppo != PPOConfig()
    assert small.team.train_turns == ">=2"
