"""Do the fast tests bite? Puts one-line defects into the arithmetic and counts those they catch.

    .venv/bin/python scripts/mutants.py              # all; exit code 1 if under 95 % are killed
    .venv/bin/python scripts/mutants.py losses.py    # only those whose file has this in its name

A defect ("mutant") replaces a text that stands exactly once in its file: a sign, a horizon, a mask,
a shift, an index. It is put into a copy of the packages, never into the working tree, and the fast
tests of that file run there until one fails.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
COPIED = ("maporl_env", "agents", "tests", "docs", "pyproject.toml")
REQUIRED = 0.95
TIMEOUT_SECONDS = 120
"""A test that a mutant keeps from ending has caught it."""

REWARDS = "maporl_env/rewards.py"
CREDIT = "maporl_env/credit.py"
ADVANTAGES = "agents/maporl_agents/advantages.py"
LOSSES = "agents/maporl_agents/losses.py"
BATCHING = "agents/maporl_agents/batching.py"
SCORING = "agents/maporl_agents/scoring.py"
PPO = "agents/maporl_agents/algorithms/maporl.py"
MAGRPO = "agents/maporl_agents/algorithms/magrpo.py"
IAC = "agents/maporl_agents/algorithms/iac.py"
JOINT_TREE = "agents/maporl_agents/joint_tree.py"
MALT = "agents/maporl_agents/algorithms/malt.py"
PREFERENCES = "agents/maporl_agents/preferences.py"
VALUES = "agents/maporl_agents/values.py"

TESTS: dict[str, tuple[str, ...]] = {
    REWARDS: ("tests/env/test_rewards.py",),
    CREDIT: ("tests/env/test_rewards.py", "tests/env/test_debate.py"),
    ADVANTAGES: ("tests/agents/test_advantages.py",),
    LOSSES: ("tests/agents/test_losses.py",),
    BATCHING: ("tests/agents/test_batching.py",),
    SCORING: ("tests/agents/test_scoring.py",),
    PPO: ("tests/agents/test_maporl.py", "tests/agents/test_ppo_options.py"),
    MAGRPO: ("tests/agents/test_magrpo.py",),
    IAC: ("tests/agents/test_iac.py",),
    JOINT_TREE: ("tests/agents/test_magrpo.py",),
    MALT: ("tests/agents/test_malt.py",),
    PREFERENCES: ("tests/agents/test_malt.py",),
    VALUES: ("tests/agents/test_malt.py", "tests/agents/test_magrpo.py"),
}


SLOW_IMPORTS = (
    "pytest",
    "hypothesis.strategies",
    "pettingzoo",
    "gymnasium",
    "torch",
    "safetensors.torch",
    "tokenizers",
    "peft",
    "transformers.models.llama.modeling_llama",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.auto.modeling_auto",
)


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
        ("return 0.5 * masked_mean(errors, mask", "return masked_mean(errors, mask"),
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
        (
            "num_tokens = {policy: int(batch.mask[rows].sum())",
            "num_tokens = {policy: int(batch.mask.sum())",
        ),
        ("total - ppo.entropy_coef * spread", "total + ppo.entropy_coef * spread"),
    ),
    *_of(
        MAGRPO,
        ("part.logprobs if settings.ratio else scores", "scores"),
        ("math.inf if settings.clip_coef is None else settings.clip_coef", "math.inf"),
        (
            "compared = [node_returns(node, settings)",
            "compared = [[r for r in node.rewards if r is not None]",
        ),
        ('fmean if settings.credit == "mean" else math.fsum', "fmean"),
        ("reduction=REDUCTIONS[settings.length]", 'reduction="constant"'),
        ("COMPARISONS[settings.comparison]", 'COMPARISONS["mean"]'),
    ),
    *_of(
        IAC,
        ("gamma ** (later - turn)", "gamma"),
        ("gamma**k * reward for k", "reward for k"),
        ("rewards=targets - values", "rewards=targets"),
        ("scores.values[:, 0]", "scores.values[:, -1]"),
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
]


def main(argv: Sequence[str]) -> int:
    """Run the mutants whose file's name contains an argument, or all; return the exit code."""
    chosen = [m for m in MUTANTS if not argv or any(word in m.file for word in argv)]
    if outdated := stale(chosen):
        for mutant in outdated:
            print(f"{mutant.file} does not hold exactly once: {mutant.old}", file=sys.stderr)
        return 2
    _import_what_is_slow()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            _copy(REPOSITORY / name, copy / name)
        for tests in {TESTS[mutant.file] for mutant in chosen}:
            if not passes(copy, tests):
                print(f"{' '.join(tests)} fail without a mutant: mend them first", file=sys.stderr)
                return 2
        return report(_judged(copy, chosen))


def stale(mutants: Sequence[Mutant]) -> list[Mutant]:
    """Return the mutants whose text does not stand exactly once in its file any more."""
    return [m for m in mutants if (REPOSITORY / m.file).read_text().count(m.old) != 1]


def _judged(copy: Path, mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, bool, float]]:
    """Yield each mutant, whether a test failed, and the seconds that took."""
    for mutant in mutants:
        begun = time.monotonic()
        with planted(copy / mutant.file, mutant):
            killed = not passes(copy, TESTS[mutant.file])
        yield mutant, killed, time.monotonic() - begun


def report(judged: Iterator[tuple[Mutant, bool, float]]) -> int:
    """Print a line per mutant, then the score; return 1 if it is too low."""
    killed, survivors = 0, []
    for mutant, dead, seconds in judged:
        killed += dead
        survivors += [] if dead else [mutant]
        word = "killed" if dead else "SURVIVED"
        print(
            f"{word:8}  {seconds:5.1f} s  {mutant.file}: {mutant.old}  ->  {mutant.new}", flush=True
        )
    total = killed + len(survivors)
    share = killed / total if total else 1.0
    print(f"\n{killed} of {total} killed ({share:.1%}); at least {REQUIRED:.0%} are asked for")
    return 0 if share >= REQUIRED else 1


@contextmanager
def planted(path: Path, mutant: Mutant) -> Iterator[None]:
    """Change the copy of a file for the time of the block."""
    sound = path.read_text()
    path.write_text(sound.replace(mutant.old, mutant.new))
    try:
        yield
    finally:
        path.write_text(sound)


def passes(copy: Path, tests: Sequence[str]) -> bool:
    """Run tests in a fork of this process, which has the slow imports behind it."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os._exit(_run_tests(copy, tests))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run_tests(copy: Path, tests: Sequence[str]) -> int:
    """Run pytest on the copy, silently, until a test fails; return its exit code."""
    import pytest

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir(copy)
    sys.path[:0] = [str(copy), str(copy / "agents")]
    options = ["-x", "-q", "-m", "not slow and not gpu", "-p", "no:cacheprovider"]
    return int(pytest.main([*options, *tests]))


def _import_what_is_slow() -> None:
    """Load the libraries once, before any fork; none of our own modules."""
    sys.dont_write_bytecode = True
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
