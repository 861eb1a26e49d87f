"""Defects in advantages and losses."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "agents/maporl_agents/kl_penalty.py",
        (
            "tests/agents/losses/test_advantages.py",
            "tests/agents/algorithms/test_kl_penalty.py",
        ),
        (
            ("kl_coef * (ref_logprobs - logprobs)", "kl_coef * (logprobs - ref_logprobs)"),
            ("penalties = -kl_coef * tensor", "penalties = kl_coef * tensor"),
            (
                "torch.where(_is_last_token(mask), with_score, penalties)",
                "torch.where(mask, with_score, penalties)",
            ),
            ("mask & (tokens_to_go == 1)", "mask & (tokens_to_go == 2)"),
            ("mask & (tokens_to_go == 1)", "tokens_to_go == 1"),
            (
                "max(-MAX_KL_ERROR, min(MAX_KL_ERROR, kl / target - 1))",
                "min(MAX_KL_ERROR, kl / target - 1)",
            ),
            ("kl_coef * (1 + gain * error)", "kl_coef * (1 - gain * error)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/advantages.py",
        (
            "tests/agents/losses/test_advantages.py",
            "tests/agents/losses/test_group_advantages.py",
            "tests/agents/algorithms/test_joint_preferences.py",
        ),
        (
            ("reward + gamma * next_value - value", "reward + next_value - value"),
            ("reward + gamma * next_value - value", "reward + gamma * value - value"),
            ("delta + gamma * lam * advantage", "delta + lam * advantage"),
            ("delta + gamma * lam * advantage", "delta + gamma * advantage"),
            ("next_value = torch.where(real, value, next_value)", "next_value = value"),
            (
                "torch.where(real, delta + gamma * lam * advantage, advantage)",
                "delta + gamma * lam * advantage",
            ),
            ("return advantages, advantages + values", "return advantages, advantages"),
            (
                "next_value = _row_values(bootstrap, mask, values)",
                "next_value = _row_values(0.0, mask, values)",
            ),
            ("torch.stack(columns[::-1], dim=1)", "torch.stack(columns, dim=1)"),
            ("others = (sizes - 1).clamp(min=1)", "others = sizes.clamp(min=1)"),
            ("centred * (sizes / others)[group]", "centred * (others / sizes)[group]"),
            ("scale * (pulls.sum(1) - pulls.sum(0))", "scale * pulls.sum(1)"),
            ("surprise = (-beta * (", "surprise = (beta * ("),
            ("advantages = excess - highest[group]", "advantages = excess"),
            ("now.get(role, 0.0) + (1 - decay)", "now.get(role, 0.0) + decay"),
            ("advantages.append(reward - now[role])", "advantages.append(reward)"),
            ("(std + GROUP_STD_EPS)[group]", "(std * std + GROUP_STD_EPS)[group]"),
            ("(unit.square().sum() / (count - 1)).sqrt()", "(unit.square().sum() / count).sqrt()"),
            ("whitened = whitened + lowest + mean_excess", "whitened = whitened + mean_excess"),
            ("return torch.where(mask, whitened, 0.0)", "return whitened"),
        ),
    ),
    Defects(
        "agents/maporl_agents/losses.py",
        (
            "tests/agents/losses/test_losses.py",
            "tests/agents/losses/test_kl_and_entropy.py",
            "tests/agents/losses/test_loss_windows.py",
            "tests/agents/losses/test_surrogates.py",
            "tests/agents/losses/test_preference_loss.py",
        ),
        (
            (
                "-torch.minimum(ratio * gain, clipped",
                "-torch.maximum(ratio * gain, clipped",
            ),
            ("-torch.minimum(ratio * gain", "torch.minimum(ratio * gain"),
            (
                "clipped * gain)",
                "(ratio * gain).clamp(1 - clip_coef, 1 + clip_high))",
            ),
            (
                "ratio.clamp(1 - clip_coef, 1 + clip_high)",
                "ratio.clamp(1 - clip_coef, 1 + clip_coef)",
            ),
            (
                "log_ratio = logprobs - old_logprobs.detach()",
                "log_ratio = old_logprobs.detach() - logprobs",
            ),
            ("losses.sum(1) / lengths_tokens.clamp(min=1)", "losses.mean(1)"),
            (
                "(lengths_tokens > 0).sum() if num_sequences",
                "(lengths_tokens >= 0).sum() if num_sequences",
            ),
            ('"num_sequences") / max_tokens', '"num_sequences")'),
            ("mask.sum() if count is None else count", "mask.numel() if count is None else count"),
            ("masked_mean(k3(-log_ratio), mask)", "masked_mean(k3(log_ratio), mask)"),
            ("(1 - ratio > clip_coef) | (ratio - 1 > clip_high)", "ratio - 1 > clip_high"),
            ("means = log_ratio.sum(1) / mask", "means = log_ratio.sum(1).sum() / mask"),
            ("-clipped.detach() * gain * logprobs", "-ratio.detach() * gain * logprobs"),
            ("torch.maximum(errors, (clipped", "torch.minimum(errors, (clipped"),
            ("old_values + (values - old_values).clamp", "values + (values - old_values).clamp"),
            ("return 0.5 * reduced_mean(errors, mask", "return reduced_mean(errors, mask"),
            ("returns=returns.detach()", "returns=returns"),
            (
                "margin = beta * (chosen_gain - rejected_gain)",
                "margin = beta * (rejected_gain - chosen_gain)",
            ),
            ("chosen.to(dtype) - ref_chosen.detach()", "chosen.to(dtype) + ref_chosen.detach()"),
        ),
    ),
    Defects(
        "agents/maporl_agents/divergences.py",
        ("tests/agents/losses/test_kl_and_entropy.py", "tests/agents/losses/test_surrogates.py"),
        (
            ("torch.expm1(-log_ratio) + log_ratio", "torch.expm1(log_ratio) - log_ratio"),
            ("return 0.5 * log_ratio.square()", "return log_ratio.square()"),
            (
                "_expectation(ref_logprobs.exp(), ref_logprobs - logprobs)",
                "_expectation(logprobs.exp(), logprobs - ref_logprobs)",
            ),
            (
                "_expectation(logprobs.exp(), logprobs - ref_logprobs)",
                "_expectation(ref_logprobs.exp(), ref_logprobs - logprobs)",
            ),
        ),
    ),
)
