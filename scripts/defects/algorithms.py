"""Defects in the training schemes."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "agents/maporl_agents/algorithms/maporl.py",
        (
            "tests/agents/algorithms/test_maporl_is_ppo.py",
            "tests/agents/algorithms/test_maporl.py",
            "tests/agents/algorithms/test_kl_coefficient.py",
            "tests/agents/algorithms/test_ppo_options.py",
            "tests/agents/algorithms/test_messages_alike.py",
        ),
        (
            (
                "total + improve + ppo.critic_coef * critic",
                "total + improve - ppo.critic_coef * critic",
            ),
            (
                "advantages[rows] = whiten(advantages[rows], batch.mask[rows])",
                "advantages[rows] = advantages[rows]",
            ),
            (
                "by_message():\n        advantages[rows]",
                "by_policy():\n        advantages[rows]",
            ),
            ("differ[rows] = bool(spread.any())", "differ[rows] = True"),
            ("total - ppo.entropy_coef * reduced", "total + ppo.entropy_coef * reduced"),
            (
                "if any(updates):\n        learner.schedule.step()",
                "for _ in updates:\n        learner.schedule.step()",
            ),
            ("batch = learner.scale(batch)", "learner.scale(batch)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/algorithms/magrpo.py",
        (
            "tests/agents/algorithms/test_magrpo.py",
            "tests/agents/algorithms/test_magrpo_credit.py",
        ),
        (
            ("part.logprobs if ratio else scores", "scores"),
            ("math.inf if clip_coef is None else clip_coef", "math.inf"),
            (
                "compared = [node_returns(node, settings)",
                "compared = [[r for r in node.rewards if r is not None]",
            ),
            ('fmean if settings.credit == "mean" else math.fsum', "fmean"),
            ("reduction=REDUCTIONS[length]", 'reduction="constant"'),
            ("COMPARISONS[settings.comparison]", 'COMPARISONS["mean"]'),
        ),
    ),
    Defects(
        "agents/maporl_agents/algorithms/iac.py",
        ("tests/agents/algorithms/test_iac.py",),
        (
            ("gamma ** (later - turn)", "gamma"),
            ("gamma**k * reward for k", "reward for k"),
            ("rewards=targets - values", "rewards=targets"),
            ("tables.values[:, :1]", "tables.values[:, -1:]"),
        ),
    ),
    Defects(
        "agents/maporl_agents/algorithms/malt.py",
        ("tests/agents/algorithms/test_malt.py",),
        (
            ("settings.roles[pair.chosen.agent] in settings.prefer", "True"),
            ('"right_paths": right_paths}', '"right_paths": positives}'),
            ("certainties(pairs, settings.labels)", 'certainties(pairs, "hard")'),
            ("beta=settings.beta", "beta=0.2"),
            (
                "settings.thresholds[min(number, len(settings.thresholds) - 1)]",
                "settings.thresholds[0]",
            ),
        ),
    ),
)
