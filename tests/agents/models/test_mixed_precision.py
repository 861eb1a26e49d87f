"""Weights below float32 are trained through float32 copies; what is not finite is said as it is."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from miniatures import load_team
from transformers import AutoModelForCausalLM

from maporl_agents.config import OptimizerConfig, TeamConfig
from maporl_agents.models import mixed_precision
from maporl_agents.models.loading import make_team
from maporl_agents.models.mixed_precision import computes, slow_arithmetic
from maporl_agents.models.team import Team
from maporl_agents.training.checkpointing import load_checkpoint, save_checkpoint
from maporl_agents.update.optimiser import PolicyLearner

SETTINGS = OptimizerConfig(learning_rate=1e-5, warmup_steps=0, schedule="constant")
SHORT = ["bfloat16", "float16"]


def team_of(folder: Path, dtype: str, tuning: str = "full") -> Team:
    return load_team(folder, num_agents=1, num_turns=1, tuning=tuning, dtype=dtype)


def learner_of(team: Team) -> PolicyLearner:
    return PolicyLearner(team, SETTINGS, 100, critic_learning_rate=1e-5)


def backward(team: Team) -> None:
    """Add the gradient of some logits and values, as from one micro-batch."""
    ids = torch.arange(8)[None]
    base = team.bases[0]
    hidden = base.hidden(ids, torch.ones_like(ids), ids, ["agent_0"])
    values = team.critics["agent_0_turn_0"](hidden)
    logprobs = base.logits(hidden).float().log_softmax(-1)
    (values.sum() - logprobs[0, range(8), range(1, 9)].mean()).backward()


def step(learner: PolicyLearner) -> None:
    backward(learner.team)
    learner.apply_gradients()


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("dtype", SHORT)
def test_weights_and_moments_are_float32(checkpoint, dtype: str, tuning: str) -> None:
    team = team_of(checkpoint("qwen2"), dtype, tuning)
    assert team.bases[0].model.dtype == getattr(torch, dtype)
    learner = learner_of(team)
    step(learner)
    parameters = [p for group in learner.optimizer.param_groups for p in group["params"]]
    assert {p.dtype for p in parameters} == {torch.float32}
    moments = [value for s in learner.optimizer.state.values() for value in s.values()]
    assert {value.dtype for value in moments} == {torch.float32}


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", SHORT)
def test_small_steps_add_up_as_in_float32(checkpoint, dtype: str) -> None:
    """One step of 1e-5 is below the last digit of most weights; a hundred are not."""
    found = {}
    for name in ("float32", dtype):
        team = team_of(checkpoint("qwen2"), name)
        start = {n: p.detach().clone() for n, p in team.trainable()["agent_0"].items()}
        learner = learner_of(team)
        for _ in range(20):
            step(learner)
        moved = [(p.detach() - start[n]) for n, p in team.trainable()["agent_0"].items()]
        found[name] = torch.cat([one.flatten() for one in moved])
    assert torch.cosine_similarity(found[dtype], found["float32"], dim=0) > 0.9
    assert (found[dtype] != 0).float().mean() > 0.9 * (found["float32"] != 0).float().mean()
    for name, own in team.bases[0].model.named_parameters():
        assert torch.equal(own, team.trainable()["agent_0"][name].to(own.dtype)), name


def test_micro_batches_add_up_in_float32(checkpoint) -> None:
    """In bfloat16 256 + 1 is 256."""
    team = team_of(checkpoint("llama"), "bfloat16")
    own = team.bases[0].model.model.norm.weight
    for share in (256.0, 1.0, 1.0, 1.0):
        (own[0] * share).backward()
    assert own.grad is None
    copy = team.trainable()["agent_0"]["model.norm.weight"]
    assert copy.grad is not None
    assert copy.grad[0] == 259


def test_float32_weights_have_no_copy(checkpoint) -> None:
    team = team_of(checkpoint("llama"), "float32")
    own = dict(team.bases[0].model.named_parameters())
    assert all(p is own[name] for name, p in team.trainable()["agent_0"].items())


@pytest.mark.parametrize("dtype", SHORT)
def test_a_checkpoint_keeps_the_copies(checkpoint, tmp_path: Path, dtype: str) -> None:
    """A resumed run goes on from float32; plain transformers reads the same folder, rounded."""
    learner, other = (learner_of(team_of(checkpoint("qwen2"), dtype)) for _ in range(2))
    step(learner)
    saved = save_checkpoint(tmp_path, 1, learner)
    assert load_checkpoint(tmp_path, other) == 1
    for _ in range(2):
        mine, its = (one.team.trainable()["agent_0"] for one in (learner, other))
        assert all(torch.equal(p, its[name]) for name, p in mine.items())
        rounded = (dict(one.team.bases[0].model.named_parameters()) for one in (learner, other))
        first, second = rounded
        assert all(torch.equal(p, second[name]) for name, p in first.items())
        step(learner)
        step(other)
    plain = AutoModelForCausalLM.from_pretrained(saved / "policies" / "agent_0")
    assert plain.dtype == getattr(torch, dtype)


class TestNotFinite:
    def test_a_gradient_is_found_before_the_step(self, checkpoint) -> None:
        learner = learner_of(team_of(checkpoint("llama"), "float32"))
        step(learner)
        weight = learner.trained["agent_0"][0]
        before = weight.detach().clone()
        backward(learner.team)
        assert weight.grad is not None
        weight.grad[0] = torch.inf
        with pytest.raises(FloatingPointError, match="this update was not made"):
            learner.apply_gradients()
        assert torch.equal(weight, before)

    @pytest.mark.parametrize("whose", ["agent_0", "agent_0_turn_0"])
    def test_a_weight_is_found_after_the_step(self, checkpoint, whose: str) -> None:
        """The update was made, and the error does not say that it was not."""
        learner = learner_of(team_of(checkpoint("llama"), "float32"))
        step(learner)
        weight = (learner.trained | learner.critics)[whose][0]
        learner.optimizer.state[weight]["exp_avg"].fill_(torch.nan)
        with pytest.raises(FloatingPointError, match=f"weights of {whose} became nan in this") as e:
            step(learner)
        assert "not made" not in str(e.value)


@pytest.mark.parametrize(
    ("dtype", "found", "able"),
    [
        ("bfloat16", {"architecture": "x86_64", "avx512_bf16": False}, False),
        ("bfloat16", {"architecture": "x86_64", "avx512_bf16": True}, True),
        ("bfloat16", {"architecture": "x86_64", "amx_bf16": True}, True),
        ("float16", {"architecture": "x86_64", "avx512_bf16": True}, False),
        ("float16", {"architecture": "x86_64", "avx512_fp16": True}, True),
        ("bfloat16", {"architecture": "aarch64"}, True),
        ("bfloat16", {}, True),
    ],
)
def test_a_processor_computes_in_what_it_has(dtype: str, found: dict, able: bool) -> None:
    assert computes(dtype, found) is able


def test_the_advice_names_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_precision, "_capabilities", lambda: {"architecture": "x86_64"})
    [advice] = slow_arithmetic(TeamConfig(dtype="bfloat16", device="cpu"))
    assert "no arithmetic for bfloat16" in advice
    assert "leave out --team.dtype" in advice
    assert slow_arithmetic(TeamConfig(device="cpu")) == []
    assert slow_arithmetic(TeamConfig(dtype="bfloat16", device="cuda")) == []


def test_adapters_are_made_without_a_notice_of_another_library() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        config = TeamConfig(tuning="lora", gradient_checkpointing=True)
        make_team(config, num_agents=2, num_turns=2, seed=0)
