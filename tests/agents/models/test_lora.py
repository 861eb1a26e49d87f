"""Adapters: to begin from, for critics, and recomputed in the backward pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapter_cases import make_batch
from miniatures import load_team, stir
from peft import PeftModel
from ppo_cases import one_update
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from maporl_agents.algorithms.maporl import evaluate_tokens
from maporl_agents.config import PPOConfig, TeamConfig
from maporl_agents.losses import kl_estimate
from maporl_agents.measure.step_metrics import experience_metrics
from maporl_agents.models.lora import LoraBase
from maporl_agents.models.team import Team
from maporl_agents.update.optimiser import PPOLearner
from maporl_agents.update.token_logprobs import score_tokens

PROMPT = torch.tensor([[5, 6, 7, 8]])


def logits_of(team: Team, policy: str, *, reference: bool = False) -> Tensor:
    base = team.base_of(policy)
    places = torch.arange(PROMPT.shape[1])[None]
    with torch.no_grad():
        states = base.hidden(PROMPT, torch.ones_like(PROMPT), places, [policy], reference=reference)
        return base.logits(states, reference=reference)


class TestStart:
    """Failure B4: the reference is the adapter a run began as, not the bare base."""

    @pytest.fixture
    def begun(self, checkpoint, tmp_path: Path) -> Path:
        """A saved team whose adapters are no longer zero; rank 4 and scale 8."""
        team = load_team(checkpoint("llama"), tuning="lora", lora_rank=4, lora_alpha=32)
        stir(team)
        team.save(tmp_path)
        return tmp_path

    def test_policies_begin_as_what_was_saved(self, checkpoint, begun: Path) -> None:
        """By name below a checkpoint, with the saved rank and scale."""
        team = load_team(checkpoint("llama"), tuning="lora", start_from=(str(begun),))
        for policy in ("agent_0", "agent_1"):
            plain = AutoModelForCausalLM.from_pretrained(checkpoint("llama"))
            plain = PeftModel.from_pretrained(plain, begun / "policies" / policy).eval()
            with torch.no_grad():
                expected = plain(input_ids=PROMPT).logits
            found = logits_of(team, policy)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(logits_of(team, "agent_0"), logits_of(team, "agent_1"))

    def test_kl_is_exactly_zero_at_first(self, checkpoint, begun: Path) -> None:
        """On every token, by every estimator; the bare base is far away."""
        team = load_team(checkpoint("llama"), tuning="lora", start_from=(str(begun),))
        learner = PPOLearner(team, PPOConfig(), steps=2)
        batch = make_batch(team)
        experience = evaluate_tokens(team, batch, learner.ppo, 0.9)
        for estimator in ("k1", "k2", "k3"):
            kl = kl_estimate(experience.logprobs, experience.ref_logprobs, estimator)  # type: ignore[arg-type]
            assert not kl.any()
        assert experience_metrics(experience)["kl"] == 0
        bare = load_team(checkpoint("llama"), tuning="lora")
        other = score_tokens(bare, batch, temperature=0.9).logprobs
        assert not torch.allclose(other, experience.ref_logprobs, atol=0.05)

    def test_the_reference_stays_when_the_policy_moves(self, checkpoint, begun: Path) -> None:
        team = load_team(checkpoint("llama"), tuning="lora", start_from=(str(begun),))
        before = logits_of(team, "agent_1")
        stir(team, seed=5)
        assert torch.equal(logits_of(team, "agent_1", reference=True), before)
        assert not torch.equal(logits_of(team, "agent_1"), before)
        assert not any("start" in name for name in PPOLearner(team, PPOConfig(), 2).trained)

    @pytest.mark.thorough
    def test_untrained_turns_speak_as_the_start(self, checkpoint, begun: Path) -> None:
        team = load_team(
            checkpoint("llama"), tuning="lora", start_from=(str(begun),), train_turns=">=2"
        )
        stir(team)
        start = logits_of(team, "agent_1_start")
        assert torch.equal(start, logits_of(team, "agent_1", reference=True))
        whole = load_team(checkpoint("llama"), tuning="lora", start_from=(str(begun),))
        torch.testing.assert_close(start, logits_of(whole, "agent_1"), atol=1e-5, rtol=1e-5)

    @pytest.mark.thorough
    def test_nobody_of_a_model_trained_still_speaks_as_the_start(
        self, checkpoint, begun: Path
    ) -> None:
        folders = [checkpoint("llama"), checkpoint("llama", seed=4)]
        adapters = tuple(str(begun / "policies" / f"agent_{seat}") for seat in range(2))
        settings = {"tuning": "lora", "start_from": adapters, "train_agents": (1,)}
        team = load_team(folders, **settings)
        whole = load_team(folders, tuning="lora", start_from=adapters)
        start, expected = logits_of(team, "agent_0_start"), logits_of(whole, "agent_0")
        torch.testing.assert_close(start, expected, atol=1e-5, rtol=1e-5)
        assert not team.trainable()["agent_0_start"]

    def test_a_run_that_began_so_is_loaded_with_its_reference(
        self, checkpoint, begun: Path, tmp_path: Path
    ) -> None:
        settings = {"tuning": "lora", "start_from": (str(begun),)}
        team = load_team(checkpoint("llama"), **settings)
        stir(team, seed=9)
        team.save(tmp_path / "later")
        fresh = load_team(checkpoint("llama"), **settings)
        fresh.load(tmp_path / "later")
        for reference in (False, True):
            found = logits_of(fresh, "agent_0", reference=reference)
            assert torch.equal(found, logits_of(team, "agent_0", reference=reference))

    def test_what_does_not_fit_is_named(self, checkpoint, begun: Path, tmp_path: Path) -> None:
        folder = checkpoint("llama")
        adapters = [str(begun / "policies" / f"agent_{seat}") for seat in range(2)]
        with pytest.raises(ValueError, match="3 folders for 2 agents"):
            load_team(folder, tuning="lora", start_from=(*adapters, adapters[0]))
        with pytest.raises(ValueError, match=r"no adapter .*none named 'agent_0'"):
            load_team(folder, tuning="lora", start_from=(str(tmp_path / "nothing"),))
        with pytest.raises(ValueError, match=r"'all' begin as .*agent_0 and as .*agent_1"):
            load_team(folder, tuning="lora", sharing="one", start_from=tuple(adapters))
        with pytest.raises(ValueError, match="needs tuning='lora', not 'full'"):
            TeamConfig(start_from=("somewhere",))
        path = begun / "policies" / "agent_1" / "adapter_model.safetensors"
        weights = load_file(path)
        del weights[next(iter(weights))]
        save_file(weights, path)
        with pytest.raises(ValueError, match="agent_1 does not fit the model: missing"):
            load_team(folder, tuning="lora", start_from=(str(begun),), seed=1)
        config = begun / "policies" / "agent_0" / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"peft_type": "IA3"}))
        with pytest.raises(ValueError, match=r"agent_0'?.*(LoRA|adapter)"):
            load_team(folder, tuning="lora", start_from=(str(begun),), seed=2)


class TestCriticWithItsOwnAdapter:
    def test_losses_keep_to_their_own_weights(self, checkpoint) -> None:
        """The value of one message moves one critic's adapter and head, and no policy."""
        team = load_team(checkpoint("llama"), num_turns=2, tuning="lora", critic="adapter")
        stir(team)
        batch = make_batch(team)
        scores = score_tokens(team, batch, temperature=1.0, with_values=True)
        scores.values[batch.critics.index("agent_1_turn_0")].sum().backward()
        moved = {
            owner
            for group in (team.trainable(), team.trainable_critics())
            for owner, named in group.items()
            if any(p.grad is not None and p.grad.any() for p in named.values())
        }
        assert moved == {"agent_1_turn_0"}
        adapter = team.trainable_critics()["agent_1_turn_0"]
        assert sum("lora_" in name for name in adapter) > 0
        assert all(p.grad is not None and p.grad.any() for p in adapter.values())

    @pytest.mark.thorough
    def test_a_policy_loss_leaves_it_alone(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), num_turns=2, tuning="lora", critic="adapter")
        stir(team)
        score_tokens(
            team, make_batch(team), temperature=1.0, with_values=True
        ).logprobs.sum().backward()
        for named in team.trainable_critics().values():
            assert all(p.grad is None or not p.grad.any() for p in named.values())

    def test_values_are_those_of_the_critic_read_alone(self, checkpoint) -> None:
        """Row by row: its own adapter over prompt and message, its head before each token."""
        team = load_team(checkpoint("llama"), num_turns=2, tuning="lora", critic="adapter")
        stir(team, scale=0.3)
        batch = make_batch(team)
        values = score_tokens(team, batch, temperature=1.0, with_values=True).values
        [base] = team.bases
        for row, critic in enumerate(batch.critics):
            length = int(batch.mask[row].sum())
            ids = torch.tensor([[*batch.prompts[row], *batch.ids[row, :length].tolist()]])
            with torch.no_grad():
                states = base.hidden(
                    ids,
                    torch.ones_like(ids),
                    torch.arange(ids.shape[1])[None],
                    [f"critic_{critic}"],
                )
                expected = team.critics[critic](states)[0]
            start = len(batch.prompts[row]) - 1
            torch.testing.assert_close(
                values[row, :length], expected[start : start + length], atol=1e-5, rtol=1e-4
            )

    def test_an_update_moves_all_of_it_and_the_base_never(self, checkpoint) -> None:
        """Failures A11 and B1, adapters of policies and critics together."""
        team = load_team(checkpoint("llama"), num_turns=2, tuning="lora", critic="adapter")
        stir(team)
        learner = PPOLearner(team, PPOConfig(warmup_steps=0), steps=4)
        experience = evaluate_tokens(team, make_batch(team), learner.ppo, 1.0)
        [base] = team.bases
        assert isinstance(base, LoraBase)
        trained = {id(p) for p in learner.parameter_names()}
        before = [(p, p.detach().clone()) for p in base.peft.parameters()]
        heads = [(p, p.detach().clone()) for p in team.critics.parameters()]
        one_update(learner, experience, 1.0)
        for p, old in (*before, *heads):
            assert torch.equal(p, old) != (id(p) in trained)
        names = list(learner.parameter_names().values())
        assert len(set(names)) == len(names)

    def test_it_is_saved_and_read_back(self, checkpoint, tmp_path: Path) -> None:
        """Failure B13, and values are bitwise the same."""
        settings = {"num_turns": 2, "tuning": "lora", "critic": "adapter"}
        team = load_team(checkpoint("llama"), **settings)
        stir(team)
        team.save(tmp_path)
        assert {path.name for path in (tmp_path / "policies").iterdir()} == {"agent_0", "agent_1"}
        assert len(list((tmp_path / "critics").iterdir())) == 4
        fresh = load_team(checkpoint("llama"), **settings, seed=8)
        fresh.load(tmp_path)
        batch = make_batch(team)
        old, new = (
            score_tokens(t, batch, temperature=1.0, with_values=True) for t in (team, fresh)
        )
        assert torch.equal(old.values, new.values)
        assert torch.equal(old.logprobs, new.logprobs)

    def test_it_needs_adapters(self) -> None:
        with pytest.raises(ValueError, match="critic='adapter' needs tuning='lora', not 'full'"):
            TeamConfig(critic="adapter")


PATCHES = """
import importlib, inspect, pkgutil, sys
import peft, peft.tuners.lora
import maporl_agents

def classes():
    modules = [m for name, m in sys.modules.items() if name.split(".")[0] == "peft"]
    found = {c for m in modules for c in vars(m).values() if inspect.isclass(c)}
    return {c: dict(vars(c)) for c in found if c.__module__.split(".")[0] == "peft"}

before = classes()
for module in pkgutil.walk_packages(maporl_agents.__path__, "maporl_agents."):
    if not module.name.startswith(("maporl_agents.bridges.", "maporl_agents.text.template_worker")):
        importlib.import_module(module.name)
print(len(before), [
    (c.__qualname__, name)
    for c, old in before.items()
    for name in old.keys() | vars(c).keys()
    if name != "__doc__" and vars(c).get(name, c) is not old.get(name, c)
    and not name.startswith(("__abstractmethods__", "_abc_"))
])
"""


@pytest.mark.timeout(600)
@pytest.mark.thorough
def test_importing_the_package_leaves_peft_as_it_is() -> None:
    """Failure B14: no class of peft is changed, for whoever uses it beside us."""
    done = subprocess.run(
        [sys.executable, "-c", PATCHES], capture_output=True, text=True, timeout=590
    )
    assert done.returncode == 0, done.stderr
    count, changed = done.stdout.split(maxsplit=1)
    assert int(count) > 50
    assert changed.strip() == "[]"
