"""Every setting of every scheme changes something, or is refused in a sentence that names it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import maporl_agents
from maporl_agents.config import CONFIGS, MALTConfig, RunConfig, TrainConfig, scheme_of
from maporl_agents.config.conditions import OPTIMISERS, WHERE
from maporl_agents.config.effects import leaves, refuse_without_effect, why_never
from maporl_agents.config.run_facts import KEYED
from maporl_agents.recipes import names, recipe
from maporl_agents.studies.catalogue import STUDIES
from maporl_agents.training import experiment
from maporl_env.tasks import BUILT_IN, load_task

OPTIMISER = {
    "learning_rate": (0.5, "rate of the policies"),
    "warmup_steps": (1, "first rates"),
    "schedule": ("cosine", "way down"),
    "adam_betas": ((0.5, 0.9), "memory of AdamW"),
    "adam_eps": (1e-6, "below AdamW's division"),
    "max_grad_norm": (2.0, "gradient clip"),
    "micro_tokens": (3, "memory"),
    "epochs": (2, "passes"),
    "minibatches": (2, "updates per pass"),
    "batch_size": (3, "messages per update"),
    "critic_coef": (0.3, "weight of the value loss"),
    "critic_learning_rate": (0.1, "rate of the critics"),
    "length": ("token", "reduction of the loss"),
    "final_fraction": (0.5, "rate at the end"),
}
"""(another value, what it changes), of the groups that are optimisers."""
HOW = {
    "name": ("other", "folder of the run"),
    "seed": (5, "every random stream"),
    "steps": (30, "length of the run"),
    "questions_per_step": (7, "size of a batch"),
    "checkpoint_every": (7, "when it is saved"),
    "single_agent": (True, "training of one turn"),
    "game.task": ("gsm8k", "the questions"),
    "game.data": ("folder", "where they come from"),
    "game.train_split": ("rl", "which are trained on"),
    "game.long_questions": ("leave_out", "which questions are asked"),
    "game.num_agents": (4, "who plays"),
    "game.num_turns": (2, "how long"),
    "game.protocol": ("sequential", "who reads what"),
    "game.protocol_options": (("rounds=2",), "one's own protocol"),
    "game.history": ("last", "turns that are read"),
    "game.token_budget": (99, "turns that are read"),
    "game.template": ("words.json", "the words"),
    "game.personas": (("a", "b", "c"), "system texts"),
    "game.verifier": ("noisy_key", "the scores"),
    "game.verifier_timeout": (3.0, "slow scores are faults"),
    "game.gamma": (0.3, "the reward"),
    "game.horizon": ("last", "the reward"),
    "game.share": ("own", "the reward"),
    "game.alpha": ((1.0, 0.0), "the reward"),
    "game.beta": ((0.0, 1.0), "the reward"),
    "game.majority": ("all", "alpha and beta"),
    "game.penalties.too_short": (0.1, "the reward"),
    "game.penalties.min_words": (9, "too_short"),
    "game.penalties.repetition": (0.1, "the reward"),
    "game.penalties.max_repeats": (1, "repetition"),
    "game.penalties.ngram": (2, "repetition"),
    "game.penalties.no_answer": (0.1, "the reward"),
    "game.penalties.unfinished": (0.1, "the reward"),
    "game.reward_feedback": (True, "what is read"),
    "game.feedback_verifier": ("noisy_key", "which scores are read"),
    "game.stop": ("consensus", "when a debate ends"),
    "game.show_parts": (True, "what is read"),
    "game.feedback": ("tests", "what is read"),
    "team.model": (("tiny-sharing",), "who speaks"),
    "team.tuning": ("lora", "which weights move"),
    "team.sharing": ("one", "which weights move"),
    "team.train_turns": ("1", "which weights move"),
    "team.train_agents": ((0,), "which weights move"),
    "team.lora_rank": (4, "size of adapters"),
    "team.lora_alpha": (8, "scale of adapters"),
    "team.start_from": (("folder",), "where policies begin"),
    "team.critic": ("adapter", "what critics read with"),
    "team.critic_width": (32, "size of critics"),
    "team.gradient_checkpointing": (True, "memory"),
    "team.dtype": ("bfloat16", "rounding"),
    "team.device": ("cpu", "where it runs"),
    "team.device_map": ("auto", "where it runs"),
    "team.attention": ("eager", "kernel"),
    "team.quantization": ("nf4", "rounding"),
    "team.double_quant": (True, "rounding"),
    "sampling.max_new_tokens": (9, "longest message"),
    "sampling.agent_max_new_tokens": ((9, 8), "longest message"),
    "sampling.temperature": (0.5, "what is sampled"),
    "sampling.max_rows": (9, "memory"),
    "sampling.cache_gb": (0.0, "memory"),
    "sampling.stop": (("end",), "where messages end"),
    "sampling.agent_stop": (("end", ""), "where messages end"),
    "eval.questions": (9, "what is measured"),
    "eval.questions_before": (9, "what is measured"),
    "eval.split": ("train", "what is measured"),
    "eval.seed": (3, "noise of measuring"),
    "eval.passes": (2, "what is measured"),
    "ppo.clip_coef": (0.1, "the loss"),
    "ppo.kl_coef": (0.1, "the reward of a token"),
    "ppo.kl_estimator": ("k3", "the reward of a token"),
    "ppo.kl_target": (0.1, "kl_coef, step by step"),
    "ppo.kl_gain": (0.3, "kl_coef, step by step"),
    "ppo.value_clip": (0.2, "value loss"),
    "ppo.entropy_coef": (0.1, "the loss"),
    "ppo.reduction": ("sequence", "the loss"),
    "ppo.reward_scale": (True, "the reward"),
    "ppo.target_kl": (0.1, "updates per step"),
    "ppo.token_gamma": (0.9, "advantages"),
    "ppo.gae_lambda": (0.9, "advantages"),
    "magrpo.group_size": (3, "samples of a node"),
    "magrpo.joining": ("aligned", "joint actions"),
    "magrpo.turn_gamma": (0.9, "returns"),
    "magrpo.comparison": ("raw", "advantages"),
    "magrpo.credit": ("sum", "advantages"),
    "magrpo.ratio": (True, "the loss"),
    "magrpo.clip_coef": (0.2, "the loss"),
    "iac.turn_gamma": (0.9, "targets"),
    "malt.roles": (("generator", "refiner"), "who speaks"),
    "malt.branching": (2, "size of a tree"),
    "malt.thresholds": ((0.4, 0.5), "what is positive"),
    "malt.examples": ("right_paths", "what is imitated"),
    "malt.prefer": (("refiner",), "who learns from pairs"),
    "malt.beta": (0.1, "DPO"),
    "malt.labels": ("soft", "DPO"),
    "malt.trees_per_file": (9, "memory"),
    **{f"{g}.{name}": how for g in OPTIMISERS for name, how in OPTIMISER.items()},
}
"""(another value, what it changes) of every setting."""
BESIDE: dict[str, dict[str, Any]] = {
    "game.feedback_verifier": {"game.reward_feedback": True},
    "team.start_from": {"team.tuning": "lora"},
    "team.critic": {"team.tuning": "lora"},
    "team.device_map": {"team.tuning": "lora"},
    "team.quantization": {"team.tuning": "lora"},
    "team.double_quant": {"team.tuning": "lora", "team.quantization": "nf4"},
    "magrpo.clip_coef": {"magrpo.ratio": True, "magrpo.epochs": 2},
    "magrpo.epochs": {"magrpo.ratio": True},
    "magrpo.minibatches": {"magrpo.ratio": True},
}
"""Without which the settings themselves refuse a value."""
ONE_TURN = {"game.num_turns": 1}
TWO = {"game.num_turns": 2}
UNREAD = {"game.history": "none"}
LAST_ALONE = {"team.train_turns": "3"}
FIRST_ALONE = {"team.train_turns": "1"}
SINGLE = {"single_agent": True}
LONE = {"game.num_agents": 1}
NO_PAIRS = {"malt.prefer": ()}
ONE_UPDATE = {"ppo.minibatches": 1}
NO_CRITICS = {"ppo.critic_coef": 0.0, "iac.critic_coef": 0.0}
LONG = 10_000
"""Steps; longer than any run here."""
IDLE_OR_NOT: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "single_agent": ([ONE_TURN], {}),
    "game.protocol": ([LONE], {}),
    "game.personas": ([], {}),
    "game.history": ([ONE_TURN, TWO], {"game.num_turns": 3}),
    "game.token_budget": ([ONE_TURN, UNREAD], TWO),
    "game.reward_feedback": ([ONE_TURN, UNREAD], TWO),
    "game.feedback_verifier": (
        [
            {"game.reward_feedback": False},
            {"game.reward_feedback": True, "game.verifier": "noisy_key"},
            {"game.reward_feedback": True} | UNREAD,
        ],
        TWO,
    ),
    "game.stop": ([ONE_TURN], TWO),
    "game.gamma": ([ONE_TURN, SINGLE, {"game.horizon": "current"}, LAST_ALONE], TWO),
    "game.horizon": (
        [
            *(ONE_TURN | LONE, SINGLE | LONE, LAST_ALONE | LONE),
            *(beside | {"game.share": "own"} for beside in (ONE_TURN, LAST_ALONE)),
            ONE_TURN | {"game.protocol": "joint"},
        ],
        ONE_TURN,
    ),
    "game.share": (
        [ONE_TURN, LONE, SINGLE, LAST_ALONE, {"game.gamma": 0.0}, {"game.protocol": "joint"}],
        TWO,
    ),
    "game.alpha": ([ONE_TURN, LONE, SINGLE, FIRST_ALONE], LAST_ALONE),
    "game.beta": ([ONE_TURN, LONE, SINGLE, LAST_ALONE], FIRST_ALONE),
    "game.majority": (
        [
            {},
            {"game.alpha": (1.0, 0.0)} | FIRST_ALONE,
            {"game.alpha": (1.0, 0.0)} | SINGLE,
            {"game.beta": (1.0, 0.0)} | LAST_ALONE,
        ],
        {"game.alpha": (1.0, 0.0)},
    ),
    "game.penalties.min_words": ([{}], {"game.penalties.too_short": 0.1}),
    "game.penalties.max_repeats": ([{}], {"game.penalties.repetition": 0.1}),
    "game.penalties.ngram": ([{}], {"game.penalties.repetition": 0.1}),
    "game.show_parts": ([ONE_TURN, TWO | LONE, TWO | UNREAD], TWO),
    "game.feedback": ([ONE_TURN, TWO | UNREAD], TWO),
    "team.sharing": (
        [{"team.tuning": "none"}, LONE, {"team.train_agents": (1,)}],
        {"team.tuning": "lora"},
    ),
    "team.gradient_checkpointing": ([{"team.tuning": "none"}], {}),
    "team.device": ([{"team.tuning": "lora", "team.device_map": "auto"}], {}),
    "team.lora_rank": (
        [{}, {"team.tuning": "lora", "team.start_from": ("x",)}],
        {"team.tuning": "lora"},
    ),
    "team.lora_alpha": ([{}], {"team.tuning": "lora"}),
    "sampling.max_new_tokens": ([{"sampling.agent_max_new_tokens": (5,)}], {}),
    "sampling.agent_max_new_tokens": ([LONE], {}),
    "sampling.agent_stop": ([LONE, {"sampling.stop": ("end",)}], {}),
    "team.critic": ([NO_CRITICS | {"team.tuning": "lora"}], {"team.tuning": "lora"}),
    "team.critic_width": ([NO_CRITICS], {}),
    "ppo.clip_coef": (
        [ONE_UPDATE, {"questions_per_step": 1}],
        {"ppo.minibatches": 1, "ppo.epochs": 2},
    ),
    "ppo.target_kl": ([ONE_UPDATE], {}),
    "ppo.minibatches": ([{"questions_per_step": 1}], {"questions_per_step": 1} | SINGLE | TWO),
    "magrpo.minibatches": ([{"questions_per_step": 1}], {}),
    "ppo.value_clip": ([ONE_UPDATE, {"ppo.critic_coef": 0.0}], {}),
    "ppo.kl_estimator": ([{"ppo.kl_coef": 0.0}], {}),
    "ppo.kl_gain": ([{}], {"ppo.kl_target": 0.1}),
    "ppo.kl_target": ([{"ppo.kl_gain": 0.0}], {}),
    "ppo.critic_learning_rate": ([{"ppo.critic_coef": 0.0}], {}),
    "iac.critic_learning_rate": ([{"iac.critic_coef": 0.0}], {}),
    "iac.turn_gamma": ([ONE_TURN, TWO | {"team.train_turns": "2"}], TWO),
    "magrpo.turn_gamma": ([ONE_TURN, TWO | {"team.train_turns": "2"}], TWO),
    **{
        name: ([{"sampling.max_new_tokens": 1}], {"sampling.agent_max_new_tokens": (1, 2)})
        for name in (
            "ppo.token_gamma",
            "ppo.gae_lambda",
            "ppo.reduction",
            "magrpo.length",
            "iac.length",
        )
    },
    "magrpo.joining": ([LONE], {}),
    "magrpo.credit": ([LONE], {}),
    "magrpo.ratio": ([{}], {"magrpo.epochs": 2}),
    "malt.thresholds": (
        [{"steps": 3}, {"malt.examples": "right_paths", "malt.prefer": ()}],
        {"malt.examples": "right_paths"},
    ),
    "malt.prefer": (
        [{"malt.roles": ("generator",)}, {"malt.branching": 1}, {"team.train_agents": (0, 1)}],
        {"team.train_agents": (2,)},
    ),
    "malt.beta": ([NO_PAIRS, {"malt.branching": 1}, {"team.train_agents": (0,)}], {}),
    "malt.labels": ([NO_PAIRS], {}),
    **{
        f"{group}.final_fraction": (
            [{f"{group}.schedule": "constant"}, {f"{group}.warmup_steps": LONG}],
            {f"{group}.warmup_steps": 4},
        )
        for group in OPTIMISERS
    },
    **{
        f"{group}.schedule": (
            [{f"{group}.final_fraction": 1.0}, {f"{group}.warmup_steps": LONG}],
            {f"{group}.warmup_steps": 4},
        )
        for group in OPTIMISERS
    },
    **{f"{group}.warmup_steps": ([], {}) for group in OPTIMISERS},
}
"""Per setting of `WHERE`: settings beside which it does nothing, and some beside which it acts."""
OTHERWISE = [
    ("malt", "game.token_budget"),  # in one turn, too, as messages of the same turn are read
    ("malt", "game.protocol"),  # any other is refused by the scheme
    *((scheme, "game.protocol") for scheme in ("magrpo", "iac")),
]
"""(scheme, name) whose idle cases are other ones than MAPoRL's."""
FIELDS = [
    (scheme, name)
    for scheme, config in CONFIGS.items()
    for name, _ in leaves(config())
    if scheme_of(config()) == scheme
]


def put(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Return settings with some replaced, by dotted name; those of other schemes are left out."""
    here: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if rest and not hasattr(settings, first):
            continue
        if rest:
            below.setdefault(first, {})[rest] = value
        else:
            here[first] = value
    inner = {name: put(getattr(settings, name), wanted) for name, wanted in below.items()}
    return replace(settings, **here, **inner)


def changed(scheme: str, name: str, beside: Mapping[str, Any]) -> RunConfig:
    value, _ = HOW[name]
    here = {n: v for n, v in beside.items() if scheme == "maporl" or n != "single_agent"}
    made: RunConfig = put(CONFIGS[scheme](), {**BESIDE.get(name, {}), **here, name: value})
    return made


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


def kept_but(scheme: str, name: str, beside: Mapping[str, Any]) -> RunConfig:
    """Return the settings beside one, which are not what is judged."""
    here = {n: v for n, v in beside.items() if scheme == "maporl" or n != "single_agent"}
    needed = BESIDE.get(name, {})
    made: RunConfig = put(CONFIGS[scheme](), {**needed, **here})
    return made


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
        ("ppo.warmup_steps", 51, {}),
        ("ppo.warmup_steps", 7, {"steps": 6}),
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
        {"ppo.warmup_steps": 50},
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


@pytest.mark.parametrize("group", ["imitation", "preference"])
def test_a_warmup_of_malt_ends_with_the_most_that_can_be_learnt(group: str) -> None:
    small = {"questions_per_step": 1, "malt.branching": 2, f"malt.{group}.epochs": 3}
    # 8 leaves in 1 tree; 4 parents of 1 pair each; 3 roles; 8 rows to an update; 3 passes
    most = {"imitation": 9, "preference": 6}[group]
    for steps in (most, most + 1):
        config = put(MALTConfig(), small | {f"malt.{group}.warmup_steps": steps})
        if steps == most:
            refuse_without_effect(config)
        else:
            with pytest.raises(ValueError, match=rf"malt\.{group}\.warmup_steps=.* not come to an"):
                refuse_without_effect(config)


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


READ_IN_CONFIG = {"agent_max_new_tokens", "agent_stop", "stop", "max_new_tokens"}
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
    for study in STUDIES.values():
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
