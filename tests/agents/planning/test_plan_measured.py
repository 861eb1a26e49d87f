"""The time that ``maporl plan`` foretells by a rehearsal, and what a process of its own takes.

The quick tests are closed forms on a clock that is made up; the slow ones take real steps.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from maporl_agents import cli
from maporl_agents.config import GameConfig, PPOConfig, Sampling, TeamConfig, TrainConfig
from maporl_agents.models import loading
from maporl_agents.models.loading import load_model
from maporl_agents.planning.machine import GIB, Machine, resident_bytes, this_machine
from maporl_agents.planning.page import _how_sure
from maporl_agents.planning.plan import plan_of
from maporl_agents.planning.rehearsal import (
    MOST_REPEATS,
    Rehearsal,
    Spent,
    Watched,
    load_random,
    on_line,
    rehearse,
    sizes,
    time_steps,
)
from maporl_agents.planning.stand_ins import first_questions, stage
from maporl_agents.play.rollout import play
from maporl_agents.training import experiment
from maporl_agents.types import StopReason

pytestmark = pytest.mark.thorough  # each builds and runs whole trainings

MACHINE = Machine("a machine", 16 * GIB, 1e11, 1e10, 1e-5, overlaps=False)
WITHIN = 0.15
PATIENCE = 600
"""Seconds that a rehearsal may take in a test: it needs a few, if nobody else is at work."""


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bases take turns, so that the seconds of the processor are those of the work."""
    monkeypatch.setenv("MAPORL_CORES", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class FakeSteps:
    """Steps that take 3 s and 0.5 s more per debate, and four times that to warm up."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.clock = 0.0

    def __call__(self, size: int) -> Spent:
        wall = (3 + 0.5 * size) * (1 if self.taken else 4)
        self.taken.append(size)
        self.clock += wall
        return Spent(wall, 2 * wall)


class TestWhatIsTimed:
    @pytest.mark.parametrize(
        ("count", "least", "expected"),
        [
            (64, 4, [4, 8, 16, 32, 64]),
            (100, 4, [4, 7, 13, 25, 50, 100]),
            (6, 4, [6]),  # half of it would make fewer updates
            (8, 1, [2, 4, 8]),
            (1, 1, [1]),
        ],
    )
    def test_a_step_and_its_halves(self, count: int, least: int, expected: list[int]) -> None:
        assert sizes(count, least) == expected

    def test_a_line_is_followed_exactly(self) -> None:
        timed = {n: Spent(3 + 0.5 * n, 6 + 0.25 * n) for n in (16, 4, 8)}
        assert on_line(timed, 64) == Spent(3 + 0.5 * 64, 6 + 0.25 * 64)

    def test_one_size_is_scaled_and_noise_makes_no_line_fall(self) -> None:
        assert on_line({4: Spent(2, 3)}, 8) == Spent(4, 6)
        assert on_line({4: Spent(2, 3), 8: Spent(1.9, 5)}, 16) == Spent(1.9, 9)

    def test_the_whole_step_if_there_is_time(self) -> None:
        steps = FakeSteps()
        timed = time_steps(steps, 64, 4, seconds=1000)
        assert steps.taken[:6] == [4, 4, 8, 16, 32, 64]
        assert set(steps.taken[6:]) == {64}  # again, for the best of them
        assert Rehearsal(64, timed).forecast == Spent(35, 70)
        assert timed[4] == Spent(5, 10)  # not what it took to warm up

    @pytest.mark.parametrize("seconds", [60, 80, 110])
    def test_a_line_if_there_is_not(self, seconds: float) -> None:
        steps = FakeSteps()
        timed = time_steps(steps, 1024, 4, seconds)
        assert 1024 not in timed
        assert len(timed) >= 2
        assert Rehearsal(1024, timed).forecast == Spent(3 + 0.5 * 1024, 2 * (3 + 0.5 * 1024))
        assert steps.clock <= seconds

    def test_no_more_than_to_warm_up_if_there_is_no_time_at_all(self) -> None:
        steps = FakeSteps()
        assert time_steps(steps, 1024, 4, seconds=1) == {}
        assert steps.taken == [4]

    def test_the_best_is_kept(self) -> None:
        walls = iter([9.0, 3.0, 2.0, 4.0, 1.0, *[5.0] * MOST_REPEATS])
        assert time_steps(lambda _: Spent(next(walls), 1.0), 2, 2, 1000) == {2: Spent(1.0, 1.0)}


class TestHowSure:
    """What a forecast says of a machine that others use, without using one."""

    def test_an_idle_machine(self) -> None:
        found = Rehearsal(8, {8: Spent(2.0, 3.0)}, {8: Spent(2.2, 3.1)}, load=0.2, cores=2)
        assert not found.busy
        assert found.bounds == pytest.approx((1.7, 2.53))
        assert "busy" not in _how_sure(found)
        assert "a factor of 1.10" in _how_sure(found)

    @pytest.mark.parametrize(("load", "slow"), [(7.0, 2.2), (0.1, 14.0), (None, 14.0)])
    def test_a_busy_machine(self, load: float | None, slow: float) -> None:
        found = Rehearsal(8, {8: Spent(2.0, 3.0)}, {8: Spent(slow, 3.1)}, load=load, cores=2)
        assert found.busy
        assert found.bounds == pytest.approx((1.5 * 0.85, slow * 1.15))
        text = _how_sure(found)
        assert "This machine is busy" in text
        assert "for 2 cores" in text
        assert ("Load before: unknown" in text) == (load is None)

    def test_a_line_through_the_slowest_too(self) -> None:
        timed = {4: Spent(1.0, 1.0), 8: Spent(2.0, 2.0)}
        slow = {4: Spent(1.1, 1.0), 8: Spent(2.2, 2.0)}
        low, high = Rehearsal(16, timed, slow, load=0.0, cores=1).bounds
        assert (low, high) == pytest.approx((4.0 * 0.85, 4.4 * 1.15))

    def test_the_slowest_of_each_size_is_kept_but_for_warming_up(self) -> None:
        walls = iter([9.0, 3.0, 2.0, 4.0])
        watched = Watched(lambda size: Spent(next(walls), 1.0))
        for size in (2, 2, 4, 2):
            watched(size)
        assert watched.slowest == {2: Spent(4.0, 1.0), 4: Spent(2.0, 1.0)}


def small(folder: Path) -> TrainConfig:
    """Return a run of four debates, with messages of six tokens."""
    return TrainConfig(
        questions_per_step=4,
        game=GameConfig(num_turns=2),
        team=TeamConfig(model=(str(folder),), tuning="lora", device="cpu"),
        sampling=Sampling(max_new_tokens=6),
        ppo=PPOConfig(minibatches=2),
    )


class TestRehearsal:
    def test_leaves_everything_as_it_was(self, checkpoint: Callable[..., Path]) -> None:
        config = small(checkpoint("llama"))
        plan = plan_of(config, MACHINE)
        torch.set_num_threads(2)

        def state() -> list[Any]:
            names = np.random.get_state()  # noqa: NPY002 (it must not change)
            return [
                torch.get_rng_state().tolist(),
                random.getstate(),
                (names[0], names[1].tolist(), *names[2:]),
                torch.get_num_threads(),
                torch.is_grad_enabled(),
                torch.get_default_dtype(),
                functional.scaled_dot_product_attention,
            ]

        before = state()
        rehearse(config, plan, PATIENCE)
        assert state() == before

    def test_opens_no_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def opened(*_: Any, **__: Any) -> Any:
            raise AssertionError("weights were opened")

        monkeypatch.setattr(loading, "read_weights", opened)
        config = replace(small(Path("tiny")), team=TeamConfig(device="cpu"), questions_per_step=2)
        with pytest.raises(AssertionError, match="were opened"):
            experiment.build(config)
        assert rehearse(config, plan_of(config, MACHINE), PATIENCE).timed

    @pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
    def test_plays_what_is_planned(self, checkpoint: Callable[..., Path], family: str) -> None:
        """Every message reaches its limit, whatever a random model samples; tokens are exact."""
        config = small(checkpoint(family))
        limits = replace(config.sampling, stop=(" ", "a"))  # which the stand-in is made of
        plan = plan_of(config, MACHINE)
        team, _ = experiment.build(config, load=load_random)
        questions, _ = first_questions(config, 4, 0, team.bases[0].chat)
        debates = stage(config.game, questions, made_up=False)
        rollouts = play(team, debates, questions, limits, seed=0)
        said = [done for rollout in rollouts for done in rollout.completions]
        assert [(len(done.ids), done.stop) for done in said] == [(6, StopReason.LENGTH)] * 16
        assert len({done.ids for done in said}) > 1  # sampled
        read = sum(len(prompt) for rollout in rollouts for prompt in rollout.prompts)
        assert read == plan.prompt_tokens

    def test_asks_no_verifier(self, checkpoint: Callable[..., Path]) -> None:
        config = small(checkpoint("llama"))
        nobody = replace(config.game, verifier="remote:http://127.0.0.1:9")
        plan = plan_of(config, MACHINE)
        assert rehearse(replace(config, game=nobody), plan, PATIENCE).timed

    def test_needs_no_data_if_questions_are_made_up(self, checkpoint: Callable[..., Path]) -> None:
        config = small(checkpoint("llama"))
        config = replace(config, game=replace(config.game, task="gsm8k", data="/none"))
        lengths = {"message_tokens": 3, "question_tokens": 20}
        plan = plan_of(config, MACHINE, **lengths)
        assert set(rehearse(config, plan, PATIENCE).timed) == {2, 4}

    def test_refuses_what_it_cannot_do(self, checkpoint: Callable[..., Path]) -> None:
        config = small(checkpoint("llama"))
        plan = plan_of(config, MACHINE)
        with pytest.raises(ValueError, match="does not fit"):
            rehearse(config, replace(plan, machine=replace(MACHINE, memory_bytes=1)), 5)
        with pytest.raises(ValueError, match="quantised"):
            rehearse(replace(config, team=replace(config.team, quantization="nf4")), plan, 5)
        slow = replace(plan, machine=replace(MACHINE, op_seconds=1))
        with pytest.raises(ValueError, match=r"or more, and 5 s are allowed"):
            rehearse(config, slow, 5)

    def test_says_if_time_ran_out(self, checkpoint: Callable[..., Path]) -> None:
        config = small(checkpoint("llama"))
        plan = plan_of(config, replace(MACHINE, op_seconds=0, flops=1e15, bytes_per_second=1e15))
        with pytest.raises(ValueError, match="raise --rehearsal-seconds"):
            rehearse(config, plan, 1e-3)


class TestCommand:
    QUICK = ("--questions-per-step", "2", "--sampling.max-new-tokens", "4", "--turns", "2")

    def said(self, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
        with pytest.raises(SystemExit):
            cli.main(["plan", *self.QUICK, *argv])
        caught = capsys.readouterr()
        return " ".join((caught.out + caught.err).split())

    def test_forecasts_a_step(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = self.said(capsys, "--rehearsal-seconds", str(PATIENCE))
        assert "a step takes about" in text
        assert "The range: fastest to slowest" in text
        assert "Rehearsed: a step of all 2 questions" in text
        assert "Python and its libraries take about" in text

    @pytest.mark.parametrize(
        ("argv", "why"),
        [
            (("--rehearsal-seconds", "0"), "none was asked for"),
            (("--gib", "80"), "the device described is not this one"),
            pytest.param(
                ("--rehearsal-seconds", "1e-9"),
                "raise --rehearsal-seconds",
                marks=pytest.mark.thorough,
            ),
        ],
    )
    def test_says_why_there_is_a_range(
        self, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], why: str
    ) -> None:
        text = self.said(capsys, *argv)
        assert "at best)" in text
        assert f"No rehearsal: {why}" in text or why in text.partition("No rehearsal: ")[2]


def test_resident_memory_is_that_of_this_process() -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the system does not say how large a process is")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    assert resident_bytes() == pytest.approx(1024 * int(line.split()[1]), rel=0.05)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """``benchmarks/plan.py``, which measures."""
    file = Path(__file__).parents[3] / "benchmarks" / "plan.py"
    spec = importlib.util.spec_from_file_location("plan_benchmark", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plan_benchmark"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestAgainstRealSteps:
    """Best of several, in processor seconds, in turns: others use the machine, too."""

    ROUNDS = 4

    @pytest.mark.parametrize(
        "run",
        [
            "shopping-16",
            "sharing-16",
            "llama-8",
            "qwen2-8",
            "gpt2-8",
            "llama54m-2",
            "shopping-16-usual",
            "sharing-16-usual",
        ],
    )
    def test_time_is_within_15_percent(
        self, benchmark: ModuleType, tmp_path: Path, run: str
    ) -> None:
        """Of messages that reach their limits; "usual" ones are planned by their mean length."""
        config = benchmark.settings(run, tmp_path)
        usual = run.endswith("usual")
        steps = benchmark.RealSteps(config, load_model if usual else benchmark.load_endless)
        steps.take()
        length = steps.message_tokens() if usual else 0
        here = this_machine(torch.device("cpu"), torch.float32)
        plan = plan_of(config, here, message_tokens=length)
        foretold, real = float("inf"), float("inf")
        for _ in range(self.ROUNDS):
            rehearsal = rehearse(config, plan, PATIENCE)
            foretold = min(foretold, rehearsal.forecast.processor)
            real = min(real, *(steps.take() for _ in range(3)))
            if foretold == pytest.approx(real, rel=WITHIN / 2):
                break
        assert foretold == pytest.approx(real, rel=WITHIN)

    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no peak of a process")
    def test_memory_of_a_process_of_54_million(self, benchmark: ModuleType, tmp_path: Path) -> None:
        """It holds what is planned where freed blocks are given back.

        As it is, GNU's malloc keeps many of them for later: up to half as much again.
        """
        config = benchmark.settings("llama54m-2", tmp_path)
        planned = plan_of(config, MACHINE).peak_bytes
        given_back = benchmark.growth(config, MALLOC_MMAP_THRESHOLD_="65536")
        assert planned == pytest.approx(given_back, rel=WITHIN)
        assert given_back < benchmark.growth(config) < 1.6 * planned
