"""``maporl plan``: what it counts is held to closed forms, what it foretells to real steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plan_cases import MACHINE, miniature, tiny
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from maporl_agents import tiny as tiny_model
from maporl_agents.algorithms import maporl
from maporl_agents.config import TeamConfig, TrainConfig
from maporl_agents.models.loading import load_model
from maporl_agents.planning.ledger import Ledger
from maporl_agents.planning.plan import Plan, plan_of
from maporl_agents.planning.sketch import nbytes, owned, sketch_team
from maporl_agents.play.questions import questions_of_step
from maporl_agents.text.tokenizer_files import load_tokenizer
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, questions_of
from maporl_agents.verifier.config import VerifierConfig
from maporl_agents.verifier.model import LearnedVerifier

WITHIN = 0.15


@pytest.mark.thorough
class TestWhatIsHeld:
    """The miniature Llama: width 32, 64 inside, two layers of seven linear maps."""

    PER_ADAPTER = 2 * 8 * (4 * (32 + 32) + 3 * (32 + 64)) * 4

    def test_one_base_for_any_number_of_adapters(self, checkpoint: Callable[..., Path]) -> None:
        config = miniature(checkpoint("llama"), tuning="lora", sharing="turn")
        whole = nbytes(LlamaForCausalLM.from_pretrained(checkpoint("llama")).parameters())
        held = plan_of(config, MACHINE).held
        assert held["trained policies"] == 6 * self.PER_ADAPTER  # 2 agents x 3 turns
        assert held["base models, frozen"] == pytest.approx(whole, rel=0.01)  # and rotary tables
        # Six value heads: 32 x 64 weights, 64 biases, 64 weights, one bias.
        assert held["critics"] == 6 * 4 * (32 * 64 + 64 + 64 + 1)
        assert held["AdamW's two moments"] == 2 * (held["trained policies"] + held["critics"])

    def test_turns_that_are_not_trained_take_nothing(self, checkpoint: Callable[..., Path]) -> None:
        path = checkpoint("llama")
        config = miniature(path, tuning="lora", sharing="turn", train_turns=">=2")
        assert plan_of(config, MACHINE).held["trained policies"] == 4 * self.PER_ADAPTER

    def test_full_tuning_holds_each_policy_and_one_reference(
        self, checkpoint: Callable[..., Path]
    ) -> None:
        held = plan_of(miniature(checkpoint("llama"), tuning="full"), MACHINE).held
        assert held["trained policies"] == pytest.approx(2 * held["base models, frozen"], rel=0.01)

    @pytest.mark.parametrize(
        "settings",
        [
            {"quantization": "nf4"},
            {"quantization": "nf4", "double_quant": True},
            {"quantization": "int8"},
            {"quantization": "nf4", "dtype": "bfloat16"},
        ],
        ids=["nf4", "scales packed too", "int8", "bfloat16"],
    )
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_quantised_weights_to_the_byte(
        self, native: Callable[..., Path], family: str, settings: dict[str, Any]
    ) -> None:
        """Against the tensors that bitsandbytes makes, GPT-2's transposed layers included."""
        pytest.importorskip("bitsandbytes", reason="the extra 'quant' is not installed")
        config = TeamConfig(
            model=(str(native(family, width=64)),), tuning="none", device="cpu", **settings
        )
        model, _ = load_model(config.model[0], config)
        sketch = sketch_team(config, TrainConfig().game)
        bare = sketch.team.bases[0].model
        planned = nbytes([*bare.parameters(), *bare.buffers()]) - sketch.packed_bytes
        assert planned == in_memory(model)

    @pytest.mark.parametrize("bits", [4, 8])
    def test_a_checkpoint_quantised_already_is_counted_so(
        self, native: Callable[..., Path], tmp_path: Path, bits: int
    ) -> None:
        pytest.importorskip("bitsandbytes", reason="the extra 'quant' is not installed")
        folder = Path(shutil.copytree(native("llama", width=64), tmp_path / "model"))
        kind = "nf4" if bits == 4 else "int8"
        game = TrainConfig().game
        asked = TeamConfig(model=(str(folder),), tuning="lora", device="cpu", quantization=kind)
        expected = sketch_team(asked, game).packed_bytes
        settings = json.loads((folder / "config.json").read_text())
        how = {"quant_method": "bitsandbytes", f"load_in_{bits}bit": True}
        write_settings(folder, settings | {"quantization_config": how})
        assert sketch_team(replace(asked, quantization="none"), game).packed_bytes == expected
        with pytest.raises(ValueError, match="is quantised already"):
            sketch_team(asked, game)
        write_settings(folder, settings | {"quantization_config": {"quant_method": "gptq"}})
        with pytest.raises(ValueError, match="quantised by gptq, which a plan cannot count"):
            sketch_team(replace(asked, quantization="none"), game)

    @pytest.mark.thorough
    def test_a_learned_verifier_and_its_base(
        self, checkpoint: Callable[..., Path], tmp_path: Path
    ) -> None:
        folder = checkpoint("llama")
        verifier = LearnedVerifier(VerifierConfig(model=str(folder), device="cpu", lora_rank=8))
        verifier.save(tmp_path / "verifier")
        base = verifier.base.model
        real = nbytes([*base.parameters(), *base.buffers(), *verifier.head.parameters()])
        config = miniature(folder, tuning="lora")
        plain = plan_of(config, MACHINE)
        assert "learned verifiers" not in plain.held
        named = f"learned:{tmp_path / 'verifier'}"
        scored = plan_of(replace(config, game=replace(config.game, verifier=named)), MACHINE)
        assert scored.held["learned verifiers"] == real
        assert scored.peak_bytes == plain.peak_bytes + real
        both = replace(config.game, verifier=named, feedback_verifier=named)
        twice = plan_of(replace(config, game=both), MACHINE)
        assert twice.held["learned verifiers"] == 2 * real  # each is loaded by itself

    def test_a_sketch_has_no_content(self, checkpoint: Callable[..., Path]) -> None:
        config = miniature(checkpoint("llama"), tuning="lora")
        team = sketch_team(config.team, config.game).team
        assert all(base.device.type == "meta" for base in team.bases)
        assert all(tensor.is_meta for tensor in owned(team))


def in_memory(model: PreTrainedModel) -> int:
    """Return the bytes of all that a loaded model keeps, with what bitsandbytes hangs on it."""
    kept: list[Any] = [*model.parameters(), *model.buffers()]
    for layer in model.modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        while state is not None:
            kept += [state.absmax, state.code, state.offset]
            state = state.state2
        kept += [getattr(getattr(layer, "weight", None), name, None) for name in ("CB", "SCB")]
    places = {(t.data_ptr(), t.nbytes): t.nbytes for t in kept if isinstance(t, torch.Tensor)}
    return sum(places.values())


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(settings))


def real_step(config: TrainConfig) -> tuple[float, int, int]:
    """Take a real step; return its peak of tensor bytes, and the tokens read and written.

    The peak is of the second step, when the optimiser's moments are there.
    """
    team, learner = experiment.build(config)
    game, count = config.training_game()
    debates, questions = debates_of(game, count), questions_of(game, "train")
    asked = questions_of_step(questions, 0, count, config.seed)
    with Ledger(owned(team)) as ledger:
        for seed in (1, 2):
            rollouts, _ = maporl.train_step(learner, debates, asked, config, seed=seed)
    read = sum(len(prompt) for rollout in rollouts for prompt in rollout.prompts)
    written = sum(len(done.ids) for rollout in rollouts for done in rollout.completions)
    return nbytes(owned(team)) + ledger.peak_bytes, read, written


def peak_of_training(plan: Plan) -> float:
    """Return the planned peak without the evaluations before and after training."""
    return sum(plan.held.values()) + max(
        size for phase, size in plan.phases.items() if phase != "evaluation"
    )


@pytest.mark.thorough
class TestAgainstARealStep:
    def test_tokens_exactly(self) -> None:
        """Words of the built-in model are encoded as they were written, so nothing is estimated."""
        config = tiny("shopping", 10)
        plan = plan_of(config, MACHINE)
        _, read, written = real_step(config)
        assert (plan.prompt_tokens, plan.new_tokens) == (read, written)
        assert written == 4 * 2 * 3 * 10

    @pytest.mark.parametrize("tuning", ["full", pytest.param("lora", marks=pytest.mark.thorough)])
    def test_memory_of_the_tiny_model(self, tuning: str) -> None:
        config = tiny("shopping", 10)
        config = replace(config, team=replace(config.team, tuning=tuning))
        peak, _, _ = real_step(config)
        assert peak_of_training(plan_of(config, MACHINE)) == pytest.approx(peak, rel=WITHIN)

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        "team",
        [
            {"tuning": "lora", "critic": "adapter", "gradient_checkpointing": True},
            {"tuning": "lora", "sharing": "turn", "train_turns": ">=2"},
        ],
        ids=["recomputed", "per turn"],
    )
    def test_memory_of_other_teams(self, tmp_path: Path, team: dict[str, Any]) -> None:
        config = miniature(llama(tmp_path, width=32, layers=2), **team)
        peak, _, _ = real_step(config)
        assert peak_of_training(plan_of(config, MACHINE)) == pytest.approx(peak, rel=WITHIN)

    @pytest.mark.slow
    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_memory_of_a_small_model(self, tmp_path: Path, tuning: str) -> None:
        """4.7 M parameters."""
        folder = llama(tmp_path, width=256, layers=4, vocabulary=4096)
        config = miniature(folder, tuning=tuning)
        peak, _, _ = real_step(config)
        assert peak_of_training(plan_of(config, MACHINE)) == pytest.approx(peak, rel=WITHIN)

    @pytest.mark.thorough
    def test_memory_of_an_evaluation(self) -> None:
        """On top of the weights; here of more debates than a training step plays."""
        config = tiny("shopping", 10)
        config = replace(config, eval=replace(config.eval, questions=40))
        team, _ = experiment.build(config)
        questions = questions_of(config.game, "train")[:40]
        with Ledger(owned(team)) as ledger:
            experiment.measure(config, team, questions)
        plan = plan_of(config, MACHINE)
        assert plan.phases["evaluation"] > plan.phases["sampling"]
        assert plan.phases["evaluation"] == pytest.approx(ledger.peak_bytes, rel=WITHIN)


def llama(folder: Path, *, width: int, layers: int, vocabulary: int = 512) -> Path:
    """Save a random Llama with the built-in tokenizer, for which no text is of uncertain length.

    A random model over pieces of words writes bytes that are no text, and others read three tokens
    for each: its debates are longer than any that mean something.
    """
    tokenizer = load_tokenizer(str(tiny_model.checkpoint(0)))
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
