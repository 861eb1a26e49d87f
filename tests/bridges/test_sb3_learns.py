"""Stable-Baselines3 learns in the debate: what it trains on is what the debates pay.

The game: the question names one of two words, the answer is that word. Without reading, a policy
is right half of the time at best, so that one that is right at 9 of 10 has learnt to read. For the
language model, random as it is, any vowel is paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sb3_contrib", reason="needs the extra sb3")

from miniatures import save_miniature, shared_tokenizer
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from maporl_agents.bridges.sb3_policy import CausalLMPolicy, load_vocabulary
from maporl_env.bridges.sb3 import DebateVecEnv
from maporl_env.bridges.tokens import TokenDebate
from maporl_env.types import Question

WORDS = ("yes", "no")
QUESTIONS = [Question(word, f"say {word}", word, "text") for word in WORDS]


class Words:
    """A tokenizer of two words; of a text it keeps the first, which the question names."""

    vocab_size = len(WORDS)

    def encode(self, text: str) -> Sequence[int]:
        return [WORDS.index(word) for word in text.replace("\n", " ").split() if word in WORDS][:1]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(WORDS[id_] for id_ in ids)


def exact(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    return [float(text == q.answer) for q, text in zip(questions, responses, strict=True)]


def vowels(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    """The share of vowels."""
    return [sum(map(text.count, "aeiou")) / max(len(text), 1) for text in responses]


def length(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    """A tenth of the characters."""
    return [len(text) / 10 for text in responses]


def make_envs(lanes: int, **options: Any) -> DebateVecEnv:
    return DebateVecEnv(lanes, task=QUESTIONS, num_agents=1, num_turns=1, **options)


class Paid(BaseCallback):  # type: ignore[misc]
    """Notes what each debate says it paid its learner, by the step and lane in which it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[tuple[int, int], float] = {}

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        for lane in map(int, np.flatnonzero(self.locals["dones"])):
            self.totals[self.n_calls - 1, lane] = infos[lane]["turn_rewards"].sum()
        return True


VIEWS: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "one id per step": (MaskablePPO, DebateVecEnv, {}),
    "one id per step, without masks": (PPO, DebateVecEnv, {}),
    "one message per step": (PPO, DebateVecEnv, {"action": "message"}),
    "both agents learn": (MaskablePPO, DebateVecEnv, {"learner": "all"}),
    "both learn by messages": (PPO, DebateVecEnv, {"learner": "all", "action": "message"}),
    "TokenDebate": (MaskablePPO, TokenDebate, {}),
    "TokenDebate, without masks": (PPO, TokenDebate, {}),
}


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_trains_on_what_the_debates_pay(view: str) -> None:
    """Two agents, two turns: rewards in the buffer, summed by debate, and one update on them."""
    kind, make, options = VIEWS[view]
    if options.get("learner") != "all":
        options = {**options, "partners": lambda prompts: [str(len(p)) for p in prompts]}
    if make is DebateVecEnv:
        options = {**options, "num_envs": 4}
    envs = make(
        task=QUESTIONS, num_agents=2, num_turns=2, verifier=length, observation_tokens=400,
        message_tokens=3, obs_dtype="float32", **options,
    )  # fmt: skip
    learner, paid = kind("MlpPolicy", envs, n_steps=24, batch_size=24, n_epochs=1, seed=0), Paid()
    before = [parameter.clone() for parameter in learner.policy.parameters()]
    learner.learn(1, paid)
    rewards = learner.rollout_buffer.rewards
    assert len(paid.totals) >= rewards.shape[1]  # at least one debate has ended in each lane
    started = dict.fromkeys(range(rewards.shape[1]), 0)
    for (step, lane), total in sorted(paid.totals.items()):
        assert rewards[started[lane] : step + 1, lane].sum() == pytest.approx(total)
        started[lane] = step + 1
    assert len(set(paid.totals.values())) > 1  # longer messages were paid more
    after = learner.policy.parameters()
    assert any((old != new).any() for old, new in zip(before, after, strict=True))


class LastWord(Words):
    """The same words; of a text it keeps the last, which the partner said."""

    def encode(self, text: str) -> Sequence[int]:
        return [WORDS.index(word) for word in text.replace("\n", " ").split() if word in WORDS][-1:]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masked_ppo_learns_to_listen(seed: int) -> None:
    """Two agents, two turns; the partner alone can read the question, and says the answer.

    At gamma = 0 a message is paid its own score. Who does not listen is right at most half of the
    time in both turns: 1 per debate. Who does is right in all second turns: up to 1.5.
    """
    envs = DebateVecEnv(
        8,
        lambda prompts: ["yes" if "code 0" in prompt else "no" for prompt in prompts],
        task=[Question(word, f"code {n}", word, "text") for n, word in enumerate(WORDS)],
        num_agents=2,
        num_turns=2,
        gamma=0.0,
        tokenizer=LastWord(),
        verifier=exact,
        observation_tokens=4,
        message_tokens=1,
        obs_dtype="float32",
    )
    learner = masked_ppo(envs, ent_coef=0.05, seed=seed)
    before = mean_reward(envs, np.random.default_rng(seed))
    learner.learn(8000)
    after = played(learner, envs)
    print(f"a partner to listen to: {after:.3f} per debate, chance {before:.3f}, deaf at most 1")
    assert before < 0.9  # 2/3: a word, another, or none, in each turn
    assert after > 1.3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masked_ppo_learns_to_answer(seed: int) -> None:
    """A random player writes yes, no, or the end: right with 1/3 (the word) * 1/3 (the end)."""
    envs = make_envs(
        8, tokenizer=Words(), verifier=exact, observation_tokens=4, message_tokens=2,
        obs_dtype="float32",
    )  # fmt: skip
    # With a lower entropy bonus some seeds settle on one word, whatever they read.
    learner = masked_ppo(envs, ent_coef=0.1, seed=seed)
    before = mean_reward(envs, np.random.default_rng(seed))
    learner.learn(8000)
    after = played(learner, envs)
    print(f"one of two words: {after:.3f} per debate, chance {before:.3f}, blind at most .5")
    assert before < 0.25  # 1/9
    assert after > 0.9


def masked_ppo(envs: DebateVecEnv, *, ent_coef: float, seed: int) -> MaskablePPO:
    """Return a network that learns by PPO, undiscounted."""
    return MaskablePPO(
        "MlpPolicy",
        envs,
        n_steps=64,
        batch_size=128,
        learning_rate=1e-3,
        ent_coef=ent_coef,
        gamma=1.0,
        seed=seed,
    )


def mean_reward(envs: DebateVecEnv, rng: np.random.Generator) -> float:
    """Return what random legal ids earn per debate."""
    envs.seed(0)
    envs.reset()
    paid, ends = 0.0, 0
    for _ in range(100):
        masks = envs.env_method("action_masks")
        _, rewards, dones, _ = envs.step(np.array([rng.choice(np.flatnonzero(m)) for m in masks]))
        paid, ends = paid + rewards.sum(), ends + dones.sum()
    return float(paid / ends)


def played(learner: Any, envs: DebateVecEnv) -> float:
    """Return what a masked policy earns per debate, sampled."""
    envs.seed(99)
    seen, paid, ends = envs.reset(), 0.0, 0
    for _ in range(100):
        masks = np.stack(envs.env_method("action_masks"))
        seen, rewards, dones, _ = envs.step(learner.predict(seen, action_masks=masks)[0])
        paid, ends = paid + rewards.sum(), ends + dones.sum()
    return float(paid / ends)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_language_model_learns_under_ppo(seed: int, tmp_path: Path) -> None:
    """The share of vowels, sampled, rises by 0.3 at least."""
    folder = str(save_miniature(tmp_path / "model", "llama", shared_tokenizer(False), seed=seed))
    envs = make_envs(
        8, tokenizer=load_vocabulary(folder), verifier=vowels, observation_tokens=40,
        message_tokens=2,
    )  # fmt: skip
    learner = PPO(
        CausalLMPolicy,
        envs,
        policy_kwargs={"model": folder},
        n_steps=32,
        batch_size=256,
        n_epochs=4,
        learning_rate=3e-3,
        gamma=1.0,
        seed=seed,
        device="cpu",
    )
    before, _ = evaluate_policy(learner, envs, n_eval_episodes=64, deterministic=False, warn=False)
    learner.learn(4096)
    after, _ = evaluate_policy(learner, envs, n_eval_episodes=64, deterministic=False, warn=False)
    print(f"share of vowels of a language model: {before:.3f}, after training {after:.3f}")
    assert after > before + 0.3
