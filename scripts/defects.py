"""The defects that `mutants.py` puts into the code, and the fast tests that have to catch them."""

from __future__ import annotations

from typing import NamedTuple

REWARDS = "maporl_env/rewards.py"
CREDIT = "maporl_env/credit.py"
ADVANTAGES = "agents/maporl_agents/advantages.py"
LOSSES = "agents/maporl_agents/losses.py"
BATCHING = "agents/maporl_agents/update/batching.py"
SCORING = "agents/maporl_agents/update/token_logprobs.py"
ACCUMULATION = "agents/maporl_agents/update/gradient_accumulation.py"
PPO = "agents/maporl_agents/algorithms/maporl.py"
MAGRPO = "agents/maporl_agents/algorithms/magrpo.py"
IAC = "agents/maporl_agents/algorithms/iac.py"
JOINT_TREE = "agents/maporl_agents/trees/joint_tree.py"
MALT = "agents/maporl_agents/algorithms/malt.py"
PREFERENCES = "agents/maporl_agents/trees/preference_pairs.py"
VALUES = "agents/maporl_agents/trees/tree_values.py"
LEARNER = "agents/maporl_agents/update/optimiser.py"
ROLLOUT = "agents/maporl_agents/play/rollout.py"
SPEAK = "agents/maporl_agents/play/speak.py"
SAMPLER = "agents/maporl_agents/play/sampler.py"
DECODING = "agents/maporl_agents/models/decoding.py"
TEAM = "agents/maporl_agents/models/team.py"
CRITICS = "agents/maporl_agents/models/critics.py"
CONTROLS = "agents/maporl_agents/studies/controls.py"
VERDICTS = "agents/maporl_agents/studies/verdicts.py"

TESTS: dict[str, tuple[str, ...]] = {
    REWARDS: ("tests/env/test_rewards.py", "tests/env/test_shaping.py"),
    CREDIT: (
        "tests/env/test_rewards.py",
        "tests/env/test_shaping.py",
        "tests/env/debate/test_debate.py",
    ),
    ADVANTAGES: ("tests/agents/test_advantages.py",),
    LOSSES: ("tests/agents/test_losses.py",),
    BATCHING: ("tests/agents/update/test_batching.py",),
    SCORING: ("tests/agents/update/test_token_logprobs.py",),
    ACCUMULATION: ("tests/agents/algorithms/test_maporl.py",),
    PPO: ("tests/agents/algorithms/test_maporl.py", "tests/agents/algorithms/test_ppo_options.py"),
    MAGRPO: ("tests/agents/algorithms/test_magrpo.py",),
    IAC: ("tests/agents/algorithms/test_iac.py",),
    JOINT_TREE: ("tests/agents/algorithms/test_magrpo.py",),
    MALT: ("tests/agents/algorithms/test_malt.py",),
    PREFERENCES: ("tests/agents/algorithms/test_malt.py",),
    VALUES: ("tests/agents/algorithms/test_malt.py", "tests/agents/algorithms/test_magrpo.py"),
    LEARNER: (
        "tests/agents/algorithms/test_maporl.py",
        "tests/agents/algorithms/test_ppo_options.py",
    ),
    ROLLOUT: ("tests/agents/play/test_rollout.py",),
    SPEAK: ("tests/agents/play/test_speak.py", "tests/agents/play/test_rollout.py"),
    SAMPLER: ("tests/agents/play/test_sampler.py",),
    DECODING: ("tests/agents/play/test_sampler.py",),
    TEAM: ("tests/agents/models/test_team.py", "tests/agents/algorithms/test_trained_slots.py"),
    CRITICS: ("tests/agents/models/test_team.py",),
    CONTROLS: ("tests/agents/studies/test_controls.py",),
    VERDICTS: ("tests/agents/studies/test_verdicts.py",),
}


class Mutant(NamedTuple):
    """One defect."""

    file: str
    old: str
    new: str


def _of(file: str, *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(file, old, new) for old, new in changes]


MUTANTS: list[Mutant] = [
    *_of(
        REWARDS,
        # Definition 1
        ("range(len(own_TA) - 2, -1, -1)", "range(len(own_TA) - 2, 0, -1)"),
        ("gamma * (later_TA[t + 1] + tail_A)", "gamma * (later_TA[t] + tail_A)"),
        ("gamma * (later_TA[t + 1] + tail_A)", "gamma * later_TA[t + 1] + tail_A"),
        ("gamma * (known_TA[t + 1] + discounts_A)", "gamma * (1 + discounts_A)"),
        ("(own_TA[t] + tail_A) / (1.0 + discounts_A)", "(own_TA[t] + tail_A)"),
        ("(own_TA[t] + tail_A) / (1.0 + discounts_A)", "(own_TA[t] + tail_A) / discounts_A"),
        ("np.where(known_A, paid_A, last_A)", "np.where(known_A, last_A, paid_A)"),
        (
            "own_TA.sum(axis=1, keepdims=True) / np.maximum(count_T1, 1)",
            "own_TA.mean(axis=1, keepdims=True)",
        ),
        ('if share == "team" else', 'if share == "own" else'),
        ("return np.where(valid_TA, rewards_TA, 0.0)", "return rewards_TA"),
        # Tables 1 and 2
        (
            "_by_sign(majority_TA[:-1], alpha_wrong, alpha_right)",
            "_by_sign(majority_TA[:-1], alpha_right, alpha_wrong)",
        ),
        ("_by_sign(majority_TA[:-1], alpha_wrong", "_by_sign(majority_TA[1:], alpha_wrong"),
        (
            "_by_sign(own_TA[:-1], beta_wrong, beta_right)",
            "_by_sign(own_TA[:-1], beta_right, beta_wrong)",
        ),
        ("_by_sign(own_TA[:-1], beta_wrong", "_by_sign(own_TA[1:], beta_wrong"),
        ("bonus_TA[1:] += _flips(own_TA)", "bonus_TA[:-1] += _flips(own_TA)"),
        ("bonus_TA[:-1] += _flips(majority_TA)", "bonus_TA[:-1] -= _flips(majority_TA)"),
        ('(own_TA if majority == "others" else 0.0)', '(own_TA if majority == "all" else 0.0)'),
        ("np.sign(counted_TA)", "np.where(counted_TA >= 0, 1.0, -1.0)"),
        ("np.where(valid_TA, 2.0 * correct_TA - 1.0, 0.0)", "2.0 * correct_TA - 1.0"),
        (
            "np.where(sign_TA[1:] == -sign_TA[:-1], sign_TA[1:], 0.0)",
            "np.where(sign_TA[1:] != sign_TA[:-1], sign_TA[1:], 0.0)",
        ),
        ("np.where(sign_TA < 0, if_negative, 0.0)", "if_negative"),
    ),
    *_of(
        CREDIT,
        ("paid[:turns] -= self.costs(transcript)", "paid[:turns] += self.costs(transcript)"),
        ("valid=~np.isnan(given)", "valid=None"),
        (
            "right, self.alpha, self.beta, self.majority",
            "right, self.beta, self.alpha, self.majority",
        ),
        ("counts[run] > self.max_repeats", "counts[run] >= self.max_repeats"),
        ("len(words) < self.min_words", "len(words) <= self.min_words"),
    ),
    *_of(
        ADVANTAGES,
        ("kl_coef * (ref_logprobs - logprobs)", "kl_coef * (logprobs - ref_logprobs)"),
        ("penalties = -kl_coef * real_only", "penalties = kl_coef * real_only"),
        (
            "torch.where(_is_last_token(mask), paid, penalties)",
            "torch.where(mask, paid, penalties)",
        ),
        ("mask & (tokens_to_go == 1)", "mask & (tokens_to_go == 2)"),
        ("mask & (tokens_to_go == 1)", "tokens_to_go == 1"),
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
        ("advantages * (sizes / others)[group]", "advantages * (others / sizes)[group]"),
        ("(std + GROUP_STD_EPS)[group]", "(std * std + GROUP_STD_EPS)[group]"),
        ("(unit.square().sum() / (count - 1)).sqrt()", "(unit.square().sum() / count).sqrt()"),
        ("whitened = whitened + lowest + mean_excess", "whitened = whitened + mean_excess"),
        ("return torch.where(mask, whitened, 0.0)", "return whitened"),
    ),
    *_of(
        LOSSES,
        ("-torch.minimum(ratio * gain, ratio.clamp", "-torch.maximum(ratio * gain, ratio.clamp"),
        ("-torch.minimum(ratio * gain", "torch.minimum(ratio * gain"),
        (
            "ratio.clamp(1 - clip_coef, 1 + clip_coef) * gain)",
            "(ratio * gain).clamp(1 - clip_coef, 1 + clip_coef))",
        ),
        ("ratio.clamp(1 - clip_coef, 1 + clip_coef)", "ratio.clamp(1 - clip_coef, 1 - clip_coef)"),
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
        ("masked_mean(_k3(-log_ratio), mask)", "masked_mean(_k3(log_ratio), mask)"),
        ("((ratio - 1).abs() > clip_coef)", "((ratio - 1) > clip_coef)"),
        ("torch.expm1(-log_ratio) + log_ratio", "torch.expm1(log_ratio) - log_ratio"),
        ("return 0.5 * log_ratio.square()", "return log_ratio.square()"),
        (
            "_expectation(ref_logprobs.exp(), ref_logprobs - logprobs)",
            "_expectation(logprobs.exp(), logprobs - ref_logprobs)",
        ),
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
    *_of(
        BATCHING,
        ("float(rollout.rewards[turn, seat])", "float(rollout.rewards[turn, 0])"),
        ("if not rollout.scored[turn, seat]:", "if rollout.scored[turn, seat]:"),
        ("left_out += 1", "left_out += 0"),
        ("torch.arange(width) < lengths[:, None]", "torch.arange(width) <= lengths[:, None]"),
        ("torch.arange(width) < lengths[:, None]", "torch.arange(width) < lengths[:, None] - 1"),
        ("said = (rollout.prompts[i],", "said = (rollout.prompts[0],"),
        (
            "rollout.completions[i], rollout.policies[i])",
            "rollout.completions[i], rollout.policies[0])",
        ),
        ("team.critic(row.seat, row.turn)", "team.critic(row.seat, 0)"),
        ("padded[i, : len(row)]", "padded[i, -len(row) :]"),
        ("order = names[torch.randperm(len(names), generator=generator)]", "order = names"),
        (
            "order.tensor_split(min(count, len(order)))",
            "order.tensor_split(min(count, len(order)))[1:]",
        ),
        ("names.split(episodes)", "names.split(episodes + 1)"),
    ),
    *_of(
        SCORING,
        ("starts[local] + columns - 1", "starts[local] + columns"),
        ("starts[local] + columns - 1", "starts[local] + columns - 2"),
        ("attention = (columns < lengths[:, None])", "attention = (columns <= lengths[:, None])"),
        ("owners[outer] == owners[inner] and rows", "rows"),
        ("rows[outer][: len(rows[inner])] == rows[inner]", "rows[outer][:1] == rows[inner][:1]"),
        ("hosts[row] = len(leaders) - 1", "hosts[row] = 0"),
        (
            "logits = temper(base.logits(states, reference=reference), temperature)",
            "logits = base.logits(states, reference=reference)",
        ),
        ("return logprobs, -(kept.exp() * kept)", "return logprobs, (kept.exp() * kept)"),
    ),
    *_of(
        PPO,
        (
            "total + improve + ppo.critic_coef * critic",
            "total + improve - ppo.critic_coef * critic",
        ),
        (
            "advantages[rows] = whiten(advantages[rows], batch.mask[rows])",
            "advantages[rows] = advantages[rows]",
        ),
        ("for _, rows in batch.by_message():", "for _, rows in batch.by_policy():"),
        ("total - ppo.entropy_coef * spread", "total + ppo.entropy_coef * spread"),
        (
            "if updates:\n        learner.schedule.step()",
            "for _ in updates:\n        learner.schedule.step()",
        ),
        ("batch = learner.scale(batch)", "learner.scale(batch)"),
    ),
    *_of(
        MAGRPO,
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
    *_of(
        ACCUMULATION,
        (
            "counts = {policy: (int(batch.mask[r].sum()), len(r))",
            "counts = {policy: (int(batch.mask.sum()), len(r))",
        ),
        ("micro_batches(batch, micro_episodes)", "[*micro_batches(batch, micro_episodes)][:1]"),
    ),
    *_of(
        IAC,
        ("gamma ** (later - turn)", "gamma"),
        ("gamma**k * reward for k", "reward for k"),
        ("rewards=targets - values", "rewards=targets"),
        ("tables.values[:, :1]", "tables.values[:, -1:]"),
    ),
    *_of(
        JOINT_TREE,
        ("statistics.fmean(known) if", "known[0] if"),
        ("if len(known) == len(scores) else None", "if known else None"),
        ('if joining == "aligned":', 'if joining == "cross":'),
    ),
    *_of(
        MALT,
        ("settings.roles[pair.chosen.seat] in settings.prefer", "True"),
        ('"right_paths": right_paths}', '"right_paths": positives}'),
        ("certainties(pairs, settings.labels)", 'certainties(pairs, "hard")'),
        ("beta=settings.beta", "beta=0.2"),
        (
            "settings.thresholds[min(number, len(settings.thresholds) - 1)]",
            "settings.thresholds[0]",
        ),
        ("self.certainty[rows[::2] // 2]", "self.certainty[rows[::2]]"),
    ),
    *_of(
        PREFERENCES,
        ("one.value == 1", "one.value >= 0"),
        ("for one in judged if one.positive]", "for one in judged]"),
        ("if good.positive and not bad.positive", "if good.positive"),
        ("good.value, bad.value)", "bad.value, good.value)"),
    ),
    *_of(
        VALUES,
        ("sample.score > RIGHT", "sample.score >= RIGHT"),
        (
            "[value > threshold for value in values.generator]",
            "[value >= threshold for value in values.generator]",
        ),
        ("reward + gamma * fmean(_returns(", "reward + fmean(_returns("),
        ("return sum(values, Fraction(0)) / len(values)", "return sum(values, Fraction(0))"),
    ),
    *_of(
        LEARNER,
        (
            "nn.utils.clip_grad_norm_(params, self.max_grad_norm)",
            "nn.utils.get_total_norm([p.grad for p in params])",
        ),
        ("if not torch.isfinite(norm):", "if torch.isnan(norm):"),
        ("self.optimizer.zero_grad(set_to_none=True)", "pass"),
        ('"lr": critic_learning_rate}', '"lr": settings.learning_rate}'),
        ("batch.rewards / self.spread.std)", "batch.rewards * self.spread.std)"),
        ("self.spread.add(batch.rewards)", "pass"),
        ("return replace(self.ppo, kl_coef=self.kl_coef)", "return self.ppo"),
        ("gap * gap * self.count * n / total", "gap * gap * self.count / total"),
        ("self.mean += gap * n / total", "self.mean += gap / total"),
        ("max(self.count - 1, 1)) or 1.0", "max(self.count, 1)) or 1.0"),
        ("max(self.count - 1, 1)) or 1.0", "max(self.count - 1, 1))"),
        ("return (step + 1) / (warmup_steps + 1)", "return step / (warmup_steps + 1)"),
        (
            "max((steps - step) / max(steps - warmup_steps, 1), 0.0)",
            "max((steps - step) / steps, 0.0)",
        ),
        ("return final + (1 - final) * left", "return final + left"),
        ("0.5 - 0.5 * math.cos(math.pi * left)", "0.5 + 0.5 * math.cos(math.pi * left)"),
        (
            "max(-MAX_KL_ERROR, min(MAX_KL_ERROR, kl / target - 1))",
            "min(MAX_KL_ERROR, kl / target - 1)",
        ),
        ("kl_coef * (1 + gain * error)", "kl_coef * (1 - gain * error)"),
        ('self.kl_coef = controls["kl_coef"]', "pass"),
        ("self.spread = spread", "pass"),
    ),
    *_of(
        ROLLOUT,
        ("tapes[prompt.debate].own(prompt.seat)", "tapes[prompt.debate].own(0)"),
        ('stream = seed_of(seed, "sample", turn)', 'stream = seed_of(seed, "sample", 0)'),
        ('stream = seed_of(seed, "sample", turn)', 'stream = seed_of(0, "sample", turn)'),
        ("completion.stop is StopReason.LENGTH", "completion.stop is StopReason.EOS"),
        ("tapes[prompt.debate].record(", "tapes[0].record("),
        ("if request.agent == agent", "if request.agent != agent"),
        ("self.requests.append(request)", "self.requests.insert(0, request)"),
    ),
    *_of(
        SPEAK,
        ("team.policy(prompt.seat, prompt.turn)", "team.policy(prompt.seat, 0)"),
        ("(id(chat), prompt.view, tuple(earlier))", "(id(chat), prompt.view, ())"),
        ("encoded[key], prompt.seat)", "encoded[key], 0)"),
        ("[request.agent for request in asked]", "[0 for request in asked]"),
    ),
    *_of(
        SAMPLER,
        (
            "sampling.limit_of(seat), sampling.stops_of(seat)",
            "sampling.limit_of(0), sampling.stops_of(seat)",
        ),
        (
            "sampling.limit_of(seat), sampling.stops_of(seat)",
            "sampling.limit_of(seat), sampling.stops_of(0)",
        ),
        ("manual_seed((seed + index) % 2**63)", "manual_seed(seed % 2**63)"),
        ("length + max_new_tokens > window", "length + max_new_tokens >= window"),
        ("length + max_new_tokens > window", "length > window"),
        (
            "row.completion(team.base_of(row.policy).chat) for row in rows]",
            "row.completion(team.base_of(row.policy).chat) for row in rows[::-1]]",
        ),
    ),
    *_of(
        DECODING,
        ("if token in chat.stop_ids:", "if token == min(chat.stop_ids):"),
        ("self.stop = StopReason.TEXT", "self.stop = StopReason.EOS"),
        ("return len(self.ids) < self.limit", "return len(self.ids) <= self.limit"),
        ("(attention.cumsum(1) - 1).clamp(min=0)", "torch.arange(ids.shape[1]).expand(ids.shape)"),
        ("positions = positions[:, -1:] + 1", "positions = positions[:, -1:]"),
        ("noise = _gumbel(len(rows), base.vocab_size", "noise = _gumbel(1, base.vocab_size"),
        ("cache.reorder_cache(keep)", "pass"),
        (
            "alive = [i for i, goes in zip(alive, going, strict=True) if goes]",
            "alive = alive[: len(keep)]",
        ),
        ("attention[row, width - len(prompt) :] = 1", "attention[row, :] = 1"),
        (
            "-noise.exponential_(generator=generator).log()",
            "noise.exponential_(generator=generator).log()",
        ),
        (
            "-noise.exponential_(generator=generator).log()",
            "-noise.uniform_(generator=generator).log()",
        ),
        ("temper(logits, temperature).log_softmax(-1)", "logits.log_softmax(-1)"),
        ("logprobs + noise[alive]", "logprobs + noise[: len(alive)]"),
    ),
    *_of(
        TEAM,
        (
            'return f"agent_{agent}_turn_{turn}"\n        case',
            'return f"agent_{agent}"\n        case',
        ),
        ("'first' if turn == 0 else 'later'", "'first' if turn <= 1 else 'later'"),
        ('else "_start")', 'else "")'),
        ("(min(agent, self.num_agents - 1), min(turn, self.num_turns - 1)) in", "(agent, turn) in"),
        ("turn = min(turn, self.num_turns - 1)\n", "turn = turn\n"),
        (
            "return critic_name(agent, min(turn, self.num_turns - 1))",
            "return critic_name(agent, turn)",
        ),
        (
            "return critic_name(agent, min(turn, self.num_turns - 1))",
            "return critic_name(agent, 0)",
        ),
        ('base.save(folder / "critics", critics=True)', "pass"),
        ("return pairs + pair(self.critics.state_dict(), read_file(place), place)", "return pairs"),
        ("own.copy_(saved)", "own.copy_(own)"),
    ),
    *_of(
        CRITICS,
        ("width**-0.5", "width**0.5"),
        ("self.outer.weight.zero_()", "self.outer.weight.fill_(1.0)"),
        ("torch.tanh(self.inner(", "(self.inner("),
    ),
    *_of(
        CONTROLS,
        ("if score == top", "if score >= top * 0.5"),
        ("self.members[seat], turn if", "seat, turn if"),
        ("turn if self.always is None else self.always", "turn"),
        ("islice(cycle(range(team.num_agents)), num_agents)", "range(num_agents)"),
        ("self._rng.shuffle(scores)", "scores.reverse()"),
        ("(prompt.debate + i) % len(transcripts)", "prompt.debate % len(transcripts)"),
        ("mine if mine.agent == agent else theirs", "theirs if mine.agent == agent else mine"),
        ("turn=team.num_turns - 1)", "turn=0)"),
        ("number = game.num_agents * game.num_turns", "number = game.num_agents"),
        ("if number % size != 1)", "if number % size != 0)"),
        ("questions[member :: team.num_agents]", "questions[member:]"),
        (
            "debate.num_tokens / (firsts.num_tokens / game.num_agents)",
            "debate.num_tokens / firsts.num_tokens",
        ),
        ("max(len(picked) - 1, 1)", "len(picked)"),
        ("if m.feedback is not None]", "if m.feedback]"),
        ("if not scored:\n        return 0.0", "if not scored:\n        return 1.0"),
        ("return sum(right) / len(right)", "return float(right[0])"),
        ("replace(sampling, temperature=0.0)", "sampling"),
        ("feedback=shuffled)", "scorer=shuffled)"),
    ),
    *_of(
        VERDICTS,
        ("stdev(values) / math.sqrt(n)", "stdev(values) / n"),
        ("t_quantile(0.975, n - 1)", "t_quantile(0.975, n)"),
        ("t_quantile(0.975, n - 1)", "t_quantile(0.95, n - 1)"),
        ("first.keys() & second.keys()", "first.keys() | second.keys()"),
        ("first[seed] - second[seed]", "second[seed] - first[seed]"),
        (
            "-math.inf if self.half_width is None else self.mean - self.half_width",
            "self.mean - (self.half_width or 0)",
        ),
        ("if rise.high < MARGIN:", "if rise.mean < MARGIN:"),
        ("if change.low <= 0 <= change.high:", "if change.low <= 0:"),
        ('"higher" if change.mean > 0', '"higher" if change.mean < 0'),
        ("kept = left.mean / rise.mean", "kept = 1 - left.mean / rise.mean"),
        ("(left if kept >= SURVIVED else loss).low <= 0", "loss.low <= 0"),
        ("(left if kept >= SURVIVED else loss).low <= 0", "left.low <= 0"),
        ('"The rise" if loss.low <= 0', '"The rise" if loss.low > 0'),
        ('"vanishes" if kept <= VANISHED', '"vanishes" if kept >= VANISHED'),
        ("if other.of not in (None, method.name):", "if False:"),
        ("left = difference(shuffled, before)", "left = difference(trained, before)"),
        (
            'difference(after, arm.scores(study.metric, "after", decoding, turn=0))',
            'difference(after, arm.scores(study.metric, "before", decoding))',
        ),
        (
            'return Verdict("supports", arm, above',
            'return Verdict("contradicts", arm, above',
        ),
    ),
]
