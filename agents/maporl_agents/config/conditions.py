"""The conditions under which settings act, by name: the tables that `effects` goes by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maporl_agents.config.run_facts import (
    AT_ONCE,
    alpha_counts,
    beta_counts,
    critics_learn,
    debates_of_step,
    group_of,
    history_counts,
    later_turns_count,
    learns_from_pairs,
    majority_is_asked,
    most_updates,
    other_scores_are_shown,
    policies_differ,
    prefers_in_vain,
    scores_differ,
    several_tokens,
    several_updates,
    turns_are_read,
)


@dataclass(frozen=True, slots=True)
class Where:
    """The condition under which a setting acts.

    Attributes:
        holds: whether the settings of a run let it act.
        why_not: completes "would do nothing in this run: ...".
    """

    holds: Callable[[Any], bool]
    why_not: str


# --- Conditions of several settings ---------------------------------------------------

ROUND_OF_MALT = 3
"""Stages of a round; each is a step."""
OPTIMISERS = ("ppo", "magrpo", "iac", "grpo", "sweet_rl", "malt.imitation", "malt.preference")
"""Groups of settings that are an `OptimizerConfig`."""

LATER_TURNS = Where(
    lambda c: c.game.num_turns > 1, "it is about turns after the first, and game.num_turns is 1"
)
EARLIER_READ = Where(
    turns_are_read,
    "it is about earlier turns, and agents read none: see game.num_turns and game.history",
)
LATER_REWARDS = Where(
    later_turns_count,
    "it discounts later turns, and no message that is trained has any: see game.num_turns and "
    "team.train_turns",
)
TOOLS = Where(lambda c: bool(c.game.tools), "it is about tools, and game.tools names none")
TOKENS = Where(
    several_tokens, "it is about the tokens of a message, and sampling lets a message have one"
)
BETWEEN_TURNS = (
    "of two for what changes beside a majority, and no such message is trained: see "
    "game.num_turns, game.num_agents, single_agent and team.train_turns"
)
ONE_UPDATE = (
    "there is one update per batch, at ratio 1: set epochs or minibatches (of which there are no "
    "more than questions in a step) above 1"
)
FEW_QUESTIONS = "a step has fewer debates, of which none is divided: see questions_per_step"
NO_VALUE_LOSS = "critic_coef is 0, so critics learn nothing"
MORE_THAN_AGENTS = "it has more entries than there are agents (game.num_agents)"
REGULARISED = ("magrpo", "iac")
NO_PAIRS = (
    "no role learns from pairs: see malt.prefer, malt.roles, malt.branching and team.train_agents"
)


def _with_kl(group: str) -> Where:
    """Return the condition of the settings of the KL of a group."""
    return Where(lambda config: group_of(config, group).kl_coef > 0, f"{group}.kl_coef is 0")


def _falling(group: str) -> Where:
    """Return the condition of `schedule` of a group."""
    return Where(
        lambda config: (
            group_of(config, group).schedule == "constant"
            or (group_of(config, group).final_fraction < 1 and _comes_down(config, group))
        ),
        f"{group}.final_fraction is 1, or the warm-up takes all steps, so that nothing falls",
    )


def _fading(group: str) -> Where:
    """Return the condition of `final_fraction` of a group."""
    return Where(
        lambda config: (
            group_of(config, group).schedule != "constant" and _comes_down(config, group)
        ),
        f"{group}.schedule='constant' stays at the peak, or the warm-up takes all steps",
    )


def _comes_down(config: Any, group: str) -> bool:
    """Whether a step after the warm-up is below the peak: its first one is not."""
    return bool(group_of(config, group).warmup_steps < most_updates(config, group) - 1)


# --- The tables -----------------------------------------------------------------------

WHERE = {
    "single_agent": Where(
        lambda c: c.game.num_turns > 1, "a debate of one turn (game.num_turns) is alone already"
    ),
    # --- The game ---
    "game.protocol": Where(
        lambda c: c.game.num_agents > 1 or c.game.protocol not in ("sequential", "pipeline"),
        "with one agent (game.num_agents) no other speaks before or after it",
    ),
    "game.personas": Where(
        lambda c: (
            any(c.game.personas)
            or c.game.protocol not in ("debate", "sequential", "self_correction")
        ),
        "all of them are empty, as they are by default",
    ),
    "game.history": Where(
        history_counts,
        "it leaves out nothing: the first turn of game.num_turns reads no other, and the second "
        "reads the first, which is the last",
    ),
    "game.token_budget": Where(
        lambda c: turns_are_read(c) or (c.game.protocol not in AT_ONCE and c.game.num_agents > 1),
        "the question is never dropped, and agents read nothing else: see game.num_turns and "
        "game.history",
    ),
    "game.reward_feedback": EARLIER_READ,
    "game.feedback_verifier": Where(
        lambda c: c.game.reward_feedback and turns_are_read(c) and other_scores_are_shown(c),
        "no scores are shown, or those of game.verifier are: set game.reward_feedback, and "
        "game.num_turns above 1, and name another verifier",
    ),
    "game.stop": LATER_TURNS,
    "game.gamma": Where(
        lambda c: c.game.horizon == "discounted" and later_turns_count(c),
        "only game.horizon='discounted' discounts, and only what comes after a trained turn (see "
        "game.num_turns, single_agent and team.train_turns)",
    ),
    "game.horizon": Where(
        lambda c: later_turns_count(c) or (c.game.share == "team" and scores_differ(c)),
        "no trained message has turns after it, and each agent gets its own score (see "
        "game.num_turns, single_agent and team.train_turns)",
    ),
    "game.share": Where(
        lambda c: (
            scores_differ(c)
            and (c.game.horizon != "discounted" or (c.game.gamma > 0 and later_turns_count(c)))
        ),
        "there are no scores of others to share: see game.num_agents, game.num_turns, game.gamma, "
        "single_agent, team.train_turns, and game.protocol, which may score one answer for all",
    ),
    "game.alpha": Where(alpha_counts, f"it rewards the later message {BETWEEN_TURNS}"),
    "game.beta": Where(beta_counts, f"it rewards the earlier message {BETWEEN_TURNS}"),
    "game.majority": Where(
        majority_is_asked,
        "only game.alpha and game.beta look at a majority, between turns, and they are off, or "
        "reward no trained message",
    ),
    "game.penalties.min_words": Where(
        lambda c: c.game.penalties.too_short > 0, "game.penalties.too_short is 0"
    ),
    **dict.fromkeys(
        ("game.penalties.max_repeats", "game.penalties.ngram"),
        Where(lambda c: c.game.penalties.repetition > 0, "game.penalties.repetition is 0"),
    ),
    "game.show_parts": Where(
        lambda c: turns_are_read(c) and c.game.num_agents > 1,
        "there are parts of others to read from the second turn on: see game.num_turns, "
        "game.history and game.num_agents",
    ),
    "game.feedback": EARLIER_READ,
    "game.tools": Where(
        lambda c: not c.game.env, "it is about debates, and game.env is another environment"
    ),
    **dict.fromkeys(("game.tool_calls", "game.tool_chars", "sampling.tool_tokens"), TOOLS),
    "game.tool_seconds": Where(
        lambda c: "python" in c.game.tools, "it limits programs, and game.tools has no 'python'"
    ),
    "game.tool_results": Where(
        lambda c: bool(c.game.tools) and c.game.num_agents > 1 and turns_are_read(c),
        "it is about who reads results of tools: see game.tools, game.num_agents, game.num_turns "
        "and game.history",
    ),
    # --- The team and its messages ---
    "team.sharing": Where(
        lambda c: c.team.tuning != "none" and policies_differ(c),
        "the policies are those of sharing='agent', one per agent: 'turn' and 'first_turn' divide "
        "turns that are trained, 'one' unites agents that are (see team.train_turns, "
        "game.num_turns, team.train_agents and game.num_agents)",
    ),
    **dict.fromkeys(("team.critic", "team.critic_width"), Where(critics_learn, NO_VALUE_LOSS)),
    "team.gradient_checkpointing": Where(
        lambda c: c.team.tuning != "none", "team.tuning='none' trains nothing"
    ),
    "team.device": Where(
        lambda c: c.team.device_map != "auto" and not c.team.devices,
        "team.device_map='auto' spreads the model over all devices, and team.devices places it",
    ),
    **dict.fromkeys(
        ("team.lora_rank", "team.lora_alpha"),
        Where(
            lambda c: (
                c.team.tuning == "lora" and (not c.team.start_from or c.team.critic == "adapter")
            ),
            "only adapters that are made anew have it: team.tuning='lora', without team.start_from",
        ),
    ),
    "sampling.max_new_tokens": Where(
        lambda c: not (c.sampling.agent_max_new_tokens or c.sampling.turn_max_new_tokens),
        "sampling.agent_max_new_tokens or turn_max_new_tokens sets the limit of every message",
    ),
    "sampling.turn_max_new_tokens": Where(
        lambda c: len(c.sampling.turn_max_new_tokens) <= c.game.num_turns,
        "it has more entries than there are turns (game.num_turns)",
    ),
    "sampling.agent_max_new_tokens": Where(
        lambda c: len(c.sampling.agent_max_new_tokens) <= c.game.num_agents, MORE_THAN_AGENTS
    ),
    "sampling.agent_stop": Where(
        lambda c: (
            bool(set(c.sampling.agent_stop) - {"", *c.sampling.stop})
            and len(c.sampling.agent_stop) <= c.game.num_agents
        ),
        f"{MORE_THAN_AGENTS}, or holds nothing but empty texts and those of sampling.stop",
    ),
    **dict.fromkeys(
        (
            *("sampling.url", "sampling.adapters", "sampling.lag", "sampling.mismatch"),
            *("sampling.request_seconds", "sampling.retries"),
        ),
        Where(
            lambda c: c.sampling.engine == "vllm",
            "it is about servers, and sampling.engine is 'local'",
        ),
    ),
    "sampling.cache_gb": Where(
        lambda c: c.sampling.engine == "local",
        "servers (sampling.engine) keep their own caches",
    ),
    **dict.fromkeys(
        (
            *("warmup.batch_size", "warmup.learning_rate"),
            *("warmup.transcripts", "warmup.preferences"),
        ),
        Where(lambda c: c.warmup.steps > 0, "warmup.steps is 0: there is no warm-up"),
    ),
    "warmup.questions": Where(
        lambda c: c.warmup.steps > 0 and not (c.warmup.transcripts or c.warmup.preferences),
        "warmup.steps is 0, or warmup.transcripts or warmup.preferences says what is learnt",
    ),
    "warmup.preference_beta": Where(
        lambda c: c.warmup.steps > 0 and bool(c.warmup.preferences),
        "warmup.steps is 0, or there are no warmup.preferences",
    ),
    # --- Self-play ---
    **{
        f"self_play.{name}": Where(
            lambda c: bool(c.self_play.game), "self_play.game is empty, so debates are played"
        )
        for name in ("turns", "every", "pool", "elo_gain", "games_measured", "gamma")
    },
    "self_play.opponents": Where(
        lambda c: bool(c.self_play.game) and c.steps > c.self_play.every,
        "self_play.game is empty, or the pool holds the untrained team alone until the end: see "
        "steps and self_play.every",
    ),
    # --- Measuring ---
    **dict.fromkeys(
        ("eval.every", "eval.patience"),
        Where(
            lambda c: c.eval.use == "best" and c.steps > (c.eval.every or c.checkpoint_every),
            "it is about measurements on the validation slice during training: see eval.use, "
            "eval.every, checkpoint_every and steps",
        ),
    ),
    # --- MAPoRL, MAGRPO, IAC ---
    "ppo.clip_coef": Where(lambda c: several_updates(c, "ppo"), ONE_UPDATE),
    "ppo.target_kl": Where(lambda c: several_updates(c, "ppo"), ONE_UPDATE),
    "ppo.value_clip": Where(
        lambda c: several_updates(c, "ppo") and c.ppo.critic_coef > 0,
        f"{ONE_UPDATE}, and ppo.critic_coef above 0",
    ),
    "ppo.minibatches": Where(lambda c: c.ppo.minibatches <= debates_of_step(c), FEW_QUESTIONS),
    "magrpo.minibatches": Where(
        lambda c: c.magrpo.minibatches <= debates_of_step(c), FEW_QUESTIONS
    ),
    "ppo.kl_estimator": Where(lambda c: c.ppo.kl_coef > 0, "ppo.kl_coef is 0"),
    "ppo.kl_target": Where(lambda c: c.ppo.kl_gain > 0, "ppo.kl_gain is 0"),
    "ppo.kl_gain": Where(lambda c: c.ppo.kl_target is not None, "ppo.kl_target is None"),
    "ppo.critic_learning_rate": Where(lambda c: c.ppo.critic_coef > 0, NO_VALUE_LOSS),
    "iac.critic_learning_rate": Where(lambda c: c.iac.critic_coef > 0, NO_VALUE_LOSS),
    **dict.fromkeys(
        (
            *("ppo.token_gamma", "ppo.gae_lambda", "ppo.reduction"),
            *("magrpo.length", "iac.length", "grpo.length"),
        ),
        TOKENS,
    ),
    **dict.fromkeys(("magrpo.turn_gamma", "iac.turn_gamma"), LATER_REWARDS),
    "magrpo.preference_beta": Where(
        lambda c: c.magrpo.comparison == "preferences",
        "magrpo.comparison does not compare by 'preferences'",
    ),
    "magrpo.ratio": Where(lambda c: several_updates(c, "magrpo"), ONE_UPDATE),
    **dict.fromkeys(
        ("magrpo.joining", "magrpo.credit"),
        Where(
            lambda c: c.game.num_agents > 1,
            "one agent (game.num_agents) joins no other",
        ),
    ),
    **{
        f"{group}.{name}": _with_kl(group)
        for group in REGULARISED
        for name in ("kl_estimator", "kl_place")
    },
    **dict.fromkeys(
        ("grpo.kl_estimator", "grpo.kl_place"),
        Where(lambda c: c.grpo.chosen().kl_coef > 0, "grpo.kl_coef, or that of its variant, is 0"),
    ),
    "grpo.groups": Where(
        lambda c: (
            c.grpo.chosen().baseline in ("mean", "leave_one_out", "maximum")
            and (c.game.num_agents > 1 or c.game.num_turns > 1)
        ),
        "grpo.baseline compares with no group, or there is one message in a debate (see "
        "game.num_agents and game.num_turns)",
    ),
    **dict.fromkeys(
        ("grpo.clip_coef", "grpo.clip_high"),
        Where(lambda c: several_updates(c, "grpo"), ONE_UPDATE),
    ),
    "grpo.minibatches": Where(lambda c: c.grpo.minibatches <= debates_of_step(c), FEW_QUESTIONS),
    "grpo.role_decay": Where(
        lambda c: c.grpo.chosen().baseline == "role", "grpo.baseline, or its variant's, is another"
    ),
    # --- MLPO ---
    **dict.fromkeys(
        ("mlpo.contexts", "mlpo.pool_size", "mlpo.pool", "mlpo.drop_from"),
        Where(lambda c: c.game.num_agents > 1, "there are no peers (game.num_agents)"),
    ),
    "mlpo.backtracking": Where(
        lambda c: c.warmup.steps > 0 and not (c.warmup.transcripts or c.warmup.preferences),
        "it is what a warm-up imitates, and there is none (warmup.steps), or "
        "warmup.transcripts or warmup.preferences says what is learnt",
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
        lambda c: not prefers_in_vain(c),
        "it names a role that malt.roles leaves out or team.train_agents does not train, or "
        "malt.branching is 1, so that there are no pairs",
    ),
    "malt.beta": Where(learns_from_pairs, NO_PAIRS),
    "malt.labels": Where(learns_from_pairs, NO_PAIRS),
    # --- Every optimiser ---
    **{f"{group}.final_fraction": _fading(group) for group in OPTIMISERS},
    **{f"{group}.schedule": _falling(group) for group in OPTIMISERS},
}
"""By name of the field."""
