"""What is tried when a model is loaded: right as the libraries are, or refused in one sentence."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from miniatures import shared_tokenizer, stir
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from maporl_agents.config import Sampling, TeamConfig
from maporl_agents.models.grouped_adapters import AdapterRoute
from maporl_agents.models.lean_trunk import LeanTrunk, TrunkReader
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.models.trunk import NewIds
from maporl_agents.play.local_engine import sample
from maporl_agents.types import TokenIds
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.token_logprobs import score_tokens

if TYPE_CHECKING:
    from miniatures import Checkpoint

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
FAMILIES = {
    "Mamba": {"state_size": 8},
    "Lfm2": {"layer_types": ["conv", "full_attention"]},
    "Qwen3Next": EXPERTS
    | {
        "layer_types": ["linear_attention", "full_attention"],
        "head_dim": 16,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    },
    "Mixtral": EXPERTS,
    "GptOss": EXPERTS | {"head_dim": 16},
    "Llama4": EXPERTS | {"head_dim": 16, "intermediate_size_mlp": 64},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "Cohere": {},
    "Granite": {"logits_scaling": 4.0},
}
"""Beyond plain attention: settings of two-layer models that have to be right."""


def save(name: str, folder: Path, scale: float = 0.2, **settings: object) -> Path:
    """Write a random model of a class of transformers, and a tokenizer."""
    tokenizer = shared_tokenizer(True)
    kind = getattr(transformers, "Llama4TextConfig" if name == "Llama4" else f"{name}Config")
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    shape = {"vocab_size": len(tokenizer), "bos_token_id": None} | ids | SHAPE
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, f"{name}ForCausalLM")(kind(**shape | settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, scale, generator=generator)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def team_of(folder: Path, **settings: object) -> Team:
    config = TeamConfig(model=(str(folder),), device="cpu", **settings)  # type: ignore[arg-type]
    return make_team(config, num_agents=2, num_turns=1, seed=0)


def refusal(folder: Path, **settings: object) -> str:
    """Return the sentence with which a team is refused."""
    with pytest.raises(ValueError, match=r"^.{20,500}$") as caught:
        team_of(folder, **settings)
    return str(caught.value)


def adapter(folder: Path, target: Path, *, seed: int = 1, **settings: object) -> Path:
    """Write what peft saves of a trained adapter for a model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        given = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
        model = AutoModelForCausalLM.from_pretrained(folder)
        tuned = get_peft_model(model, LoraConfig(**(given | settings)))
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape) * 0.3)
        tuned.save_pretrained(str(target))
    return target


def by_peft(folder: Path, adapters: list[Path]) -> list[Any]:
    """Return the models that peft alone loads."""
    plain = [AutoModelForCausalLM.from_pretrained(folder) for _ in adapters]
    return [
        PeftModel.from_pretrained(model, str(place)).eval()
        for model, place in zip(plain, adapters, strict=True)
    ]


@torch.no_grad()
def distance(team: Team, alone: Sequence[Any]) -> float:
    """Return how far log-probabilities of samples are from each agent's own model, in nats."""
    agents = [0, 0, 0, 1, 1, 1]
    prompts: list[TokenIds] = [(5, 6, 7), tuple(range(9, 29)), (20,)] * 2
    policies = [team.policy(agent, 0) for agent in agents]
    sampling = Sampling(agent_max_new_tokens=(8, 3), temperature=1.0)  # agent 1 ends first
    done = sample(team, prompts, policies, sampling, seed=1, seats=agents)
    rows = [
        Row(prompt, one, policy, 0, 0, agent, 0.0)
        for prompt, one, policy, agent in zip(prompts, done, policies, agents, strict=True)
    ]
    scores = score_tokens(team, batch_of(team, rows), temperature=1.0).logprobs
    worst = []
    for row, scored in zip(rows, scores, strict=True):
        ids = row.completion.ids
        logits = alone[row.agent](input_ids=torch.tensor([row.prompt + ids])).logits[0]
        known = logits[len(row.prompt) - 1 : -1, : team.bases[0].vocab_size].log_softmax(-1)
        own = known.gather(1, torch.tensor(ids)[:, None])[:, 0]
        worst += [own - torch.tensor(row.completion.logprobs), own - scored[: len(ids)]]
    return float(torch.cat(worst).abs().max())


@pytest.mark.parametrize("name", FAMILIES)
def test_families_beyond_plain_attention_are_as_transformers_runs_them(
    name: str, tmp_path: Path
) -> None:
    folder = save(name, tmp_path / "model", **FAMILIES[name])
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert distance(team_of(folder, tuning="none"), [model, model]) < 1e-4


@pytest.mark.parametrize("name", ["Mixtral", "GptOss", "Llama4", "OPT"])
def test_adapters_of_mixtures_and_of_layers_that_flatten_their_input(
    name: str, tmp_path: Path
) -> None:
    """Experts have none; where texts are one row per id, each is read by its text's adapter."""
    folder = save(name, tmp_path / "model", **FAMILIES[name])
    team = team_of(folder, tuning="lora")
    stir(team)
    team.save(tmp_path / "run")
    alone = by_peft(folder, [tmp_path / "run/policies" / f"agent_{i}" for i in range(2)])
    assert distance(team, alone) < 1e-4
    assert not any(".experts." in name for name in team.trainable()["agent_0"])


def test_a_model_that_remembers_without_a_cache_is_refused(tmp_path: Path) -> None:
    settings = {"attention_hidden_size": 32, "context_length": 256}
    message = refusal(save("Rwkv", tmp_path / "model", **settings), tuning="none")
    assert message.startswith("RwkvForCausalLM")
    assert "choose a model of a family" in message


def test_peft_says_in_a_sentence_that_it_has_no_adapters_for_a_family(tmp_path: Path) -> None:
    message = refusal(save("Mamba", tmp_path / "model", **FAMILIES["Mamba"]), tuning="lora")
    assert "choose team.tuning full or none" in message


Pass = tuple[Tensor, Tensor, Any]
"""Attention mask, positions and cache of one pass through a trunk."""


def change_passes(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor, Tensor, Tensor, Any], Pass]
) -> None:
    """Let every pass of a trunk read what `change` makes of its ids, mask, positions and cache."""
    reads = TrunkReader.__call__

    def changed(reader: TrunkReader, new: NewIds, cache: Any = None, **options: Any) -> Tensor:
        attention, positions, cache = change(*new, cache)
        return reads(reader, NewIds(new.ids, attention, positions), cache, **options)

    monkeypatch.setattr(TrunkReader, "__call__", changed)


class TestTheCheck:
    """It finds what is wrong in a batch, and leaves no trace."""

    @pytest.fixture
    def folder(self, checkpoint: Checkpoint) -> Path:
        return checkpoint("llama")

    @pytest.mark.parametrize("tuning", ["full", "lora", "none"])
    @pytest.mark.parametrize("forgotten", ["attention", "positions", "cache"])
    def test_finds_what_a_batch_loses(
        self, folder: Path, tuning: str, forgotten: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lossy(ids: Tensor, attention: Tensor, positions: Tensor, cache: Any) -> Pass:
            if forgotten == "attention":
                attention = torch.ones_like(attention)
            if forgotten == "positions":
                positions = torch.arange(ids.shape[1]).expand_as(ids)
            if forgotten == "cache":
                attention, cache = attention[:, -ids.shape[1] :], None
            return attention, positions, cache

        change_passes(monkeypatch, lossy)
        assert "off by" in refusal(folder, tuning=tuning)

    def test_finds_rows_of_another_adapter(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fresh adapters are zero and alike: they are told apart all the same."""
        monkeypatch.setattr(AdapterRoute, "through", lambda *_: nullcontext())
        assert "row by row" in refusal(folder, tuning="lora")

    @pytest.mark.parametrize("tuning", ["full", "lora", "none"])
    @pytest.mark.parametrize("failing", [False, True])
    def test_a_model_that_cannot_read_packed_rows_reads_prompts_anew(
        self, folder: Path, tuning: str, failing: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Holes between kept and new ids are lost on it, or an error; padding is not."""

        def lossy(ids: Tensor, attention: Tensor, positions: Tensor, cache: Any) -> Pass:
            if cache is not None and (attention[:, :-1] > attention[:, 1:]).any():
                if failing:
                    raise AttributeError("no such mask")
                attention = attention.cummax(1).values
            return attention, positions, cache

        assert all(base.packs for base in team_of(folder, tuning=tuning).bases)
        change_passes(monkeypatch, lossy)
        assert not any(base.packs for base in team_of(folder, tuning=tuning).bases)

    def test_an_error_of_an_architecture_becomes_a_sentence(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object, **__: object) -> None:
            raise AttributeError("'X' object has no attribute\n'select'")

        monkeypatch.setattr(TrunkReader, "__call__", fails)
        assert "unequal length ('X' object has no attribute)" in refusal(folder, tuning="full")

    @pytest.mark.thorough
    @pytest.mark.parametrize("tuning", ["full", "lora", "none"])
    @pytest.mark.parametrize("wrong", ["error", "states", "nothing"])
    @pytest.mark.parametrize("way", ["read", "states"])
    def test_where_the_lean_pass_differs_the_modules_read(
        self, folder: Path, tuning: str, wrong: str, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And where it does not differ, they do not."""
        reads = getattr(LeanTrunk, way)

        def differs(lean: LeanTrunk, *given: Any, **options: Any) -> Tensor:
            if wrong == "error":
                raise RuntimeError("no such kernel")
            states = reads(lean, *given, **options)
            return states * 1.1 if wrong == "states" else states

        monkeypatch.setattr(LeanTrunk, way, differs)
        team = team_of(folder, tuning=tuning)
        lean = [reader.lean for base in team.bases for reader in base.readers]
        assert {one is not None for one in lean} == {wrong == "nothing"}
        assert distance(team, [team.bases[0].model] * 2) < 1e-4

    def test_fresh_adapters_are_zero_again_and_alone_in_having_gradients(
        self, folder: Path
    ) -> None:
        team = team_of(folder, tuning="lora")
        for named in team.trainable().values():
            assert all(p.requires_grad for p in named.values())
            assert not any(p.any() for name, p in named.items() if "lora_B" in name)
        trained = sum(len(named) for named in team.trainable().values())
        assert sum(p.requires_grad for p in team.bases[0].model.parameters()) == trained

    def test_half_precision_is_rounded_and_not_refused(self, folder: Path) -> None:
        for dtype in ("bfloat16", "float16"):
            team_of(folder, tuning="lora", dtype=dtype)


class TestStarts:
    """Adapters to begin from are what peft loads, or refused before a weight is read."""

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        "settings",
        [
            {"target_modules": "all-linear", "use_rslora": True},
            {"target_modules": ["q_proj", "embed_tokens"]},
            {
                "rank_pattern": {"q_proj": 2},
                "alpha_pattern": {"v_proj": 3},
                "lora_dropout": 0.5,
                "init_lora_weights": "orthogonal",
                "layers_to_transform": [1],
            },
            {"trainable_token_indices": [5, 9, 20]},
        ],
        ids=["rslora", "embedding", "patterns", "tokens"],
    )
    def test_are_as_peft_loads_them(
        self, checkpoint: Checkpoint, settings: dict[str, Any], tmp_path: Path
    ) -> None:
        folder = checkpoint("llama", templated=True)
        starts = [adapter(folder, tmp_path / str(i), seed=i, **settings) for i in range(2)]
        team = team_of(folder, tuning="lora", start_from=tuple(map(str, starts)))
        assert distance(team, by_peft(folder, starts)) < 1e-4

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"init_lora_weights": "pissa"}, "path_initial_model_for_weight_conversion"),
            ({"init_lora_weights": "pissa_niter_2"}, "changes its base"),
            ({"init_lora_weights": "olora"}, "changes its base"),
            ({"use_dora": True}, "use_dora=True.*merge_and_unload"),
            ({"modules_to_save": ["lm_head"]}, "modules_to_save.*merge_and_unload"),
            ({"bias": "all"}, "bias='all'.*merge_and_unload"),
        ],
    )
    def test_are_refused_before_a_weight_is_read(
        self, checkpoint: Checkpoint, settings: dict[str, Any], reason: str, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(checkpoint("llama"), tmp_path / "model"))
        start = adapter(folder, tmp_path / "start", **settings)
        (folder / "model.safetensors").unlink()
        message = refusal(folder, tuning="lora", start_from=(str(start),))
        assert re.search(reason, message)

    def test_on_the_output_head_are_refused(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        start = adapter(checkpoint("llama"), tmp_path, target_modules=["q_proj", "lm_head"])
        message = refusal(checkpoint("llama"), tuning="lora", start_from=(str(start),))
        assert re.search("output head.*merge_and_unload", message)

    def test_on_experts_are_refused(self, tmp_path: Path) -> None:
        folder = save("Mixtral", tmp_path / "model", **FAMILIES["Mixtral"])
        places = {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.down_proj"]}
        start = adapter(folder, tmp_path / "start", **places)
        assert "more than plain LoRA" in refusal(folder, tuning="lora", start_from=(str(start),))
