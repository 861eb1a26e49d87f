"""Base models in 4 and 8 bits on the CPU: the right numbers, the same in play and in training."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dialects import dialect_tokenizer
from miniatures import load_team, stir
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from maporl_agents.algorithms.maporl import train_step
from maporl_agents.config import PPOConfig, Sampling, TeamConfig, TrainConfig
from maporl_agents.models import quantize
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.types import TokenBatch
from maporl_agents.update.batching import collate
from maporl_agents.update.optimiser import PPOLearner
from maporl_agents.update.token_logprobs import score_tokens
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig
from maporl_env.types import Question

bnb = pytest.importorskip("bitsandbytes", reason="the extra 'quant' is not installed")

QUESTIONS = [Question(f"q/{i}", f"how much is {i} and three ?", str(i + 3)) for i in range(2)]
SAMPLING = Sampling(max_new_tokens=4, temperature=0.8)
KINDS = ("nf4", "int8")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
Native = Callable[..., Path]


def quantised(folder: Path, kind: str, **settings: object) -> Team:
    given = {"tuning": "lora", "device": "cpu"} | settings
    config = TeamConfig(model=(str(folder),), quantization=kind, **given)  # type: ignore[arg-type]
    return make_team(config, num_agents=2, num_turns=2, seed=0)


def make_debates() -> BatchedDebate:
    debate = DebateConfig(task=QUESTIONS, num_agents=2, num_turns=2)
    return BatchedDebate(debate, len(QUESTIONS))


def played(team: Team) -> TokenBatch:
    rollouts = play(team, make_debates(), QUESTIONS, SAMPLING, seed=3)
    return collate(team, rollouts)[0]


def states(team: Team, ids: Tensor = IDS, *, reference: bool = False) -> Tensor:
    places = torch.arange(ids.shape[1]).expand(ids.shape)
    policies = ["agent_0"] * len(ids)
    return team.bases[0].hidden(ids, torch.ones_like(ids), places, policies, reference=reference)


def rounded(layer: nn.Module) -> Tensor:
    """The weights a quantised layer stands for, (out, in), from its codes and scales by hand."""
    if isinstance(layer, bnb.nn.Linear8bitLt):
        codes, scales = layer.state.CB, layer.state.SCB
        if codes is None:  # not run yet
            codes, scales = layer.weight.CB, layer.weight.SCB
        return codes.float() * scales[:, None] / 127
    state = layer.weight.quant_state
    packed = layer.weight.data.flatten().int()
    codes = torch.stack([packed >> 4, packed & 15], 1).flatten()
    scales = state.absmax
    if state.nested:
        scales = (
            state.state2.code[scales.int()].view(-1)
            * state.state2.absmax.repeat_interleave(state.state2.blocksize)[: len(scales)]
            + state.offset
        )
    return (state.code[codes] * scales.repeat_interleave(state.blocksize)).view(state.shape)


def quantised_layers(model: nn.Module) -> dict[str, nn.Module]:
    kinds = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["llama", "phi3", "gemma2", "gpt2"])
@pytest.mark.parametrize(("kind", "double"), [("nf4", False), ("nf4", True), ("int8", False)])
def test_a_quantised_base_computes_with_the_rounded_weights(
    native: Native, family: str, kind: str, double: bool
) -> None:
    """All of attention and feed-forward, and nothing else; against a plain model that has them."""
    team = quantised(native(family, 64), kind, double_quant=double)
    plain = load_team(native(family, 64), tuning="none", num_turns=2)
    layers = quantised_layers(team.bases[0].model)
    originals = dict(plain.bases[0].model.named_modules())
    linear = [m for m in originals.values() if isinstance(m, nn.Linear) or "Conv1D" in str(type(m))]
    assert len(layers) == len(linear) - 1  # all but the head
    with torch.no_grad():
        for name, layer in layers.items():
            original = originals[name.replace(".base_layer", "")].weight
            found = rounded(layer) if family != "gpt2" else rounded(layer).T
            # 127 steps per row of largest entry max; NF4's widest gap is 0.304 of its block's.
            bound = original.abs().max() * (0.5 / 127 + 1e-3 if kind == "int8" else 0.16)
            assert 0 < (found - original).abs().max() < bound
            original.copy_(found)
        expected = states(plain)
        torch.testing.assert_close(states(team, reference=True), expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
class TestPlayAndTraining:
    def test_with_and_without_gradient_it_is_bitwise_the_same(
        self, native: Native, kind: str
    ) -> None:
        team = quantised(native("llama", 64), kind)
        stir(team)
        with torch.no_grad():
            before = states(team)
        assert torch.equal(states(team).detach(), before)
        with torch.no_grad():
            assert torch.equal(states(team), before)

    def test_batch_mates_change_nothing(self, native: Native, kind: str) -> None:
        """Failure B10, also beside a row of tokens whose states are a hundred times as large."""
        team = quantised(native("llama", 64), kind)
        stir(team)
        with torch.no_grad():
            team.bases[0].model.get_input_embeddings().weight[300:] *= 100
            mates = torch.stack([torch.arange(start, start + 6) for start in (20, 300, 306)])
            alone = states(team)
            together = states(team, torch.cat([mates, IDS]))[-1:]
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    @pytest.mark.thorough
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    @pytest.mark.parametrize("recompute", [False, True])
    def test_gradients_are_those_of_the_rounded_weights(
        self, native: Native, kind: str, family: str, recompute: bool
    ) -> None:
        """Of every adapter in every layer, against adapters on a plain model with them (B7)."""
        team = quantised(native(family, 64), kind, gradient_checkpointing=recompute)
        plain = load_team(native(family, 64), tuning="lora", num_turns=2)
        with torch.no_grad():
            originals = dict(plain.bases[0].model.named_modules())
            states(team)
            for name, layer in quantised_layers(team.bases[0].model).items():
                found = rounded(layer)
                originals[name].weight.copy_(found.T if family == "gpt2" else found)
        weight = torch.randn(IDS.shape[1], 64, generator=torch.Generator().manual_seed(2))
        found_and_expected = []
        for one in (team, plain):
            stir(one)
            with torch.no_grad():
                states(one)  # as in play; must not change what follows
            (states(one) * weight).sum().backward()
            found_and_expected.append({n: p.grad for n, p in one.trainable()["agent_0"].items()})
        found, expected = found_and_expected
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert gradient.any()
            torch.testing.assert_close(found[name], gradient, atol=1e-3, rtol=1e-3)

    @pytest.mark.thorough
    def test_a_training_step_and_what_is_saved(
        self, native: Native, kind: str, tmp_path: Path
    ) -> None:
        team = quantised(native("qwen3", 64), kind)
        stir(team)
        learner = PPOLearner(team, PPOConfig(minibatches=1, warmup_steps=0), steps=2)
        base = {n: p.clone() for n, p in team.bases[0].model.named_parameters() if "lora" not in n}
        before = {name: [p.clone() for p in ps] for name, ps in learner.trained.items()}
        _, metrics = train_step(
            learner, make_debates(), QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1
        )
        assert metrics["sampler_mismatch"] < 1e-4
        assert metrics["updates"] == 1
        for policy, old in before.items():
            assert not any(map(torch.equal, old, learner.trained[policy]))
        own = dict(team.bases[0].model.named_parameters())
        assert all(torch.equal(base[name], own[name]) for name in base)
        team.save(tmp_path)
        assert not list(tmp_path.glob("policies/*/model.safetensors"))
        again = quantised(native("qwen3", 64), kind)
        again.load(tmp_path)
        batch = played(team)
        with torch.no_grad():
            found, expected = (score_tokens(t, batch, temperature=1.0) for t in (again, team))
        assert torch.equal(found.logprobs, expected.logprobs)

    @pytest.mark.thorough
    def test_a_fresh_policy_has_no_distance_to_its_reference(
        self, native: Native, kind: str
    ) -> None:
        team = quantised(native("llama", 64), kind)
        batch = played(team)
        with torch.no_grad():
            own, frozen = (
                score_tokens(team, batch, temperature=0.8, reference=r).logprobs
                for r in (False, True)
            )
        torch.testing.assert_close(own, frozen, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(batch.sampled_logprobs, own, atol=1e-4, rtol=1e-4)

    @pytest.mark.thorough
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_dtypes(self, native: Native, kind: str, dtype: str) -> None:
        """Failure B11: what is rounded, what computes, what learns."""
        team = quantised(native("llama", 64), kind, dtype=dtype)
        found: dict[str, set[torch.dtype]] = {}
        for name, parameter in team.bases[0].model.named_parameters():
            part = "adapter" if "lora" in name else name.split(".")[-2]
            part = "rounded" if part == "base_layer" else part
            found.setdefault(part, set()).add(parameter.dtype)
        own = getattr(torch, dtype)
        assert found == {
            "embed_tokens": {own},
            "rounded": {torch.uint8 if kind == "nf4" else torch.int8},
            "adapter": {torch.float32},
            "input_layernorm": {own},
            "post_attention_layernorm": {own},
            "norm": {own},
            "lm_head": {own},
        }
        assert {p.dtype for p in team.critics.parameters()} == {torch.float32}
        with torch.no_grad():
            logprobs = score_tokens(team, played(team), temperature=1.0).logprobs
        assert logprobs.dtype == torch.float32
        assert logprobs.isfinite().all()

    @pytest.mark.thorough
    def test_agents_share_the_one_base(self, native: Native, kind: str) -> None:
        config = TeamConfig(
            model=(str(native("llama", 64)),), tuning="lora", quantization=kind, device="cpu"
        )  # type: ignore[arg-type]
        sizes = []
        for agents in (1, 4):
            team = make_team(config, num_agents=agents, num_turns=1, seed=0)
            assert len(team.bases) == 1
            rest = [p for n, p in team.bases[0].model.named_parameters() if "lora" not in n]
            sizes.append(sum(p.numel() * p.element_size() for p in rest))
        assert sizes[0] == sizes[1]

    def test_a_team_that_only_plays(self, native: Native, kind: str) -> None:
        team = quantised(native("llama", 64), kind, tuning="none")
        assert len(played(team)) == 8
        assert not any(team.trainable().values())

    @pytest.mark.thorough
    def test_it_is_quiet(self, native: Native, kind: str, caplog, capfd) -> None:
        with caplog.at_level(logging.INFO, logger="bitsandbytes"):
            played(quantised(native("llama", 64), kind))
        assert not [r for r in caplog.records if r.name.startswith("bitsandbytes")]
        assert "cast" not in capfd.readouterr().err


def test_news_of_kernels_that_nobody_asked_for_are_silenced_and_nothing_else(caplog) -> None:
    """Printed where the processor has AVX512-BF16, and the package `kernels` is not installed."""
    line = "Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please make sure ..."
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    with caplog.at_level(logging.WARNING, logger=logger.name):
        logger.warning(line, "No module named 'kernels'")
        logger.warning("Failed to load something else: %s", "x")
    assert [record.getMessage() for record in caplog.records] == [
        "Failed to load something else: x"
    ]


class TestRepacking:
    """With AVX512-BF16 in the processor, bitsandbytes would repack 4-bit layers when first used."""

    @pytest.fixture
    def odd(self, tmp_path: Path) -> Path:
        """A model with 48 keys, no multiple of the 32 columns that are packed together."""
        tokenizer = dialect_tokenizer("none")
        shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 48}
        with torch.random.fork_rng(devices=[]):
            config = LlamaConfig(vocab_size=len(tokenizer), **shape, **heads)
            LlamaForCausalLM(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return tmp_path

    def test_stays_off_and_such_widths_are_played_and_trained(self, odd: Path, monkeypatch) -> None:
        monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
        team = quantised(odd, "nf4")
        stir(team)
        with torch.no_grad():
            before = states(team)
        for layer in quantised_layers(team.bases[0].model).values():
            assert not getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
        after = states(team)
        assert torch.equal(after.detach(), before)
        after.sum().backward()
        assert all(p.grad.any() for p in team.trainable()["agent_0"].values())


class TestWidths:
    """Scales are per 64 weights; some processors read them wrongly where rows are no multiple."""

    def test_wrong_ones_are_refused_from_the_shapes_alone(
        self, native: Native, tmp_path: Path, monkeypatch
    ) -> None:
        monkeypatch.setattr(quantize, "reads_width", lambda inputs, dtype: inputs % 64 == 0)
        folder = Path(shutil.copytree(native("llama"), tmp_path / "model"))
        (folder / "model.safetensors").unlink()  # nothing is loaded
        with pytest.raises(ValueError, match=r"q_proj, which has 32 inputs.*'int8'") as caught:
            quantised(folder, "nf4")
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match="c_attn, which has 32 inputs"):
            quantised(native("gpt2"), "nf4")
        quantised(native("llama"), "int8")
        quantised(native("llama", 64), "nf4")

    @pytest.mark.parametrize("inputs", [32, 40, 64, 96, 128])
    def test_the_probe_says_what_this_processor_does(self, inputs: int) -> None:
        quantize.reads_width.cache_clear()
        layer = bnb.nn.Linear4bit(inputs, 48, bias=False, quant_type="nf4")
        with torch.no_grad():
            layer.weight.copy_(torch.randn(48, inputs, generator=torch.Generator().manual_seed(1)))
            layer.to("cpu")  # rounds the weights
            layer.support_avx512bf16_for_cpu = False  # as `settle` does
            right = torch.allclose(layer(torch.eye(inputs)).T, rounded(layer), atol=1e-5)
        assert quantize.reads_width(inputs, torch.float32) == right

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_the_probe_finds_scales_counted_from_the_start_of_a_row(
        self, monkeypatch, dtype: torch.dtype
    ) -> None:
        """Whatever this processor does: with kernels that do, and that do not."""

        def by_row(packed: Tensor, state: bnb.functional.QuantState) -> Tensor:
            rows, inputs = state.shape
            per_row = inputs // 64 + bool(inputs % 64)
            place = torch.arange(rows)[:, None] * per_row + torch.arange(inputs) // 64
            return codes_of(packed, state) * state.absmax[place.clamp(max=len(state.absmax) - 1)]

        def by_matrix(packed: Tensor, state: bnb.functional.QuantState) -> Tensor:
            place = torch.arange(state.shape.numel()).view(state.shape) // 64
            return codes_of(packed, state) * state.absmax[place]

        def codes_of(packed: Tensor, state: bnb.functional.QuantState) -> Tensor:
            packed = packed.flatten().int()
            return state.code[torch.stack([packed >> 4, packed & 15], 1)].view(state.shape)

        for read, wrong in ((by_row, {32, 96, 1056}), (by_matrix, set())):
            quantize.reads_width.cache_clear()
            monkeypatch.setattr(
                bnb.functional, "dequantize_4bit", lambda *args, read=read: read(*args).to(dtype)
            )
            widths = (32, 64, 96, 128, 1056)
            assert {n for n in widths if not quantize.reads_width(n, dtype)} == wrong
        quantize.reads_width.cache_clear()
