"""Defects in the training schemes."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "agents/maporl_agents/algorithms/maporl.py",
        (
            "tests/agents/algorithms/test_maporl_is_ppo.py",
            "tests/agents/algorithms/test_maporl.py",
            "tests/agents/algorithms/test_kl_penalty.py",
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
                "batch = learner.normalise_rewards(batch)",
                "learner.normalise_rewards(batch)",
            ),
        ),
    ),
    Defects(
        "agents/maporl_agents/algorithms/magrpo.py",
        (
            "tests/agents/algorithms/test_magrpo.py",
            "tests/agents/algorithms/test_magrpo_credit.py",
        ),
        (
            ("ratio=settings.ratio", "ratio=False"),
            ("math.inf if settings.clip_coef is None else settings.clip_coef", "math.inf"),
            (
                "compared = [node_returns(node, settings)",
                "compared = [[r for r in node.rewards if r is not None]",
            ),
            ('fmean if settings.credit == "mean" else math.fsum', "fmean"),
            ("REDUCTIONS[settings.length],  #", '"constant",  #'),
            ('COMPARISONS.get(settings.comparison, COMPARISONS["mean"])', 'COMPARISONS["mean"]'),
        ),
    ),
    Defects(
        "agents/maporl_agents/algorithms/grpo.py",
        ("tests/agents/algorithms/test_grpo.py",),
        (
            ("rewards = rewards - kl", "rewards = rewards + kl"),
            ("kept.rewards - kept.rewards.new_tensor", "kept.rewards + kept.rewards.new_tensor"),
            ("question = batch.episodes // settings", "question = batch.episodes % settings"),
            ('"agent": (batch.agents,)', '"agent": ()'),
            ("return rewards - (means - beyond)[member]", "return rewards - means[member]"),
            ("limit if chosen.length", "1 if chosen.length"),
        ),
    ),
    Defects(
        "agents/maporl_agents/update/objective.py",
        (
            "tests/agents/algorithms/test_regularisation.py",
            "tests/agents/algorithms/test_magrpo.py",
        ),
        (
            ("part.logprobs if self.ratio else", "part.logprobs if True else"),
            ("total + self.kl_coef * distance", "total - self.kl_coef * distance"),
            ("total - self.entropy_coef * spread", "total + self.entropy_coef * spread"),
            ("train_entropy=self.entropy_coef > 0", "train_entropy=False"),
            ("kl[0].sum(1).to", "kl[0].mean(1).to"),
        ),
    ),
    Defects(
        "agents/maporl_agents/algorithms/iac.py",
        ("tests/agents/algorithms/test_iac.py",),
        (
            ("gamma ** (later - turn)", "gamma"),
            ("gamma**k * reward for k", "reward for k"),
            ("deltas = targets - values", "deltas = targets"),
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
