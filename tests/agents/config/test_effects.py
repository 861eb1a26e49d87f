"""Every setting of every scheme changes something, or is refused in a sentence that names it."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import maporl_agents
from maporl_agents.config import CONFIGS, MALTConfig, TrainConfig
from maporl_agents.config.conditions import WHERE
from maporl_agents.config.effects import refuse_without_effect, why_never
from maporl_agents.config.run_facts import KEYED
from maporl_agents.recipes import names, recipe
from maporl_agents.studies.catalogue import known
from maporl_agents.training import experiment
from maporl_env.tasks import BUILT_IN, load_task

from .effect_cases import (
    FIELDS,
    IDLE_OR_NOT,
    LAST_ALONE,
    LONE,
    NO_PAIRS,
    ONE_TURN,
    OTHERWISE,
    SINGLE,
    TWO,
    changed,
    kept_but,
    put,
)
from .effect_values import HOW


@pytest.mark.parametrize(("scheme", "name"), FIELDS)
def test_every_setting_acts_or_is_refused(scheme: str, name: str) -> None:
    """By reflection: a new field has to be placed in `HOW`, and where it applies in `effects`."""
    assert name in HOW, f"{name} is new: say what it changes in HOW, and see effects.py"
    if why := why_never(scheme, name):
        with pytest.raises(ValueError, match=re.escape(name)) as refused:
            refuse_without_effect(changed(scheme, name, {}), kept_but(scheme, name, {}))
        assert scheme in str(refused.value)
        assert why in str(refused.value)
        return
    idle, acting = IDLE_OR_NOT[name] if name in WHERE else ([], {})
    if name.startswith("malt.preference."):
        idle = [*idle, NO_PAIRS]
    for beside in idle:
        if (scheme != "maporl" and "single_agent" in beside) or (scheme, name) in OTHERWISE:
            continue
        with pytest.raises(ValueError, match=rf"^{re.escape(name)}=") as refused:
            refuse_without_effect(changed(scheme, name, beside), kept_but(scheme, name, beside))
        assert f"run of {scheme}" in str(refused.value)
    refuse_without_effect(changed(scheme, name, acting))


NO_ADAPTERS = {"team.tuning": "lora", "team.start_from": ("x",)}


@pytest.mark.parametrize(
    ("name", "value", "beside"),
    [
        ("game.protocol", "pipeline", LONE | {"game.personas": ("a",)}),
        ("game.personas", ("", ""), {}),
        ("game.personas", ("", ""), {"game.protocol": "sequential"}),
        ("game.token_budget", 99, ONE_TURN | LONE | {"game.protocol": "sequential"}),
        ("game.feedback_verifier", "key", {"game.reward_feedback": True}),
        ("team.sharing", "turn", ONE_TURN),
        ("team.sharing", "first_turn", ONE_TURN),
        ("team.sharing", "turn", LAST_ALONE),
        ("team.sharing", "first_turn", {"team.train_turns": ">=2"}),
    ],
)
def test_a_setting_that_says_what_is_so_anyway_is_refused(
    name: str, value: Any, beside: dict[str, Any]
) -> None:
    kept = put(TrainConfig(), beside)
    with pytest.raises(ValueError, match=rf"^{re.escape(name)}="):
        refuse_without_effect(put(kept, {name: value}), kept)


@pytest.mark.parametrize(
    "settings",
    [
        {"team.sharing": "turn"} | TWO,
        {"team.sharing": "turn", "team.train_turns": ">=2"},
        {"team.sharing": "turn"} | SINGLE,  # the turns that are not trained alone are others
        {"team.sharing": "one", "team.tuning": "lora", "team.start_from": ("x",)} | LONE,
        {"team.train_agents": (0, 1)},  # all of them, as in the default
        {"team.model": ("tiny", "tiny")},
        {"game.personas": ("", ""), "game.protocol": "joint"},  # instead of the task's
        {"game.personas": ("", "b")},
        {"game.history": "last", "game.protocol": "own.py:Protocol"} | TWO,
        {"game.history": "none"} | TWO,
        {"game.history": "last", "game.reward_feedback": True},
        {"game.majority": "all", "game.alpha": (1.0, 0.0)} | LONE,
        {"game.feedback_verifier": "own:f", "game.verifier": "own:f", "game.reward_feedback": True},
        {"game.share": "own", "game.horizon": "last"},
        {"team.lora_rank": 4, "team.critic": "adapter"} | NO_ADAPTERS,
        {"ppo.warmup_steps": 60},  # longer than the run: lower rates, as in a run cut short
    ],
)
def test_what_differs_or_says_the_default_in_other_words_is_accepted(
    settings: dict[str, Any],
) -> None:
    refuse_without_effect(put(TrainConfig(), settings))


def test_verifier_key_is_that_of_the_keyed_tasks_alone() -> None:
    found = {name for name in ("shopping", "sharing", "coins") if not load_task(name).make_verifier}
    assert found == set(KEYED) & set(BUILT_IN)
    key = {"game.reward_feedback": True, "game.feedback_verifier": "key"}
    refuse_without_effect(put(TrainConfig(), key | {"game.task": "receipts"}))  # paid to agree
    assert load_task("receipts").make_verifier is not None


def test_malt_prefers_among_the_roles_that_are_trained() -> None:
    prefer = {"malt.prefer": ("refiner",)}
    refuse_without_effect(put(MALTConfig(), prefer | {"team.train_agents": (0, 2)}))
    with pytest.raises(ValueError, match=r"^malt\.prefer=.*train_agents does not train"):
        refuse_without_effect(put(MALTConfig(), prefer | {"team.train_agents": (0, 1)}))
    with pytest.raises(ValueError, match=r"^malt\.preference\.epochs="):
        refuse_without_effect(
            put(MALTConfig(), {"malt.preference.epochs": 2, "team.train_agents": (0,)})
        )


def test_the_tables_name_fields_that_exist() -> None:
    known = {name for _, name in FIELDS}
    assert sorted(HOW.keys() & known) == sorted(known)
    assert sorted(WHERE) == sorted(IDLE_OR_NOT)
    assert WHERE.keys() <= known


def test_what_is_said_to_act_is_read_somewhere() -> None:
    """A field that no module but its own asks for is dead."""
    folder = Path(maporl_agents.__file__).parent
    asked = {
        node.attr
        for path in folder.rglob("*.py")
        if path.name not in ("config.py", "effects.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    by_name = {"game", "game.penalties"}  # handed on by their names to the environment's options
    left = {name.rpartition(".")[2] for _, name in FIELDS if name.rpartition(".")[0] not in by_name}
    assert sorted(left - asked - READ_IN_CONFIG) == []


READ_IN_CONFIG = {
    "agent_max_new_tokens",
    "turn_max_new_tokens",
    "agent_stop",
    "stop",
    "max_new_tokens",
}
"""By `Sampling.limit_of` and `stops_of`."""


@pytest.mark.parametrize("scheme", CONFIGS)
def test_a_run_that_trains_no_weights_is_refused(scheme: str) -> None:
    idle = put(CONFIGS[scheme](), {"team.tuning": "none"})
    with pytest.raises(ValueError, match=r"^team\.tuning='none' trains no weights"):
        refuse_without_effect(idle)
    refuse_without_effect(idle, kept=idle)


@pytest.mark.parametrize("scheme", CONFIGS)
def test_defaults_are_never_refused(scheme: str) -> None:
    refuse_without_effect(CONFIGS[scheme]())


@pytest.mark.parametrize("name", names())
def test_shipped_recipes_hold_no_setting_without_effect(name: str) -> None:
    refuse_without_effect(recipe(name))


def test_no_arm_of_a_study_holds_a_setting_without_effect() -> None:
    for study in known().values():
        for arm in study().arms:
            refuse_without_effect(arm.recipe.config)


def test_a_setting_of_an_old_run_stays_and_a_new_one_is_refused() -> None:
    old = put(MALTConfig(), {"game.gamma": 0.3})
    refuse_without_effect(old, old)
    more = replace(old, steps=21)
    refuse_without_effect(more, old)
    with pytest.raises(ValueError, match=r"game\.share is credit of MAPoRL"):
        refuse_without_effect(put(more, {"game.share": "own"}), old)


def test_it_is_refused_before_a_model_is_loaded() -> None:
    def load(*_: Any) -> Any:
        pytest.fail("loaded")

    with pytest.raises(ValueError, match=r"game\.alpha"):
        experiment.build(put(TrainConfig(), SINGLE | {"game.alpha": (1.0, 0.0)}), load)
