"""Facts of a run that follow from its settings: who learns when, what is read, what is scored."""

from __future__ import annotations

import math
from typing import Any

from maporl_agents.config.malt import MALTConfig
from maporl_agents.config.team import turns_of
from maporl_env.user_functions import is_own_name

AT_ONCE = ("debate", "joint", "self_correction")
"""Protocols in which no agent reads a message of the same turn."""
ONE_ANSWER = ("joint", "pipeline")
"""Protocols in which all agents are scored by the team's one answer."""
KEYED = (
    *("shopping", "sharing", "coins", "notes", "notes_misled", "gsm8k", "anli", "tinygsm"),
    *("mmlu", "mmlu_pro", "arc", "hotpotqa"),
)
"""Tasks by name whose verifier "key" is the answer key; in others it is a verifier of their own."""


def turns_in_training(config: Any) -> int:
    """Return the number of turns of a debate in training."""
    return int(config.training_game()[0].num_turns)


def debates_of_step(config: Any) -> int:
    """Return the number of debates or trees in a step of training."""
    copies = config.grpo.group_size if hasattr(config, "grpo") else 1
    return int(config.training_game()[1]) * int(copies)


def trained_turns(config: Any) -> set[int]:
    """Return the turns, from 0, that are played in training and learnt from."""
    played = range(turns_in_training(config))
    return set(turns_of(config.team.train_turns, config.game.num_turns)).intersection(played)


def trained_agents(config: Any) -> set[int]:
    """Return the agents that are trained."""
    return set(config.team.train_agents or range(config.game.num_agents))


def later_turns_count(config: Any) -> bool:
    """Whether a trained message has turns after it, whose scores its reward may count."""
    return min(trained_turns(config), default=math.inf) < turns_in_training(config) - 1


def turns_are_read(config: Any) -> bool:
    """Whether agents read earlier turns; one's own protocol may show them in its own way."""
    game = config.game
    return game.num_turns > 1 and (game.history != "none" or is_own_name(game.protocol))


def other_scores_are_shown(config: Any) -> bool:
    """Whether `feedback_verifier` is another one than `verifier`; one's own may answer anew."""
    game = config.game
    same = game.feedback_verifier == game.verifier and not is_own_name(game.verifier)
    return not same or (game.verifier == "key" and game.task.partition(":")[0] not in KEYED)


def scores_differ(config: Any) -> bool:
    """Whether agents may have different scores in one turn."""
    return config.game.num_agents > 1 and config.game.protocol not in ONE_ANSWER


def majority_counts(config: Any) -> bool:
    """Whether a majority can change between two turns of training."""
    game = config.game
    return turns_in_training(config) > 1 and (game.num_agents > 1 or game.majority == "all")


def alpha_counts(config: Any) -> bool:
    """Whether a message that is trained can earn `alpha`, which rewards the later one of two."""
    return majority_counts(config) and max(trained_turns(config), default=0) > 0


def beta_counts(config: Any) -> bool:
    """Whether a message that is trained can earn `beta`, which rewards the earlier one."""
    return majority_counts(config) and later_turns_count(config)


def majority_is_asked(config: Any) -> bool:
    """Whether a bonus that looks at a majority can be earned in training."""
    game = config.game
    alpha = any(game.alpha) and max(trained_turns(config), default=0) > 0
    return alpha or (any(game.beta) and later_turns_count(config))


def policies_differ(config: Any) -> bool:
    """Whether `sharing` makes other trained policies than one per agent.

    Adapters to begin from are found by the policies' names, so there each sharing is another.
    """
    turns = turns_of(config.team.train_turns, config.game.num_turns)
    several = {
        "agent": True,
        "turn": len(turns) > 1,
        "first_turn": 0 in turns and len(turns) > 1,
        "one": len(trained_agents(config)) > 1,
    }
    return bool(config.team.start_from) or several[config.team.sharing]


def history_counts(config: Any) -> bool:
    """Whether agents would read more without `history`: the last of two turns is all there is."""
    game = config.game
    shown_anyway = 1 if game.history == "last" and not is_own_name(game.protocol) else 0
    return bool(game.num_turns - 1 > shown_anyway)


def several_updates(config: Any, group: str) -> bool:
    """Whether a batch is updated on more than once, so that ratios leave 1."""
    settings = group_of(config, group)
    return bool(settings.epochs * min(settings.minibatches, debates_of_step(config)) > 1)


def several_tokens(config: Any) -> bool:
    """Whether a message may have more than one token."""
    game, limit_of = config.game, config.sampling.limit_of
    return any(limit_of(a, t) > 1 for a in range(game.num_agents) for t in range(game.num_turns))


def critics_learn(config: Any) -> bool:
    """Whether the critics of a run are trained."""
    group = getattr(config, "ppo", getattr(config, "iac", None))
    return group is None or group.critic_coef > 0


def learns_from_pairs(config: Any) -> bool:
    """Whether a trained role of MALT has siblings to prefer one of."""
    malt = config.malt
    trained = [role for agent, role in enumerate(malt.roles) if agent in trained_agents(config)]
    return malt.branching > 1 and any(role in trained for role in malt.prefer)


def prefers_in_vain(config: Any) -> bool:
    """Whether `malt.prefer` names a role that cannot learn from pairs."""
    malt = config.malt
    learning = {role for agent, role in enumerate(malt.roles) if agent in trained_agents(config)}
    return bool(malt.prefer) and (malt.branching == 1 or not set(malt.prefer) <= learning)


def most_updates(config: Any, group: str) -> int:
    """Return the most steps that the schedule of a group can have.

    In MALT, whose data grow with its trees, those of one role in a round, if all were learnt from.
    """
    if not isinstance(config, MALTConfig):
        return config.steps
    malt, fit = config.malt, group_of(config, group)
    leaves = config.questions_per_step * malt.branching ** len(malt.roles)
    pairs = leaves * malt.branching // 4  # of n siblings, n / 2 positive and as many negative ones
    rows = leaves if group == "malt.imitation" else pairs
    return int(fit.epochs * math.ceil(rows * len(malt.roles) / fit.batch_size))


def group_of(config: Any, group: str) -> Any:
    """Return a group of settings by its dotted name."""
    for name in group.split("."):
        config = getattr(config, name)
    return config
