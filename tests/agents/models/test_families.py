"""The same laws for every family of models, each in its dialect, loaded as a user's would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dialects import DIALECTS, NATIVE
from miniatures import load_team, stir
from torch import Tensor
from transformers import Phi3Config, Phi3ForCausalLM

from maporl_agents.algorithms.maporl import train_step
from maporl_agents.config import PPOConfig, Sampling, TeamConfig, TrainConfig
from maporl_agents.losses import kl_estimate
from maporl_agents.models.bases import window_of
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.types import Rollout, TokenBatch
from maporl_agents.update.batching import collate
from maporl_agents.update.optimiser import PPOLearner
from maporl_agents.update.token_logprobs import score_tokens
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig
from maporl_env.types import Question

FAMILIES = tuple(NATIVE)
QUESTIONS = [Question(f"q/{i}", f"how much is {i} and three ?", str(i + 3)) for i in range(2)]
SAMPLING = Sampling(max_new_tokens=4, temperature=0.8)
EITHER = [
    pytest.param(
        *(family, tuning),
        marks=() if tuning == "lora" or family == "llama" else pytest.mark.thorough,
    )
    for family in FAMILIES
    for tuning in ("full", "lora")
]
"""Families with tunings; the quick tests train one family in full."""
PPO = PPOConfig(minibatches=1, warmup_steps=0)
GATED = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
TARGETS = dict.fromkeys(FAMILIES, GATED) | {
    "phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
}
"""Every linear map of attention and feed-forward, by its family's name for it."""

Native = Callable[[str], Path]


def make_debates(num_agents: int = 2) -> BatchedDebate:
    debate = DebateConfig(task=QUESTIONS, num_agents=num_agents, num_turns=2)
    return BatchedDebate(debate, len(QUESTIONS))


def played(team: Team) -> tuple[list[Rollout], TokenBatch]:
    rollouts = play(team, make_debates(team.num_agents), QUESTIONS, SAMPLING, seed=3)
    return rollouts, collate(team, rollouts)[0]


@torch.no_grad()
def logprobs_of(team: Team, batch: TokenBatch, *, reference: bool = False) -> Tensor:
    return score_tokens(team, batch, temperature=0.8, reference=reference).logprobs


@pytest.mark.parametrize(("family", "tuning"), EITHER)
def test_log_probabilities(native: Native, family: str, tuning: str) -> None:
    """Played, scored together, shuffled, alone: the same (A1, A3, A5); prompts outgrow windows."""
    team = load_team(native(family), num_turns=2, tuning=tuning)
    _, fresh = played(team)
    own, frozen = logprobs_of(team, fresh), logprobs_of(team, fresh, reference=True)
    for estimator in ("k1", "k2", "k3"):  # A2: 0 within the rounding of two products
        assert kl_estimate(own, frozen, estimator).abs().max() <= 1e-5
    stir(team)
    _, batch = played(team)
    assert min(map(len, batch.prompts)) > 16  # twice the sliding windows of the miniatures
    whole = logprobs_of(team, batch)
    assert (whole[batch.mask] < -1e-3).any()
    torch.testing.assert_close(batch.sampled_logprobs, whole, atol=1e-5, rtol=1e-5)
    graded = score_tokens(team, batch, temperature=0.8).logprobs
    torch.testing.assert_close(graded.detach(), whole, atol=1e-5, rtol=1e-5)
    order = list(range(len(batch)))[::-1]
    for rows in ([0], [len(batch) - 1], order, order[::2]):
        part = batch.select(rows)
        expected = whole[rows, : part.mask.shape[1]]
        torch.testing.assert_close(logprobs_of(team, part), expected, atol=1e-5, rtol=1e-5)


def long_phi3() -> Phi3ForCausalLM:
    """A random Phi-3 whose angles change beyond 32 tokens; settings as in the hub's 128k."""
    angles = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    config = Phi3Config.from_dict(
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "vocab_size": 300,
            "pad_token_id": 0,
            "max_position_embeddings": 128,
            "original_max_position_embeddings": 32,
            "rope_scaling": angles,
        }
    )
    with torch.random.fork_rng(devices=[]):
        model = Phi3ForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.25, generator=generator)
    return model


@torch.no_grad()
def test_a_model_is_read_up_to_where_its_angles_change() -> None:
    """LongRoPE: with a longer text beside it, a text has other log-probabilities (A3)."""
    model = long_phi3()
    window = window_of(model)
    assert window == 32
    ids = torch.randint(0, 300, (2, 64), generator=torch.Generator().manual_seed(1))
    logits = model(ids[:, :window]).logits[0]

    def beside_one_of(length: int) -> Tensor:
        mask = torch.ones(2, length, dtype=torch.long)
        mask[0, window:] = 0
        return model(ids[:, :length], attention_mask=mask).logits[0, :window]

    torch.testing.assert_close(beside_one_of(window), logits)
    assert (beside_one_of(window + 1) - logits).abs().max() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_the_window_of_the_others_is_what_they_say(native: Native, family: str) -> None:
    team = load_team(native(family), num_turns=1, tuning="none")
    assert window_of(team.bases[0].model) == (1024 if family == "gpt2" else 2048)


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_on_every_linear_map_of_every_layer(native: Native, family: str) -> None:
    team = load_team(native(family), num_turns=1, tuning="lora")
    names = team.bases[0].peft.targeted_module_names  # type: ignore[attr-defined]
    assert {name.rsplit(".", 1)[-1] for name in names} == TARGETS[family]
    # GPT-2 has two maps named c_proj, in attention and in the feed-forward part.
    assert len(names) == 2 * (len(TARGETS[family]) + (family == "gpt2"))


@pytest.mark.parametrize(("family", "tuning"), EITHER)
def test_a_loss_on_one_agent_reaches_all_its_weights_and_no_other(
    native: Native, family: str, tuning: str
) -> None:
    """Failures B1, B2."""
    team = load_team(native(family), num_turns=2, tuning=tuning)
    stir(team)
    _, batch = played(team)
    rows = [row for row, policy in enumerate(batch.policies) if policy == "agent_1"]
    score_tokens(team, batch, temperature=0.8).logprobs[rows].sum().backward()
    reached = {
        policy: [p.grad is not None and bool(p.grad.any()) for p in named.values()]
        for policy, named in team.trainable().items()
    }
    assert all(reached["agent_1"])
    assert not any(reached["agent_0"])


@pytest.mark.parametrize(("family", "tuning"), EITHER)
def test_a_training_step_and_what_is_saved(
    native: Native, family: str, tuning: str, tmp_path: Path
) -> None:
    """Every trained weight moves, nothing else does, and a fresh team reads it back (B6, B13)."""
    team = load_team(native(family), num_turns=2, tuning=tuning)
    _, batch = played(team)
    reference = logprobs_of(team, batch, reference=True)
    learner = PPOLearner(team, PPO, steps=2)
    owned = [p for group in (learner.trained, learner.critics) for ps in group.values() for p in ps]
    stir(team)  # as fresh, adapters and critics hold zeros, which keep gradients from others
    before = [p.detach().clone() for p in owned]
    _, metrics = train_step(
        learner, make_debates(), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1
    )
    assert metrics["updates"] == 1
    assert metrics["sampler_mismatch"] < 1e-5
    assert not any(map(torch.equal, before, owned))
    assert torch.equal(logprobs_of(team, batch, reference=True), reference)
    team.save(tmp_path)
    again = load_team(native(family), num_turns=2, tuning=tuning, seed=7)
    again.load(tmp_path)
    assert torch.equal(logprobs_of(again, batch), logprobs_of(team, batch))
    assert not torch.equal(logprobs_of(again, batch), reference)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gpt2"])
def test_messages_end_as_the_dialect_ends_them(native: Native, family: str) -> None:
    """Also where neither tokenizer nor generation config names that token."""
    chat = load_team(native(family), num_turns=1, tuning="none").bases[0].chat
    dialect = DIALECTS[NATIVE[family]]
    ends = chat.tokenizer.convert_tokens_to_ids([dialect.ends, dialect.eos])
    assert chat.stop_ids == set(ends)


class TestHeterogeneous:
    """Teams of several families: each reads in its own dialect, all learn in one run."""

    def team(self, native: Native, families: tuple[str, ...], **settings: object) -> Team:
        folders = [native(family) for family in families]
        return load_team(folders, num_agents=len(folders), num_turns=2, **settings)

    @pytest.mark.parametrize("tuning", ["full", pytest.param("lora", marks=pytest.mark.thorough)])
    def test_two_families_train_together(self, native: Native, tuning: str) -> None:
        team = self.team(native, ("llama", "gemma2"), tuning=tuning)
        stir(team)
        learner = PPOLearner(team, PPO, steps=2)
        before = {name: [p.clone() for p in ps] for name, ps in learner.trained.items()}
        rollouts, metrics = train_step(
            learner, make_debates(), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1
        )
        assert metrics["sampler_mismatch"] < 1e-5
        for policy, old in before.items():
            assert not all(map(torch.equal, old, learner.trained[policy])), policy
        for rollout in rollouts:
            self.check_texts(team, rollout)

    @pytest.mark.thorough
    def test_all_families_in_one_debate(self, native: Native) -> None:
        team = self.team(native, FAMILIES, tuning="lora")
        assert len(team.bases) == len(FAMILIES)
        rollouts, batch = played(team)
        for rollout in rollouts:
            self.check_texts(team, rollout)
        found = logprobs_of(team, batch)
        torch.testing.assert_close(batch.sampled_logprobs, found, atol=1e-5, rtol=1e-5)

    def check_texts(self, team: Team, rollout: Rollout) -> None:
        """What others read is the decoded sample; a prompt has the markers of its own dialect."""
        for message, prompt, one, policy in rollout.spoken():
            tokenizer = team.base_of(policy).chat.tokenizer
            assert message.text == one.text == team.base_of(policy).chat.decode(one.ids)
            read = tokenizer.decode(list(prompt))
            assert read.startswith(tokenizer.bos_token or "")
            assert "how much is" in read
            if message.turn and message.agent != "agent_0":
                said = rollout.transcript.messages[0].text
                assert said in read or not said.isprintable()


@pytest.mark.thorough
def test_a_model_spread_by_accelerate_is_the_same_model(native: Native) -> None:
    """On a machine with one device; where there are several, layers go to all."""
    settings = TeamConfig(model=(str(native("llama")),), tuning="lora", device_map="auto")
    team = make_team(settings, num_agents=2, num_turns=2, seed=0)
    plain = load_team(native("llama"), num_turns=2, tuning="lora")
    _, batch = played(plain)
    torch.testing.assert_close(
        logprobs_of(team, batch), logprobs_of(plain, batch).to(batch.ids.device)
    )


@pytest.mark.parametrize(
    "attention",
    ["eager", pytest.param("sdpa", marks=pytest.mark.thorough)],  # the usual one
)
def test_attention_is_computed_as_asked(native: Native, attention: str) -> None:
    team = load_team(native("llama"), num_turns=2, tuning="lora", attention=attention)
    assert team.bases[0].model.config._attn_implementation == attention
    plain = load_team(native("llama"), num_turns=2, tuning="lora")
    _, batch = played(plain)
    torch.testing.assert_close(
        logprobs_of(team, batch), logprobs_of(plain, batch), atol=1e-5, rtol=1e-5
    )
