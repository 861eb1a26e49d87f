"""Which weights belong to whom: isolation, exact names, saving and loading."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import load_team, make_rollout, stir
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from maporl_agents.models.critics import ValueHead
from maporl_agents.models.lora import LoraBase
from maporl_agents.models.team import Team, policy_name
from maporl_agents.records.storage import CheckpointError
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import collate
from maporl_agents.update.token_logprobs import score_tokens

PROMPT = torch.tensor([[5, 6, 7, 8]])


def make_batch(team: Team) -> TokenBatch:
    """One message of every agent."""
    n = team.num_agents
    rollout = make_rollout(
        team, [(5, 6, 7)] * n, [(8 + seat, 9) for seat in range(n)], rewards=np.zeros((1, n))
    )
    return collate(team, [rollout])[0]


def everything(team: Team) -> dict[str, Tensor]:
    """Every tensor of a team by name: bases, adapters, references, critics."""
    named = {f"critics/{name}": tensor for name, tensor in team.critics.state_dict().items()}
    for index, base in enumerate(team.bases):
        for part in ("model", "reference"):
            module = getattr(base, part, None)
            if module is not None:
                states = module.state_dict().items()
                named |= {f"{index}/{part}/{name}": tensor for name, tensor in states}
    return named


def snapshot(team: Team) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in everything(team).items()}


def touched(team: Team) -> set[str]:
    """Policies and critics that hold a gradient other than zero."""
    found = {
        policy
        for policy, named in team.trainable().items()
        for p in named.values()
        if p.grad is not None and p.grad.any()
    }
    return found | {
        f"critic of {name}"
        for name, head in team.critics.items()
        for p in head.parameters()
        if p.grad is not None and p.grad.any()
    }


@pytest.mark.parametrize(("tuning", "agents"), [("full", 3), ("lora", 12)])
class TestIsolation:
    """Failures B1 to B3. With twelve agents, "agent_1" is part of "agent_10" and "agent_11"."""

    @pytest.mark.thorough
    @pytest.mark.parametrize("seat", [0, 1, -1])
    def test_a_loss_on_one_agent_reaches_that_agent_alone(
        self, checkpoint, tuning: str, agents: int, seat: int
    ) -> None:
        team = load_team(checkpoint("llama"), num_agents=agents, num_turns=1, tuning=tuning)
        stir(team)
        seat %= agents
        batch = make_batch(team)
        scores = score_tokens(team, batch, temperature=1.0, with_values=True)
        (scores.logprobs[seat].sum() + scores.values[seat].sum()).backward()
        assert touched(team) == {f"agent_{seat}", f"critic of agent_{seat}_turn_0"}
        assert all(p.grad is not None for p in team.trainable()[f"agent_{seat}"].values())

    def test_a_step_moves_every_declared_weight_and_nothing_else(
        self, checkpoint, tuning: str, agents: int
    ) -> None:
        """Failure A11, and the base and the reference stay bitwise what they were."""
        team = load_team(checkpoint("llama"), num_agents=agents, num_turns=1, tuning=tuning)
        stir(team)
        declared = [p for named in team.trainable().values() for p in named.values()]
        declared += list(team.critics.parameters())
        before = snapshot(team)
        optimizer = torch.optim.SGD(declared, lr=1.0)
        scores = score_tokens(team, make_batch(team), temperature=1.0, with_values=True)
        (scores.logprobs + scores.values).sum().backward()
        optimizer.step()
        owned = {p.data_ptr() for p in declared}
        unread = 0
        for name, tensor in everything(team).items():
            moved = not torch.equal(tensor, before[name])
            assert moved == (tensor.data_ptr() in owned), name
            unread += not moved
        assert unread > 0  # the reference, or the frozen base

    def test_policies_share_no_parameter(self, checkpoint, tuning: str, agents: int) -> None:
        team = load_team(checkpoint("gpt2"), num_agents=agents, num_turns=1, tuning=tuning)
        owned = [{id(p) for p in named.values()} for named in team.trainable().values()]
        assert len(owned) == agents
        assert all(owned)
        assert sum(map(len, owned)) == len(set().union(*owned))
        assert len({len(one) for one in owned}) == 1

    @pytest.mark.thorough
    def test_save_and_load_are_bitwise(
        self, checkpoint, tmp_path: Path, tuning: str, agents: int
    ) -> None:
        """Failure B6: the loaded team has the saved weights, trains the same ones, scores alike."""
        settings = {"num_agents": agents, "num_turns": 1, "tuning": tuning}
        team = load_team(checkpoint("llama"), **settings)
        stir(team)
        team.save(tmp_path)
        other = load_team(checkpoint("llama"), **settings, seed=7)
        other.load(tmp_path)
        for policy, named in team.trainable().items():
            again = other.trainable()[policy]
            assert named.keys() == again.keys()
            assert all(torch.equal(p, again[name]) for name, p in named.items())
            assert all(again[name].requires_grad for name in named)
        batch = make_batch(team)
        first, second = (
            score_tokens(t, batch, temperature=1.0, with_values=True) for t in (team, other)
        )
        assert torch.equal(first.logprobs, second.logprobs)
        assert torch.equal(first.values, second.values)


def logits_of(team: Team, policy: str) -> Tensor:
    base = team.base_of(policy)
    shape = torch.ones_like(PROMPT)
    with torch.no_grad():
        return base.logits(base.hidden(PROMPT, shape, torch.arange(4)[None], [policy]))


class TestPlainLibrariesReadIt:
    @pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
    def test_adapters_load_with_peft(self, checkpoint, tmp_path: Path, family: str) -> None:
        folder = checkpoint(family)
        agents = 11 if family == "llama" else 2
        team = load_team(folder, num_agents=agents, num_turns=1, tuning="lora")
        stir(team)
        team.save(tmp_path)
        for policy in ("agent_1", f"agent_{agents - 1}"):
            model = AutoModelForCausalLM.from_pretrained(folder)
            plain = PeftModel.from_pretrained(model, tmp_path / "policies" / policy).eval()
            with torch.no_grad():
                logits = plain(input_ids=PROMPT).logits
            torch.testing.assert_close(logits, logits_of(team, policy), atol=1e-5, rtol=1e-5)
            assert plain.peft_config["default"].base_model_name_or_path == str(folder)

    @pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
    def test_full_models_load_with_transformers(
        self, checkpoint, tmp_path: Path, family: str
    ) -> None:
        team = load_team(checkpoint(family), num_turns=1)
        stir(team)
        team.save(tmp_path)
        folder = tmp_path / "policies" / "agent_1"
        plain = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.no_grad():
            logits = plain(input_ids=PROMPT).logits
        torch.testing.assert_close(logits, logits_of(team, "agent_1"), atol=1e-5, rtol=1e-5)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        chat = team.bases[1].chat
        assert tokenizer("how much ?")["input_ids"] == chat.tokenizer("how much ?")["input_ids"]
        assert tokenizer.eos_token_id == chat.tokenizer.eos_token_id


class TestWrongTeam:
    @pytest.fixture
    def saved(self, checkpoint, tmp_path: Path) -> Path:
        load_team(checkpoint("llama"), num_turns=1, tuning="lora").save(tmp_path)
        return tmp_path

    def test_a_missing_policy_is_named(self, checkpoint, saved: Path) -> None:
        team = load_team(checkpoint("llama"), num_agents=3, num_turns=1, tuning="lora")
        with pytest.raises(ValueError, match=r"agent_2 holds no \*.safetensors"):
            team.load(saved)

    def test_another_rank_is_named_with_both_shapes(self, checkpoint, saved: Path) -> None:
        team = load_team(checkpoint("llama"), num_turns=1, tuning="lora", lora_rank=4)
        with pytest.raises(ValueError, match=r"lora_A.* has shape \(8, 32\).* wants \(4, 32\)"):
            team.load(saved)

    def test_another_way_of_tuning_is_named(self, checkpoint, saved: Path) -> None:
        team = load_team(checkpoint("llama"), num_turns=1)
        with pytest.raises(ValueError, match=r"does not fit the model: missing .*embed_tokens"):
            team.load(saved)

    def test_other_critics_are_named(self, checkpoint, saved: Path) -> None:
        team = load_team(checkpoint("llama"), num_turns=2, tuning="lora")
        with pytest.raises(ValueError, match=r"critics.* missing .*agent_0_turn_1"):
            team.load(saved)

    @pytest.mark.parametrize("damage", ["critics", "second policy"])
    def test_a_team_that_cannot_be_loaded_changes_nothing(
        self, checkpoint, saved: Path, damage: str
    ) -> None:
        team = load_team(checkpoint("llama"), num_turns=1, tuning="lora", seed=7)
        stir(team)
        before = snapshot(team)
        if damage == "critics":
            (saved / "critics.safetensors").unlink()
        else:
            shutil.rmtree(saved / "policies" / "agent_1")
        with pytest.raises((ValueError, CheckpointError)):
            team.load(saved)
        assert all(torch.equal(tensor, before[name]) for name, tensor in everything(team).items())


class TestNames:
    @pytest.mark.parametrize(
        ("sharing", "names"),
        [
            ("agent", ["agent_1"] * 3),
            ("turn", ["agent_1_turn_0", "agent_1_turn_1", "agent_1_turn_2"]),
            ("first_turn", ["agent_1_first", "agent_1_later", "agent_1_later"]),
            ("one", ["all"] * 3),
        ],
    )
    def test_sharing(self, checkpoint, sharing: str, names: list[str]) -> None:
        assert [policy_name(sharing, 1, turn) for turn in range(3)] == names  # type: ignore[arg-type]
        team = load_team(checkpoint("llama"), tuning="lora", sharing=sharing)
        assert [team.policy(1, turn) for turn in range(3)] == names
        assert set(team.policies) == {team.policy(a, t) for a in range(2) for t in range(3)}
        assert len(team.bases) == 1
        assert len(team.critics) == 6

    def test_turns_beyond_the_last_use_its_policy_and_critic(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), tuning="lora", sharing="turn", num_turns=2)
        assert team.policy(0, 5) == "agent_0_turn_1"
        assert team.critic(0, 5) == "agent_0_turn_1"

    def test_agents_and_turns_beyond_the_last_learn_as_it_does(self, checkpoint) -> None:
        settings = {"train_turns": "2", "train_agents": (1,), "num_turns": 2}
        team = load_team(checkpoint("llama"), tuning="lora", **settings)
        assert [team.trains(1, turn) for turn in (0, 1, 2, 7)] == [False, True, True, True]
        assert [team.trains(seat, 7) for seat in (0, 1, 2, 7)] == [False, True, True, True]
        first = load_team(checkpoint("llama"), tuning="lora", train_turns="1", num_turns=2)
        assert [first.trains(5, turn) for turn in (0, 1, 2)] == [True, False, False]

    def test_adapters_in_one_batch_are_those_of_their_rows(self, checkpoint) -> None:
        team = load_team(checkpoint("gpt2"), num_agents=12, num_turns=1, tuning="lora")
        stir(team)
        [base] = team.bases
        names = [f"agent_{seat}" for seat in (10, 1, 0, 11, 1)]
        shape = (5, 4)
        positions = torch.arange(4).expand(shape)
        with torch.no_grad():
            together = base.hidden(PROMPT.expand(shape), torch.ones(shape), positions, names)
        apart = torch.cat([logits_of(team, name) for name in names])
        torch.testing.assert_close(base.logits(together), apart, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(apart[0], apart[1], atol=1e-3)

    def test_an_error_inside_the_reference_pass_leaves_the_adapters_on(self, checkpoint) -> None:
        """Failure B5."""
        team = load_team(checkpoint("llama"), num_turns=1, tuning="lora")
        stir(team)
        before = logits_of(team, "agent_0")
        [base] = team.bases
        assert isinstance(base, LoraBase)
        too_large = torch.full((1, 4), 10_000)
        with pytest.raises(IndexError):
            base.hidden(
                too_large, torch.ones(1, 4), torch.arange(4)[None], ["agent_0"], reference=True
            )
        assert torch.equal(logits_of(team, "agent_0"), before)
        assert all(p.requires_grad for p in team.trainable()["agent_0"].values())


def test_dropout_is_off(checkpoint) -> None:
    """Failure A4: a GPT-2 as it comes has dropout 0.1."""
    team = load_team(checkpoint("gpt2"), num_turns=1)
    assert team.bases[0].model.config.resid_pdrop == 0.1
    batch = make_batch(team)
    first, second = (score_tokens(team, batch, temperature=1.0).logprobs for _ in range(2))
    assert torch.equal(first, second)


def test_a_fresh_critic_says_zero_and_is_named_by_its_seed() -> None:
    first, second = (ValueHead(32, 8, torch.Generator().manual_seed(3)) for _ in range(2))
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert not first(hidden).any()
    assert torch.equal(first.inner.weight, second.inner.weight)
    assert first.inner.weight.std().item() == pytest.approx(32**-0.5, rel=0.2)
