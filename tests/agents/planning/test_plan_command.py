"""Plans of whole runs, and ``maporl plan``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plan_cases import MACHINE, miniature, tiny

from maporl_agents import cli
from maporl_agents.algorithms import maporl
from maporl_agents.config import Sampling, TrainConfig
from maporl_agents.models import quantize
from maporl_agents.models.loading import make_team
from maporl_agents.planning.machine import this_machine
from maporl_agents.planning.plan import TIME_FACTOR, USABLE, plan_of
from maporl_agents.planning.sketch import sketch_team
from maporl_agents.planning.stand_ins import filler_ids
from maporl_agents.play.rollout import play
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, questions_of


@pytest.mark.thorough
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
        assert (plan.fits, plan.max_rows, plan.micro_tokens) == (False, None, None)

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


@pytest.mark.thorough
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
