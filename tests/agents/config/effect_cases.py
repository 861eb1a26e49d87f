"""Another value of every setting, and settings beside which it acts or does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from maporl_agents.config import CONFIGS, RunConfig, scheme_of
from maporl_agents.config.conditions import OPTIMISERS
from maporl_agents.config.effects import leaves

from .effect_values import HOW

BESIDE: dict[str, dict[str, Any]] = {
    "game.accept": {"game.tries": 2},
    "game.feedback_verifier": {"game.reward_feedback": True},
    "team.start_from": {"team.tuning": "lora"},
    "team.critic": {"team.tuning": "lora"},
    "team.device_map": {"team.tuning": "lora"},
    "team.quantization": {"team.tuning": "lora"},
    "team.double_quant": {"team.tuning": "lora", "team.quantization": "nf4"},
    "team.shard_base": {"team.tuning": "lora"},
    "sampling.engine": {"sampling.url": ("http://127.0.0.1:1",), "team.tuning": "lora"},
    "magrpo.clip_coef": {"magrpo.ratio": True, "magrpo.epochs": 2},
    "magrpo.epochs": {"magrpo.ratio": True},
    "magrpo.minibatches": {"magrpo.ratio": True},
}
"""Without which the settings themselves refuse a value."""
SERVED = {
    "team.tuning": "lora",
    "sampling.url": ("http://127.0.0.1:2",),
    "sampling.engine": "vllm",
}
ONE_TURN = {"game.num_turns": 1}
TWO = {"game.num_turns": 2}
UNREAD = {"game.history": "none"}
LAST_ALONE = {"team.train_turns": "3"}
FIRST_ALONE = {"team.train_turns": "1"}
SINGLE = {"single_agent": True}
LONE = {"game.num_agents": 1}
NO_KL = {"magrpo.kl_coef": 0.0, "iac.kl_coef": 0.0, "grpo.kl_coef": 0.0}
SOME_KL = {"magrpo.kl_coef": 0.1, "iac.kl_coef": 0.1, "grpo.kl_coef": 0.1}
SEARCH = {"game.tools": ("search:texts",)}
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
    "game.tools": ([{"game.env": "games.py:make"}], {}),
    **dict.fromkeys(("game.tool_calls", "game.tool_chars", "sampling.tool_tokens"), ([{}], SEARCH)),
    "game.tool_seconds": ([{}, SEARCH], {"game.tools": ("python",)}),
    "game.tool_results": ([{}, SEARCH | LONE, SEARCH | ONE_TURN], SEARCH | TWO),
    "game.show_parts": ([ONE_TURN, TWO | LONE, TWO | UNREAD], TWO),
    "game.feedback": ([ONE_TURN, TWO | UNREAD], TWO),
    "team.sharing": (
        [{"team.tuning": "none"}, LONE, {"team.train_agents": (1,)}],
        {"team.tuning": "lora"},
    ),
    "team.gradient_checkpointing": ([{"team.tuning": "none"}], {}),
    "team.device": (
        [{"team.tuning": "lora", "team.device_map": "auto"}, {"team.devices": ("cpu", "cpu")}],
        {},
    ),
    "team.lora_rank": (
        [{}, {"team.tuning": "lora", "team.start_from": ("x",)}],
        {"team.tuning": "lora"},
    ),
    "team.lora_alpha": ([{}], {"team.tuning": "lora"}),
    "sampling.max_new_tokens": (
        [{"sampling.agent_max_new_tokens": (5,)}, {"sampling.turn_max_new_tokens": (5,)}],
        {},
    ),
    **dict.fromkeys(
        (
            *("warmup.transcripts", "warmup.preferences"),
            *("warmup.batch_size", "warmup.learning_rate"),
        ),
        ([{}], {"warmup.steps": 2}),
    ),
    **{
        f"self_play.{name}": ([{}], {"self_play.game": "takeaway"})
        for name in ("turns", "every", "pool", "elo_gain", "gamma", "games_measured")
    },
    "self_play.opponents": (
        [{}, {"self_play.game": "takeaway", "steps": 10}],
        {"self_play.game": "takeaway"},
    ),
    "warmup.questions": (
        [
            *({}, {"warmup.steps": 2, "warmup.transcripts": "file.jsonl"}),
            {"warmup.steps": 2, "warmup.preferences": "pairs.jsonl"},
        ],
        {"warmup.steps": 2},
    ),
    "warmup.preference_beta": (
        [{}, {"warmup.steps": 2}],
        {"warmup.steps": 2, "warmup.preferences": "pairs.jsonl"},
    ),
    **dict.fromkeys(
        (
            *("sampling.url", "sampling.adapters", "sampling.lag", "sampling.mismatch"),
            *("sampling.request_seconds", "sampling.retries"),
        ),
        ([{}], SERVED),
    ),
    "sampling.cache_gb": ([SERVED], {}),
    "sampling.turn_max_new_tokens": ([ONE_TURN], {"game.num_turns": 2}),
    "eval.every": ([{"eval.use": "last"}, {"steps": 3}], {}),
    "eval.patience": ([{"eval.use": "last"}, {"checkpoint_every": 999}], {}),
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
            "grpo.length",
        )
    },
    **{
        f"{group}.{name}": ([NO_KL], SOME_KL)
        for group in ("magrpo", "iac", "grpo")
        for name in ("kl_estimator", "kl_place")
    },
    "grpo.groups": ([ONE_TURN | LONE, {"grpo.variant": "rae"}, {"grpo.variant": "remax"}], TWO),
    **{
        f"grpo.{name}": ([{"grpo.minibatches": 1}], {"grpo.epochs": 2})
        for name in ("clip_coef", "clip_high")
    },
    "grpo.minibatches": (
        [
            {
                "questions_per_step": 1,
                "grpo.group_size": 1,
                "grpo.baseline": "none",
                "grpo.scale": "none",
            }
        ],
        {"questions_per_step": 1},
    ),
    "grpo.role_decay": ([{}], {"grpo.variant": "rae"}),
    "magrpo.joining": ([LONE], {}),
    "magrpo.credit": ([LONE], {}),
    "magrpo.ratio": ([{}], {"magrpo.epochs": 2}),
    "magrpo.preference_beta": ([{}], {"magrpo.comparison": "preferences"}),
    **dict.fromkeys(
        ("mlpo.contexts", "mlpo.pool_size", "mlpo.pool", "mlpo.drop_from"),
        ([LONE], {"game.num_agents": 3}),
    ),
    "mlpo.backtracking": (
        [
            *({}, {"warmup.steps": 2, "warmup.transcripts": "file.jsonl"}),
            {"warmup.steps": 2, "warmup.preferences": "pairs.jsonl"},
        ],
        {"warmup.steps": 2},
    ),
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
}
"""Per setting of `WHERE`: settings beside which it does nothing, and some beside which it acts."""
OTHERWISE = [
    # In one turn, too, as messages of the same turn are read.
    *((scheme, "game.token_budget") for scheme in ("malt", "mlpo", "sweet_rl")),
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


def kept_but(scheme: str, name: str, beside: Mapping[str, Any]) -> RunConfig:
    """Return the settings beside one, which are not what is judged."""
    here = {n: v for n, v in beside.items() if scheme == "maporl" or n != "single_agent"}
    needed = BESIDE.get(name, {})
    made: RunConfig = put(CONFIGS[scheme](), {**needed, **here})
    return made
