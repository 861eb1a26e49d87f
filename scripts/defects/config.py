"""Defects in the facts of a run that say which settings act."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "agents/maporl_agents/config/run_facts.py",
        ("tests/agents/config/test_effects.py",),
        (
            ("config.training_game()[0].num_turns", "config.game.num_turns"),
            (".intersection(played)", ""),
            ("config.team.train_agents or range", "range"),
            ("< turns_in_training(config) - 1", "< turns_in_training(config)"),
            ('game.history != "none" or is_own', 'game.history == "all" or is_own'),
            ("and not is_own_name(game.verifier)", ""),
            ("[0] not in KEYED", "[0] in KEYED"),
            ("and config.game.protocol not in ONE_ANSWER", ""),
            ('or game.majority == "all")', ")"),
            ("return majority_counts(config) and later_turns", "return later_turns"),
            ("any(game.alpha) and max(trained_turns(config), default=0) > 0", "any(game.alpha)"),
            ("(any(game.beta) and later_turns_count(config))", "any(game.beta)"),
            ('"turn": len(turns) > 1,', '"turn": config.game.num_turns > 1,'),
            ("0 in turns and len(turns) > 1", "len(turns) > 1"),
            ("bool(config.team.start_from) or", ""),
            ('if game.history == "last" and', 'if game.history == "none" and'),
            ('"last" and not is_own_name(game.protocol)', '"last"'),
            ("min(settings.minibatches, debates_of_step(config))", "settings.minibatches"),
            ("return any(limit_of(a, t)", "return all(limit_of(a, t)"),
            ("malt.branching > 1 and any(role in trained", "any(role in trained"),
            ("any(role in trained for", "any(role in malt.roles for"),
            ("not set(malt.prefer) <= learning", "not set(malt.prefer) <= set(malt.roles)"),
            ("fit.epochs * math.ceil(", "math.ceil("),
            ('leaves if group == "malt.imitation" else pairs', "leaves"),
        ),
    ),
)
