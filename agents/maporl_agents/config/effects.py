"""Which settings act in which run, so that one that would do nothing is refused.

Some fields are `NEVER` read by a scheme, others act only `WHERE` other settings let them; the rest
always do, as `tests/agents/config/test_effects.py` lists: a new field has to be placed. A setting
at its scheme's default is never refused. What a field does stands under it in `config`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from maporl_agents.config import RunConfig, scheme_of

ROUND_OF_MALT = 3
"""Stages of a round; each is a step."""


@dataclass(frozen=True, slots=True)
class Where:
    """The condition under which a setting acts.

    Attributes:
        holds: whether the settings of a run let it act.
        why_not: completes "would do nothing: ...".
    """

    holds: Callable[[Any], bool]
    why_not: str


def turns_in_training(config: Any) -> int:
    """Return how many turns a debate has in training."""
    return 1 if getattr(config, "single_agent", False) else int(config.game.num_turns)


def several_updates(settings: Any) -> bool:
    """Whether a batch is updated on more than once, so that ratios leave 1."""
    return bool(settings.epochs * settings.minibatches > 1)


def learns_from_pairs(config: Any) -> bool:
    """Whether a role of MALT has siblings to prefer one of."""
    malt = config.malt
    return malt.branching > 1 and any(role in malt.roles for role in malt.prefer)


def majority_counts(config: Any) -> bool:
    """Whether a majority can change between two turns of training."""
    game = config.game
    return turns_in_training(config) > 1 and (game.num_agents > 1 or game.majority == "all")


LATER_TURNS = Where(
    lambda c: c.game.num_turns > 1, "it is about turns after the first, and game.num_turns is 1"
)
BONUS = Where(
    majority_counts,
    "it pays for what changes between turns beside a majority, and training plays one turn (see "
    "game.num_turns and single_agent) or one agent",
)
ONE_UPDATE = "there is one update per batch, at ratio 1: set epochs or minibatches above 1"
NO_VALUE_LOSS = "critic_coef is 0, so critics learn nothing"
MORE_THAN_AGENTS = "it has more entries than there are agents (game.num_agents)"
NO_PAIRS = "no role learns from pairs: see malt.prefer, malt.roles and malt.branching"


def critics_learn(config: RunConfig) -> bool:
    """Return whether the critics of a run are trained."""
    group = getattr(config, "ppo", getattr(config, "iac", None))
    return group is None or group.critic_coef > 0


def falling(group: str) -> Where:
    """Return the condition of `schedule` of a group."""
    return Where(
        lambda config: (
            group_of(config, group).final_fraction < 1
            or group_of(config, group).schedule == "constant"
        ),
        f"{group}.final_fraction=1 stays at the peak",
    )


def fading(group: str) -> Where:
    """Return the condition of `final_fraction` of a group."""
    return Where(
        lambda config: group_of(config, group).schedule != "constant",
        f"{group}.schedule='constant' stays at the peak",
    )


AT_ONCE = ("debate", "joint", "self_correction")
"""Protocols in which no agent reads a message of the same turn."""
OPTIMISERS = ("ppo", "magrpo", "iac", "malt.imitation", "malt.preference")
"""Groups of settings that are an `OptimizerConfig`."""

WHERE = {
    "single_agent": Where(
        lambda c: c.game.num_turns > 1, "a debate of one turn (game.num_turns) is alone already"
    ),
    # --- The game ---
    "game.history": LATER_TURNS,
    "game.token_budget": Where(
        lambda c: c.game.num_turns > 1 or c.game.protocol not in AT_ONCE,
        "the question is never dropped, and with game.num_turns=1 agents read nothing else",
    ),
    "game.reward_feedback": LATER_TURNS,
    "game.feedback_verifier": Where(
        lambda c: c.game.reward_feedback and c.game.num_turns > 1,
        "no scores are shown: set game.reward_feedback, and game.num_turns above 1",
    ),
    "game.stop": LATER_TURNS,
    "game.gamma": Where(
        lambda c: c.game.horizon == "discounted" and turns_in_training(c) > 1,
        "only game.horizon='discounted' discounts, and only where training plays several turns "
        "(see game.num_turns and single_agent)",
    ),
    "game.horizon": Where(
        lambda c: turns_in_training(c) > 1 or (c.game.share == "team" and c.game.num_agents > 1),
        "training plays one turn (see game.num_turns and single_agent), and pays each agent its "
        "own score",
    ),
    "game.share": Where(
        lambda c: (
            c.game.num_agents > 1 and (turns_in_training(c) > 1 or c.game.horizon != "discounted")
        ),
        "there are no scores of others to share: see game.num_agents, game.num_turns, single_agent",
    ),
    "game.alpha": BONUS,
    "game.beta": BONUS,
    "game.majority": Where(
        lambda c: any((*c.game.alpha, *c.game.beta)) and turns_in_training(c) > 1,
        "only game.alpha and game.beta look at a majority, between turns, and they are off",
    ),
    "game.penalties.min_words": Where(
        lambda c: c.game.penalties.too_short > 0, "game.penalties.too_short is 0"
    ),
    **dict.fromkeys(
        ("game.penalties.max_repeats", "game.penalties.ngram"),
        Where(lambda c: c.game.penalties.repetition > 0, "game.penalties.repetition is 0"),
    ),
    "game.show_parts": Where(
        lambda c: c.game.num_turns > 1 and c.game.num_agents > 1,
        "there are parts of others to read from the second turn on: see game.num_turns and "
        "game.num_agents",
    ),
    "game.feedback": LATER_TURNS,
    # --- The team and its messages ---
    "team.sharing": Where(lambda c: c.team.tuning != "none", "team.tuning='none' trains nothing"),
    **dict.fromkeys(("team.critic", "team.critic_width"), Where(critics_learn, NO_VALUE_LOSS)),
    "team.gradient_checkpointing": Where(
        lambda c: c.team.tuning != "none", "team.tuning='none' trains nothing"
    ),
    "team.device": Where(
        lambda c: c.team.device_map != "auto",
        "team.device_map='auto' spreads the model over all devices",
    ),
    **dict.fromkeys(
        ("team.lora_rank", "team.lora_alpha"),
        Where(
            lambda c: c.team.tuning == "lora" and not c.team.start_from,
            "only adapters that are made anew have it: team.tuning='lora', without team.start_from",
        ),
    ),
    "sampling.max_new_tokens": Where(
        lambda c: not c.sampling.agent_max_new_tokens,
        "sampling.agent_max_new_tokens sets the limit of every agent",
    ),
    "sampling.agent_max_new_tokens": Where(
        lambda c: len(c.sampling.agent_max_new_tokens) <= c.game.num_agents, MORE_THAN_AGENTS
    ),
    "sampling.agent_stop": Where(
        lambda c: any(c.sampling.agent_stop) and len(c.sampling.agent_stop) <= c.game.num_agents,
        f"{MORE_THAN_AGENTS}, or holds empty texts only",
    ),
    # --- MAPoRL, MAGRPO, IAC ---
    "ppo.clip_coef": Where(lambda c: several_updates(c.ppo), ONE_UPDATE),
    "ppo.target_kl": Where(lambda c: several_updates(c.ppo), ONE_UPDATE),
    "ppo.value_clip": Where(
        lambda c: several_updates(c.ppo) and c.ppo.critic_coef > 0,
        f"{ONE_UPDATE}, and ppo.critic_coef above 0",
    ),
    "ppo.kl_estimator": Where(lambda c: c.ppo.kl_coef > 0, "ppo.kl_coef is 0"),
    "ppo.kl_gain": Where(lambda c: c.ppo.kl_target is not None, "ppo.kl_target is None"),
    "ppo.critic_learning_rate": Where(lambda c: c.ppo.critic_coef > 0, NO_VALUE_LOSS),
    "iac.critic_learning_rate": Where(lambda c: c.iac.critic_coef > 0, NO_VALUE_LOSS),
    **dict.fromkeys(("magrpo.turn_gamma", "iac.turn_gamma"), LATER_TURNS),
    "magrpo.ratio": Where(lambda c: several_updates(c.magrpo), ONE_UPDATE),
    **dict.fromkeys(
        ("magrpo.joining", "magrpo.credit"),
        Where(lambda c: c.game.num_agents > 1, "one agent (game.num_agents) has nobody to join"),
    ),
    # --- MALT ---
    "malt.thresholds": Where(
        lambda c: (
            (c.malt.examples == "positive" or learns_from_pairs(c))
            and len(c.malt.thresholds) * ROUND_OF_MALT <= c.steps
        ),
        "it has more entries than there are rounds (steps / 3), or nothing that is learnt asks "
        "what is positive (malt.examples, malt.prefer)",
    ),
    "malt.prefer": Where(
        lambda c: (
            set(c.malt.prefer) <= set(c.malt.roles) and (c.malt.branching > 1 or not c.malt.prefer)
        ),
        "it names a role that malt.roles leaves out, or malt.branching is 1, so that there are no "
        "pairs",
    ),
    "malt.beta": Where(learns_from_pairs, NO_PAIRS),
    "malt.labels": Where(learns_from_pairs, NO_PAIRS),
    **{f"{group}.final_fraction": fading(group) for group in OPTIMISERS},
    **{f"{group}.schedule": falling(group) for group in OPTIMISERS},
}
"""By name of the field."""

CREDIT = tuple(
    f"game.{name}"
    for name in ("gamma", "horizon", "share", "alpha", "beta", "majority", "penalties")
)
CRITICS = ("team.critic", "team.critic_width")

JOINT = "is credit of MAPoRL: {0} pays each turn's joint score, and {0}.turn_gamma discounts it"
NO_CRITIC = "is about critics, and {0} has no critic: leave it out"
NEVER: dict[str, dict[str, str]] = {
    "maporl": {},
    "magrpo": dict.fromkeys(CREDIT, JOINT) | dict.fromkeys(CRITICS, NO_CRITIC),
    "iac": dict.fromkeys(CREDIT, JOINT),
    "malt": dict.fromkeys(CREDIT, "is credit of MAPoRL: {0} values a message by what came of it")
    | dict.fromkeys(
        ("game.history", "game.reward_feedback", "game.feedback_verifier", "game.stop"),
        "is about turns after the first, and {0} plays one",
    )
    | dict.fromkeys(CRITICS, NO_CRITIC),
}
"""By scheme and name of a field, or group of fields; completes a sentence that begins with it."""


def refuse_without_effect(config: RunConfig, kept: RunConfig | None = None) -> None:
    """Refuse settings that would change nothing.

    Args:
        config: of the run.
        kept: settings that are as in these are not looked at: those of a run that goes on; None
            for the defaults of the scheme.

    Raises:
        ValueError: names the first such setting, the scheme, and what it needs to act.
    """
    scheme = scheme_of(config)
    if scheme not in NEVER:  # one's own, which knows its settings itself
        return
    usual = dict(leaves(type(config)() if kept is None else kept))
    _refuse_no_training(config, usual)
    for name, value in leaves(config):
        if name in usual and value == usual[name]:
            continue
        if why := why_never(scheme, name):
            raise ValueError(f"{name} {why}")
        if why := why_idle(config, name):
            raise ValueError(f"{name}={value!r} would do nothing in this run of {scheme}: {why}")


def _refuse_no_training(config: RunConfig, usual: dict[str, Any]) -> None:
    """Refuse a run that trains no weights."""
    if config.team.tuning == "none" and usual["team.tuning"] != "none":
        raise ValueError(
            "team.tuning='none' trains no weights, so the run would learn nothing: choose full or "
            "lora (`maporl eval --model` measures models that are not trained)"
        )


def why_never(scheme: str, name: str) -> str | None:
    """Return why a scheme never reads a setting; None if it may."""
    for field, why in NEVER.get(scheme, {}).items():
        if f"{name}.".startswith(f"{field}."):
            return why.format(scheme)
    return None


def why_idle(config: RunConfig, name: str) -> str | None:
    """Return why a setting does nothing beside the others of a run; None if it acts."""
    if name.startswith("malt.preference.") and not learns_from_pairs(config):
        return NO_PAIRS
    where = WHERE.get(name)
    return None if where is None or where.holds(config) else where.why_not


def leaves(settings: Any, group: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting that is no group as (dotted name, value)."""
    for field in fields(settings):
        name, value = (
            f"{group}.{field.name}" if group else field.name,
            getattr(settings, field.name),
        )
        if is_dataclass(value):
            yield from leaves(value, name)
        else:
            yield name, value


def group_of(config: Any, group: str) -> Any:
    """Return a group of settings by its dotted name."""
    for name in group.split("."):
        config = getattr(config, name)
    return config
