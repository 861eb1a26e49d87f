"""Defects in batches, token scores and the optimiser step."""

from __future__ import annotations

from .mutant import Defects

DEFECTS = (
    Defects(
        "agents/maporl_agents/update/batching.py",
        ("tests/agents/update/test_batching.py",),
        (
            ("float(rollout.rewards[turn, agent])", "float(rollout.rewards[turn, 0])"),
            ("if not rollout.scored[turn, agent]:", "if rollout.scored[turn, agent]:"),
            ("left_out += message.scored and message.paid", "left_out += message.scored"),
            ("torch.arange(width) < lengths[:, None]", "torch.arange(width) <= lengths[:, None]"),
            (
                "torch.arange(width) < lengths[:, None]",
                "torch.arange(width) < lengths[:, None] - 1",
            ),
            ("Row(prompt, completion, policy,", "Row(rollout.prompts[0], completion, policy,"),
            ("Row(prompt, completion, policy,", "Row(prompt, completion, rollout.policies[0],"),
            ("team.critic(row.agent, row.turn)", "team.critic(row.agent, 0)"),
            ("torch.arange(width) < ends", "torch.arange(width) >= width - ends"),
            ("sorted(row for unit in chosen", "list(row for unit in chosen"),
            (
                "labels = batch.episodes.tolist() if whole_episodes",
                "labels = batch.episodes.tolist() if not whole_episodes",
            ),
            ("all(one.values for one", "any(one.values for one"),
        ),
    ),
    Defects(
        "agents/maporl_agents/update/layout.py",
        ("tests/agents/update/test_layout.py", "tests/agents/update/test_token_logprobs.py"),
        (
            ("real = columns < texts", "real = columns <= texts"),
            (" & (own[one] == own[after])", ""),
            (" & (texts.lengths[one] <= texts.lengths[after])", ""),
            ("alike.all(1)", "alike.any(1)"),
            ("leads.cumsum(0) - leads.long()", "leads.cumsum(0) - 1"),
            ("(sequences + count) * width > tokens", "sequences * width > tokens"),
            (" or padding > PASS_TOKENS", ""),
            ("key=lambda i: -units[i][1]", "key=lambda i: units[i][1]"),
            ("first = batch.prompt_ids.shape[1] - starts", "first = 0 * starts"),
        ),
    ),
    Defects(
        "agents/maporl_agents/update/token_logprobs.py",
        ("tests/agents/update/test_token_logprobs.py",),
        (
            ("starts[local] + columns - 1", "starts[local] + columns"),
            ("starts[local] + columns - 1", "starts[local] + columns - 2"),
        ),
    ),
    Defects(
        "agents/maporl_agents/update/token_tables.py",
        ("tests/agents/update/test_token_tables.py",),
        (
            ("if distance <= TOLERANCE:", "if True:"),
            ("fault = distance", "pass"),
            ("return not quantised and base", "return base"),
            (" and base.model.dtype in (torch.float32, torch.float64)", ""),
            ("tables.append(batch.sampled_values)", "tables.append(batch.sampled_logprobs)"),
            ("rescored[checked] = True", "rescored[:] = True"),
            ("int(batch.ids.sum()) % step", "0"),
        ),
    ),
    Defects(
        "agents/maporl_agents/models/lm_head.py",
        ("tests/agents/update/test_read_out.py",),
        (
            ("slice(start, start + size)", "slice(start, start + size - 1)"),
            ("max(1, most // vocabulary)", "max(1, most)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/update/read_out.py",
        ("tests/agents/update/test_read_out.py",),
        (
            (
                "logits = temper(base.logits(states, reference=reference), temperature)",
                "logits = base.logits(states, reference=reference)",
            ),
            ("return logprobs, -(all_logprobs", "return logprobs, (all_logprobs"),
            ("entropy[rows] = -torch.linalg", "entropy[rows] = torch.linalg"),
            ("probabilities[rows]) if trained", "probabilities[:len(part)]) if trained"),
            ("probabilities.mul_(-of_logprobs)", "probabilities.mul_(of_logprobs)"),
            ("scatter_add_(1, ids[:, None], of_logprobs)", "mul(1)"),
            ("chunks(len(ids), base.vocab_size, CHUNK)", "chunks(len(ids), 1, CHUNK)"),
            ("base.logits(ref_states, reference=True)", "base.logits(ref_states)"),
        ),
    ),
    Defects(
        "agents/maporl_agents/update/gradient_accumulation.py",
        ("tests/agents/algorithms/test_maporl.py",),
        (
            (
                "return {policy: (int(batch.mask[r].sum()), len(r))",
                "return {policy: (int(batch.mask.sum()), len(r))",
            ),
            ("statistics.append(parts)\n", "statistics.append(parts)\n        break\n"),
        ),
    ),
    Defects(
        "agents/maporl_agents/update/minibatch_epochs.py",
        (
            "tests/agents/update/test_batching.py",
            "tests/agents/algorithms/test_maporl.py",
            "tests/agents/algorithms/test_ppo_options.py",
        ),
        (
            ("order = names[torch.randperm(len(names), generator=generator)]", "order = names"),
            (
                "order.tensor_split(min(count, len(order)))",
                "order.tensor_split(min(count, len(order)))[1:]",
            ),
            (
                "if any(updates):\n        learner.schedule.step()",
                "for _ in updates:\n        learner.schedule.step()",
            ),
        ),
    ),
    Defects(
        "agents/maporl_agents/update/optimiser.py",
        (
            "tests/agents/algorithms/test_maporl_is_ppo.py",
            "tests/agents/algorithms/test_maporl.py",
            "tests/agents/algorithms/test_kl_penalty.py",
            "tests/agents/update/test_optimiser.py",
        ),
        (
            (
                "nn.utils.clip_grad_norm_(params, self.max_grad_norm)",
                "nn.utils.get_total_norm([p.grad for p in params])",
            ),
            ("if not torch.isfinite(norm):", "if torch.isnan(norm):"),
            ("self.optimizer.zero_grad(set_to_none=True)", "pass"),
            ('"lr": critic_learning_rate}', '"lr": settings.learning_rate}'),
            ("return replace(self.ppo, kl_coef=self.kl_coef)", "return self.ppo"),
            ("return (step + 1) / (warmup_steps + 1)", "return step / (warmup_steps + 1)"),
            (
                "max((steps - step) / max(steps - warmup_steps, 1), 0.0)",
                "max((steps - step) / steps, 0.0)",
            ),
            ("return final + (1 - final) * left", "return final + left"),
            ("0.5 - 0.5 * math.cos(math.pi * left)", "0.5 + 0.5 * math.cos(math.pi * left)"),
            ('self.kl_coef = controls["kl_coef"]', "pass"),
            ("self.spread = spread", "pass"),
        ),
    ),
    Defects(
        "agents/maporl_agents/update/reward_normalisation.py",
        ("tests/agents/update/test_reward_normalisation.py",),
        (
            ("batch.rewards / spread.std)", "batch.rewards * spread.std)"),
            ("spread.add(batch.rewards)", "pass"),
            ("gap * gap * self.count * n / total", "gap * gap * self.count / total"),
            ("self.mean += gap * n / total", "self.mean += gap / total"),
            ("max(self.count - 1, 1)) or 1.0", "max(self.count, 1)) or 1.0"),
            ("max(self.count - 1, 1)) or 1.0", "max(self.count - 1, 1))"),
        ),
    ),
    Defects(
        "agents/maporl_agents/update/preferences.py",
        ("tests/agents/algorithms/test_malt.py",),
        (
            ("self.certainty[rows[::2] // 2]", "self.certainty[rows[::2]]"),
            ("margins = beta * (", "margins = ("),
        ),
    ),
)
