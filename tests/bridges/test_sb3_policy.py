"""A language model as a policy of Stable-Baselines3: what it says, what it learns, and our PPO.

The policy is the model: same next-token distribution. SB3's PPO and ours, fed the same tokens,
values and rewards by hand, find the same advantages, the same loss and the same gradient.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("stable_baselines3", reason="needs the extra sb3")
pytest.importorskip("sb3_contrib", reason="needs the extra sb3")

import torch
from miniatures import completion, load_team, save_miniature, shared_tokenizer
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger

from maporl_agents import tiny
from maporl_agents.advantages import gae, whiten
from maporl_agents.algorithms import maporl
from maporl_agents.bridges.sb3_policy import (
    CausalLMPolicy,
    MaskableCausalLMPolicy,
    load_vocabulary,
)
from maporl_agents.config import PPOConfig, TeamConfig
from maporl_agents.models.loading import load_model
from maporl_agents.types import Experience
from maporl_agents.update.batching import Row, batch_of
from maporl_env.bridges.sb3 import DebateVecEnv
from maporl_env.types import Question

WIDTH = 40
QUESTIONS = [Question(f"q{n}", f"say {n}", str(n), "text") for n in range(2)]
TOKENS = {"observation_tokens": WIDTH, "message_tokens": 5, "num_agents": 1, "num_turns": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_miniature(tmp_path_factory.mktemp("model"), "llama", shared_tokenizer(False))


def by_length(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    """A verifier that likes short texts."""
    return [1 / (1 + len(text)) for text in responses]


def make_envs(folder: Path, **options: Any) -> DebateVecEnv:
    tokenizer = load_vocabulary(str(folder))
    return DebateVecEnv(
        2, task=QUESTIONS, tokenizer=tokenizer, verifier=by_length, **(TOKENS | options)
    )


def make_learner(folder: Path, kind: str = "ppo", **options: Any) -> Any:
    algorithm, policy = {
        "ppo": (PPO, CausalLMPolicy),
        "masked": (MaskablePPO, MaskableCausalLMPolicy),
    }[kind]
    settings = {"n_steps": 8, "batch_size": 16, "seed": 0, "device": "cpu", **options}
    return algorithm(policy, make_envs(folder), policy_kwargs={"model": str(folder)}, **settings)


def rows_of_ids(texts: Sequence[Sequence[int]]) -> torch.Tensor:
    observations = torch.zeros(len(texts), WIDTH)
    for row, ids in enumerate(texts):
        observations[row, : len(ids)] = torch.tensor(ids) + 1.0
    return observations


@pytest.mark.parametrize("kind", ["ppo", "masked"])
def test_the_policy_is_the_models_next_token_distribution(folder: Path, kind: str) -> None:
    policy = make_learner(folder, kind).policy
    texts = [[5, 9, 200], [7], [3, 3, 3, 3, 90, 11]]
    with torch.no_grad():
        found = policy.get_distribution(rows_of_ids(texts)).distribution.logits
        for row, ids in zip(found, texts, strict=True):
            exact = policy.features_extractor.model(torch.tensor([ids])).logits[0, -1]
            assert torch.allclose(row[1:-1], exact.log_softmax(-1), atol=1e-5)
            assert row[0].exp() == row[-1].exp() == 0  # padding and the end are no tokens
            assert row.exp().sum() == pytest.approx(1, abs=1e-5)
    _, _, entropy = policy.evaluate_actions(rows_of_ids(texts), torch.tensor([4, 4, 4]))
    assert torch.isfinite(entropy).all()


@pytest.mark.parametrize("model", ["tiny", "tiny-sharing-qwen2"])
def test_built_in_models_are_known_by_name(model: str) -> None:
    """They are read from the package, not looked for on the hub; the ids of both sides agree."""
    envs = DebateVecEnv(2, task="sharing", tokenizer=load_vocabulary(model), **TOKENS)
    learner = PPO(CausalLMPolicy, envs, policy_kwargs={"model": model}, device="cpu")
    exact, _ = load_model(str(tiny.checkpoint(0, model)), TeamConfig(device="cpu"))
    with torch.no_grad():
        found = learner.policy.get_distribution(rows_of_ids([[5, 9]])).distribution.logits[0, 1:-1]
        expected = exact(torch.tensor([[5, 9]])).logits[0, -1].log_softmax(-1)
    assert torch.allclose(found, expected[: len(found)], atol=1e-4)


def test_there_is_no_dropout_between_sampling_and_scoring(folder: Path, tmp_path: Path) -> None:
    """SB3 puts policies into training mode to score what they drew in evaluation mode."""
    dropping = Path(shutil.copytree(folder, tmp_path / "dropping"))
    settings = json.loads((dropping / "config.json").read_text())
    (dropping / "config.json").write_text(json.dumps({**settings, "attention_dropout": 0.5}))
    policy, actions = make_learner(dropping).policy, torch.tensor([4, 5, 6])
    seen = rows_of_ids([[5, 9, 200], [7], [3, 3, 3, 3, 90, 11]])
    with torch.random.fork_rng(), torch.no_grad():
        policy.set_training_mode(False)
        drawn = policy.get_distribution(seen).log_prob(actions)
        policy.set_training_mode(True)
        assert torch.equal(policy.evaluate_actions(seen, actions)[1], drawn)
        policy.features_extractor.model.train()  # the model itself would drop
        assert not torch.allclose(policy.evaluate_actions(seen, actions)[1], drawn, atol=1e-3)


def test_every_weight_has_one_place_and_all_are_trained(folder: Path) -> None:
    policy = make_learner(folder).policy
    owned = [id(p) for group in policy.optimizer.param_groups for p in group["params"]]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in policy.parameters()}
    assert {id(p) for p in policy.features_extractor.model.parameters()} <= set(owned)


@pytest.mark.parametrize("kind", ["ppo", "masked"])
def test_saved_and_loaded_it_says_the_same(folder: Path, kind: str, tmp_path: Path) -> None:
    learner = make_learner(folder, kind, learning_rate=1e-2)
    seen = rows_of_ids([[5, 9, 200], [7, 8]])
    fresh = learner.policy.get_distribution(seen).distribution.logits.detach()
    learner.learn(16)
    learner.save(tmp_path / "learner.zip")
    loaded = type(learner).load(tmp_path / "learner.zip", device="cpu")
    with torch.no_grad():
        after = learner.policy.get_distribution(seen).distribution.logits
        again = loaded.policy.get_distribution(seen).distribution.logits
    assert torch.equal(after, again)
    assert not torch.allclose(after, fresh, atol=1e-3)


def test_an_environment_with_other_ids_is_refused(folder: Path) -> None:
    envs = DebateVecEnv(1, task=QUESTIONS, **TOKENS)  # bytes
    with pytest.raises(ValueError, match="load_vocabulary"):
        PPO(CausalLMPolicy, envs, policy_kwargs={"model": str(folder)})


# -- one batch, fed by hand, through their PPO and ours ---------------------------------------

PROMPTS = [(5, 9, 200), (7, 30), (3, 4, 4, 80)]
MESSAGES = [(11, 12, 13), (40, 41), (90, 91, 92, 93, 94)]
PAID = [1.0, 0.0, 0.5]
GAMMA, LAM, CLIP, CRITIC, ENTROPY = 0.97, 0.9, 0.2, 0.7, 0.01
TOTAL = sum(map(len, MESSAGES))


def fill(learner: Any, old_logprobs: np.ndarray, old_values: np.ndarray) -> None:
    """Put the tokens into SB3's buffer, message after message, one step each."""
    buffer, place = learner.rollout_buffer, 0
    for prompt, message, paid in zip(PROMPTS, MESSAGES, PAID, strict=True):
        for t, token in enumerate(message):
            buffer.add(
                rows_of_ids([prompt + message[:t]]).numpy().astype(np.int64),
                np.array([token + 1]),
                np.array([paid if t == len(message) - 1 else 0.0]),
                np.array([t == 0]),
                torch.tensor([old_values[place]]),
                torch.tensor([old_logprobs[place]]),
            )
            place += 1
    buffer.compute_returns_and_advantage(torch.zeros(1), np.array([True]))


def ours(
    learner: Any, folder: Path, old_logprobs: np.ndarray, old_values: np.ndarray
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Return our advantages before whitening, our loss and the team, on SB3's weights."""
    team = load_team(folder, num_agents=1, num_turns=1)
    model = team.bases[0].model
    model.load_state_dict(learner.policy.features_extractor.model.state_dict())
    team.critics[team.critic(0, 0)] = OneLayer(copy.deepcopy(learner.policy.value_net))
    rows = [
        Row(prompt, completion(ids), team.policy(0, 0), n, 0, 0, paid)
        for n, (prompt, ids, paid) in enumerate(zip(PROMPTS, MESSAGES, PAID, strict=True))
    ]
    batch = batch_of(team, rows)
    mask = batch.mask
    values, logprobs, rewards = torch.zeros(3, *mask.shape)
    values[mask] = torch.tensor(old_values)
    logprobs[mask] = torch.tensor(old_logprobs)
    rewards[torch.arange(3), mask.sum(1) - 1] = batch.rewards
    advantages, returns = gae(rewards, values, mask, gamma=GAMMA, lam=LAM)
    whitened = whiten(advantages, mask)
    experience = Experience(batch, logprobs, logprobs, values, whitened, returns)
    stub = SimpleNamespace(
        team=team, ppo=PPOConfig(clip_coef=CLIP, critic_coef=CRITIC, entropy_coef=ENTROPY)
    )
    loss, _ = maporl.loss_of(stub, experience, {team.policy(0, 0): (TOTAL, 3)}, 1.0)  # type: ignore[arg-type]
    return team, advantages[mask], loss


class OneLayer(torch.nn.Module):  # type: ignore[misc]
    """SB3's critic in the shape of ours: states (..., H) to (...)."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.layer(hidden)[..., 0]


def test_their_ppo_and_ours_agree_on_a_batch(folder: Path) -> None:
    envs = DebateVecEnv(1, task=QUESTIONS, tokenizer=load_vocabulary(str(folder)), **TOKENS)
    learner = PPO(
        CausalLMPolicy,
        envs,
        policy_kwargs={"model": str(folder)},
        n_steps=TOTAL,
        batch_size=TOTAL,
        n_epochs=1,
        learning_rate=0.0,
        gamma=GAMMA,
        gae_lambda=LAM,
        clip_range=CLIP,
        ent_coef=ENTROPY,
        vf_coef=0.5 * CRITIC,  # their squared error has no factor 1/2
        max_grad_norm=1e9,
        device="cpu",
    )
    generator = torch.Generator().manual_seed(3)
    learner.policy.value_net.weight.data.normal_(0, 0.3, generator=generator)
    rng = np.random.default_rng(0)
    old_values = rng.normal(size=TOTAL).astype(np.float32)
    # Old log-probabilities somewhat off the present ones: ratios on both sides of the clip.
    seen = [p + m[:t] for p, m in zip(PROMPTS, MESSAGES, strict=True) for t in range(len(m))]
    said = torch.tensor([token + 1 for message in MESSAGES for token in message])
    with torch.no_grad():
        _, present, _ = learner.policy.evaluate_actions(rows_of_ids(seen), said)
    old_logprobs = present.numpy() + rng.normal(0, 0.3, TOTAL).astype(np.float32)

    fill(learner, old_logprobs, old_values)
    theirs = learner.rollout_buffer.advantages[:, 0].copy()
    learner.set_logger(Logger(None, []))
    learner.train()
    logged = learner.logger.name_to_value

    team, advantages, loss = ours(learner, folder, old_logprobs, old_values)
    assert advantages.numpy() == pytest.approx(theirs, abs=1e-5)
    assert float(loss) == pytest.approx(logged["train/loss"], abs=1e-5)
    assert 0 < logged["train/clip_fraction"] < 1

    loss.backward()
    own = dict(team.bases[0].model.named_parameters())
    other = dict(learner.policy.features_extractor.model.named_parameters())
    assert own.keys() == other.keys()
    assert max(float(p.grad.abs().max()) for p in own.values()) > 1e-2
    for name, parameter in own.items():
        assert torch.allclose(parameter.grad, other[name].grad, atol=1e-5), name
    critic = team.critics[team.critic(0, 0)].layer
    assert torch.allclose(critic.weight.grad, learner.policy.value_net.weight.grad, atol=1e-5)
