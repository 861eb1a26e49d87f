"""``maporl plan``: what it counts is held to closed forms, what it foretells to real steps."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from maporl_agents import cli
from maporl_agents import tiny as tiny_model
from maporl_agents.algorithms import maporl
from maporl_agents.config import MALTConfig, PPOConfig, Sampling, TeamConfig, TrainConfig
from maporl_agents.models import quantize
from maporl_agents.models.loading import load_model, make_team
from maporl_agents.planning.ledger import Cost, Ledger, sketching
from maporl_agents.planning.machine import GIB, Machine, cgroup_rooms, free_bytes, this_machine
from maporl_agents.planning.plan import TIME_FACTOR, USABLE, Plan, plan_of
from maporl_agents.planning.sketch import nbytes, owned, sketch_team
from maporl_agents.planning.stand_ins import filler_ids
from maporl_agents.play.questions import questions_of_step
from maporl_agents.play.rollout import play
from maporl_agents.recipes import recipe
from maporl_agents.text.tokenizer_files import load_tokenizer
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, questions_of
from maporl_agents.verifier.config import VerifierConfig
from maporl_agents.verifier.model import LearnedVerifier

MACHINE = Machine("a machine", 16 * GIB, 1e11, 1e10, 1e-5, overlaps=False)
WITHIN = 0.15
CPU = TeamConfig(device="cpu")


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bases take turns, as they do where there is one core; a ledger sees its own thread alone."""
    monkeypatch.setenv("MAPORL_CORES", "1")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class TestLedger:
    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_counts_bytes_products_and_operators(self, device: str) -> None:
        weight = torch.zeros(100, 100, device=device, requires_grad=True)
        with Ledger([weight]) as ledger:
            x = torch.zeros(50, 100, device=device)  # 20,000 bytes
            y = (x @ weight).tanh()  # the product, another 20,000, dies when tanh is done
            assert (ledger.live_bytes, ledger.peak_bytes) == (40_000, 60_000)
            assert ledger.flops == 2 * 50 * 100 * 100
            y.sum().backward()  # one more product, for the weight's gradient
            assert ledger.flops == 2 * 2 * 50 * 100 * 100
            del x, y
        assert ledger.live_bytes == 40_000  # the gradient

    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_inference_mode_hides_nothing(self, device: str) -> None:
        x, weight = (torch.zeros(8, 8, device=device) for _ in range(2))
        with torch.inference_mode(), Ledger([x, weight]) as ledger:
            functional.linear(x, weight)
        assert (ledger.flops, ledger.peak_bytes) == (2 * 8 * 8 * 8, 8 * 8 * 4)

    def test_a_sketch_of_attention_keeps_what_the_real_kernel_keeps(self) -> None:
        """Forward and backward, causal: query, key, value are given; the result and sums kept."""
        costs = {}
        for device in ("cpu", "meta"):
            given = [torch.zeros(2, 4, 64, 16, device=device, requires_grad=True) for _ in "qkv"]
            with sketching(Ledger(given)) as ledger:
                out = functional.scaled_dot_product_attention(*given, is_causal=True)
                kept = ledger.live_bytes
                out.sum().backward()
            costs[device] = (kept, ledger.live_bytes)
        assert costs["meta"] == costs["cpu"]
        # The result, 2 x 4 x 64 x 16 numbers, and a number for each of the 2 x 4 x 64 queries.
        assert costs["meta"][0] == 4 * (2 * 4 * 64 * 16 + 2 * 4 * 64)

    def test_sketching_gives_attention_back(self) -> None:
        before = functional.scaled_dot_product_attention
        with pytest.raises(RuntimeError, match="inside"), sketching(Ledger()):
            raise RuntimeError("inside")
        assert functional.scaled_dot_product_attention is before

    def test_costs_add_up_and_peaks_do_not(self) -> None:
        whole = Cost(1, 2, 3, 40).then(Cost(10, 20, 30, 4)).times(2)
        assert whole == Cost(22, 44, 66, 40)


class TestMachine:
    def test_is_bound_by_arithmetic_by_memory_or_by_calls(self) -> None:
        assert MACHINE.seconds(Cost(flops=2e11)) == 2
        assert MACHINE.seconds(Cost(flops=2e11, moved_bytes=3e10, ops=1e5)) == 3 + 1
        gpu = replace(MACHINE, overlaps=True)
        assert gpu.seconds(Cost(flops=2e11, moved_bytes=3e10, ops=1e5)) == 3

    def test_measures_this_one(self) -> None:
        here = this_machine(torch.device("cpu"), torch.float32)
        assert here.memory_bytes > GIB / 8
        assert 1e8 < here.flops < 1e14
        assert 1e8 < here.bytes_per_second < 1e13
        assert 1e-7 < here.op_seconds < 1e-2

    def test_memory_is_what_is_free_under_every_limit(self, tmp_path: Path) -> None:
        """Of the machine, of the container, and of the group around it."""
        job = tmp_path / "slice" / "job"
        job.mkdir(parents=True)
        for folder, limit, used in ((job, "max", 0), (job.parent, 9 * GIB, 5 * GIB)):
            (folder / "memory.max").write_text(f"{limit}\n")
            (folder / "memory.current").write_text(f"{used}\n")
            (folder / "memory.stat").write_text(f"anon 7\ninactive_file {GIB}\n")
        assert list(cgroup_rooms("0::/slice/job\n", tmp_path)) == [9 * GIB - 5 * GIB + GIB]

        old = tmp_path / "memory" / "box"
        old.mkdir(parents=True)
        (old / "memory.limit_in_bytes").write_text(f"{2 * GIB}")
        (old / "memory.usage_in_bytes").write_text(f"{GIB}")
        (old / "memory.stat").write_text("total_inactive_file 5\n")
        lines = "12:cpu,cpuacct:/box\n5:memory:/box\n0::/\n"
        assert list(cgroup_rooms(lines, tmp_path)) == [GIB + 5]
        assert list(cgroup_rooms("0::/not/shown/here\n", tmp_path)) == []

    def test_what_another_fills_is_not_free(self) -> None:
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        assert 0 < free_bytes(torch.device("cpu")) < pages

    def test_gpus_lend_what_is_free_and_all_of_them_where_layers_are_spread(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = [3 * GIB, 5 * GIB]
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda at: (free[getattr(at, "index", at)], 8 * GIB)
        )
        assert free_bytes(torch.device("cuda", 1)) == 5 * GIB
        assert free_bytes(torch.device("cuda", 0), spread=True) == 8 * GIB


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


def miniature(folder: Path, **team: Any) -> TrainConfig:
    """Return a small run of a saved model: four debates a step, messages of twelve tokens."""
    return TrainConfig(
        questions_per_step=4,
        team=TeamConfig(model=(str(folder),), device="cpu", **team),
        sampling=Sampling(max_new_tokens=12),
        ppo=PPOConfig(micro_episodes=1, minibatches=2),
    )


def tiny(name: str, tokens: int) -> TrainConfig:
    """Return a built-in run with messages so short that none ends before its limit."""
    config = recipe(name)
    assert isinstance(config, TrainConfig)
    return replace(
        config,
        questions_per_step=4,
        sampling=Sampling(max_new_tokens=tokens),
        team=replace(config.team, device="cpu"),
    )


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


class TestPlan:
    def test_what_is_advised_fits_and_more_would_not(self, checkpoint: Callable[..., Path]) -> None:
        """By proportion: a batch of rows takes so many times what one takes."""
        config = miniature(checkpoint("llama"), tuning="lora")
        config = replace(config, questions_per_step=64)
        roomy = plan_of(config, MACHINE)
        assert roomy.fits
        full = sum(roomy.held.values()) + 0.5 * roomy.phases["sampling"]
        tight = plan_of(config, replace(MACHINE, memory_bytes=full / USABLE))
        assert not tight.fits
        assert tight.max_rows == pytest.approx(64, abs=1)  # half of 64 debates x 2 agents

    def test_a_device_without_room_is_told(self, checkpoint: Callable[..., Path]) -> None:
        config = miniature(checkpoint("llama"), tuning="lora")
        plan = plan_of(config, replace(MACHINE, memory_bytes=1e5))
        assert (plan.fits, plan.max_rows, plan.micro_episodes) == (False, None, None)

    @pytest.mark.thorough
    def test_work_grows_with_turns_and_passes(self) -> None:
        config = tiny("shopping", 10)
        plain = plan_of(config, MACHINE)
        twice = plan_of(replace(config, ppo=replace(config.ppo, epochs=2)), MACHINE)
        assert twice.costs["update"].flops == pytest.approx(2 * plain.costs["update"].flops)
        assert twice.costs["play"] == plain.costs["play"]
        short = plan_of(replace(config, game=replace(config.game, num_turns=2)), MACHINE)
        assert short.costs["play"].flops < plain.costs["play"].flops

    def test_agents_that_share_a_policy_are_not_taken_for_one(
        self, checkpoint: Callable[..., Path]
    ) -> None:
        """Their stand-ins are alike word for word; what they sample is not."""
        for part in ("score", "update"):
            one, each = (
                plan_of(miniature(checkpoint("llama"), tuning="lora", sharing=how), MACHINE)
                for how in ("one", "agent")
            )
            assert one.costs[part].flops == pytest.approx(each.costs[part].flops, rel=0.01)

    def test_length_of_messages_and_questions_can_be_given(
        self, checkpoint: Callable[..., Path]
    ) -> None:
        config = replace(miniature(checkpoint("llama"), tuning="lora"), game=TrainConfig().game)
        config = replace(config, game=replace(config.game, task="gsm8k", data="/none"))
        plan = plan_of(config, MACHINE, message_tokens=5, question_tokens=40)
        assert plan.new_tokens == 4 * 2 * 3 * 5
        longer = plan_of(config, MACHINE, message_tokens=5, question_tokens=50)
        # Four debates, two agents, and the question stands in 1, 2 and 3 places by the turn.
        assert longer.prompt_tokens - plan.prompt_tokens == 4 * 2 * (1 + 2 + 3) * 10

    @pytest.mark.thorough
    def test_a_length_that_is_given_stands_for_every_agent(
        self, checkpoint: Callable[..., Path]
    ) -> None:
        config = miniature(checkpoint("llama"), tuning="lora")
        each = replace(config, sampling=replace(config.sampling, agent_max_new_tokens=(7, 9)))
        assert plan_of(each, MACHINE).new_tokens == 4 * 3 * (7 + 9)
        assert plan_of(each, MACHINE, message_tokens=5).new_tokens == 4 * 3 * 2 * 5

    @pytest.mark.parametrize("given", [0, 8])
    def test_texts_that_do_not_fit_the_window_are_told(
        self, checkpoint: Callable[..., Path], given: int
    ) -> None:
        """GPT-2 reads 1024 tokens, and the sampler refuses what the plan refuses."""
        config = miniature(checkpoint("gpt2"), tuning="lora")
        assert plan_of(config, MACHINE, message_tokens=given).overflows == {}
        config = replace(config, questions_per_step=1, sampling=Sampling(max_new_tokens=1000))
        plan = plan_of(config, MACHINE, message_tokens=given)
        assert not plan.fits
        [(model, (tokens, window))] = plan.overflows.items()
        assert (model, window) == (str(checkpoint("gpt2")), 1024)
        # The limit is what the sampler keeps room for, also where messages turn out shorter.
        assert tokens == plan.longest_tokens + (1000 - given if given else 0)
        team = make_team(config.team, num_agents=2, num_turns=3, seed=0)
        questions = questions_of(config.game, "train")[:1]
        with pytest.raises(ValueError, match="do not fit the window of 1024"):
            play(team, debates_of(config.game, 1), questions, config.sampling, seed=0)

    def test_what_could_not_be_loaded_cannot_be_planned(
        self, checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("bitsandbytes", reason="the extra 'quant' is not installed")
        monkeypatch.setattr(quantize, "reads_width", lambda *_: False)  # whatever this CPU does
        narrow = miniature(checkpoint("llama"), tuning="lora", quantization="nf4")
        with pytest.raises(ValueError, match="with the scales of others"):
            plan_of(narrow, MACHINE)

    def test_another_scheme_is_refused(self) -> None:
        with pytest.raises(ValueError, match="only runs of maporl can be planned, not of malt"):
            plan_of(MALTConfig(), MACHINE)

    def test_stand_ins_have_the_length_that_is_asked_for(
        self, checkpoint: Callable[..., Path]
    ) -> None:
        for name in ("llama", "gpt2", "qwen2"):
            config = miniature(checkpoint(name), tuning="lora")
            chat = sketch_team(config.team, config.game).team.bases[0].chat
            ids = filler_ids(chat, 17)
            assert len(chat.encode(chat.decode(ids))) == len(ids) == 17


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[Any, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(["plan", *argv])
    caught = capsys.readouterr()
    return stop.value.code, caught.out + caught.err


class TestCommand:
    QUICK = ("--questions-per-step", "2", "--sampling.max-new-tokens", "6")

    def test_reads_no_weights(
        self,
        checkpoint: Callable[..., Path],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        folder = Path(shutil.copytree(checkpoint("llama"), tmp_path / "bare"))
        (folder / "model.safetensors").unlink()
        code, text = run(
            capsys, "--model", str(folder), "--agents", "2", "--turns", "2", *self.QUICK
        )
        assert code == 0, text
        assert "writes 48;" in text  # 2 questions x 2 agents x 2 turns x 6 tokens
        for words in ("base models", "AdamW", "while in sampling", "fits this CPU", "a step takes"):
            assert words in text

    def test_says_that_a_run_does_not_fit(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, text = run(capsys, *self.QUICK, "--gib", "0.001")
        assert code == 1
        assert "does not fit the device described (1.02 MiB)" in text

    def test_says_that_texts_are_too_long(
        self, checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        long = ("--questions-per-step", "1", "--sampling.max-new-tokens", "1000")
        code, text = run(capsys, "--model", str(checkpoint("gpt2")), *long)
        assert code == 1
        assert "does not fit the window of 1,024 tokens" in " ".join(text.split())

    def test_a_hub_name_without_network_is_one_sentence(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        code, text = run(capsys, "--model", "nobody/nothing", *self.QUICK)
        assert code == 2
        assert text.startswith("maporl: cannot load the model 'nobody/nothing': there is no")

    @pytest.mark.parametrize(
        ("flags", "sentence"),
        [
            (("--ppo.kl-gain", "0.3"), "ppo.kl_gain=0.3 would do nothing"),
            (("--turns", "1", "--game.gamma", "0.3"), "game.gamma=0.3 would do nothing"),
            (("--team.tuning", "none"), "team.tuning='none' trains no weights"),
        ],
    )
    def test_settings_without_effect_are_refused_as_by_train(
        self, flags: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, text = run(capsys, *self.QUICK, *flags)
        assert code == 2
        assert text.startswith(f"maporl: {sentence}")

    @pytest.mark.slow
    def test_time_is_within_the_stated_factor(self) -> None:
        """Messages as long as their limit, on this machine, which others may load."""
        import time

        config = tiny("shopping", 10)
        config = replace(config, questions_per_step=32)
        best = sum(
            plan_of(config, this_machine(torch.device("cpu"), torch.float32)).seconds.values()
        )
        _, learner = experiment.build(config)
        debates, questions = debates_of(config.game, 32), questions_of(config.game, "train")[:32]
        took = []
        for seed in range(3):
            start = time.perf_counter()
            maporl.train_step(learner, debates, questions, config, seed=seed)
            took.append(time.perf_counter() - start)
        assert best / 2 < min(took) < 2 * TIME_FACTOR * best
