"""Runs that survive: signals, kills, changed settings, a faulty verifier; models that leave us."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from miniatures import stir
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from maporl_agents import cli
from maporl_agents.algorithms.maporl import train_step
from maporl_agents.config import EvalConfig, PPOConfig, TeamConfig, TrainConfig
from maporl_agents.play.questions import questions_of_step
from maporl_agents.records import checkpoint
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.training import experiment
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.tasks import load_task
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey, Scorer

REPOSITORY = Path(__file__).resolve().parents[3]
SMALL = TrainConfig(
    name="run",
    steps=6,
    questions_per_step=2,
    checkpoint_every=1,
    eval=EvalConfig(questions=2),
    ppo=PPOConfig(minibatches=1),
)
FLAGS = (
    *("--name", "run", "--steps", "6", "--questions-per-step", "2", "--checkpoint-every", "1"),
    *("--eval.questions", "2", "--ppo.minibatches", "1"),
)


def maporl(*argv: object) -> int:
    """Run the command line here; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in argv])
    return int(stop.value.code or 0)


def start_training(*argv: object) -> subprocess.Popen[str]:
    """Start ``maporl train`` in a process of its own."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "agents")])
    return subprocess.Popen(
        [sys.executable, "-m", "maporl_agents.cli", "train", *map(str, argv)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Return as soon as the run has logged a step."""
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= step):
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.01)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a run's newest checkpoint: policies, critics, optimiser."""
    newest = checkpoint.latest(folder / "checkpoints")
    assert newest is not None
    return {
        f"{path.relative_to(newest)}:{name}": tensor
        for path in sorted(newest.rglob("*.safetensors"))
        for name, tensor in checkpoint.load_tensors(path).items()
    }


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, moments, metrics, sampled debates and results are bitwise the same."""
    for name in ("metrics.jsonl", "transcripts/train.jsonl", "results.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


# --- Signals and kills --------------------------------------------------------


def test_a_run_that_a_signal_ended_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise experiment.Interrupted(3, signal.SIGTERM)

    monkeypatch.setattr(experiment, "run", stopped)
    assert maporl("train", "--runs", tmp_path, *FLAGS) == 143
    shown = "".join(capsys.readouterr())
    assert "stopped after step 3" in shown
    assert "--resume" in shown


@pytest.mark.thorough
@pytest.mark.timeout(400)  # seconds; alone it takes about 15
def test_sigterm_saves_and_exits_143(tmp_path: Path) -> None:
    """E10, end to end: the running step is finished and saved, and can be gone on from."""
    folder = tmp_path / "run"
    flags = ("--runs", tmp_path, *FLAGS, "--steps", 10_000, "--checkpoint-every", 10_000)
    with start_training(*flags) as process:
        wait_for_step(process, folder, 1)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=120)  # one step and a checkpoint
    assert process.returncode == 143, out
    steps = len(read_metrics(folder))
    newest = checkpoint.latest(folder / "checkpoints")
    assert newest is not None
    assert checkpoint.step_of(newest) == steps
    assert f"stopped after step {steps}" in out
    assert "--resume" in out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_moment_a_run_ends_bitwise_as_if_it_had_not_been(tmp_path: Path) -> None:
    """E2 and R2: SIGKILL at random times after each step, between and within steps."""
    chance = random.Random(0)
    flags = ("--runs", tmp_path / "killed", *FLAGS)
    folder = tmp_path / "killed" / "run"
    for step in range(1, 6):
        with start_training(*flags) as process:
            wait_for_step(process, folder, step)
            time.sleep(chance.uniform(0, 0.2))
            process.kill()
        flags = ("--resume", folder)
        if checkpoint.latest(folder / "checkpoints") is None:  # killed before the first was whole
            flags = ("--runs", tmp_path / "killed", *FLAGS, "--overwrite")
    assert maporl("train", "--resume", folder) == 0
    assert maporl("train", "--runs", tmp_path / "whole", *FLAGS) == 0
    assert_same_run(tmp_path / "whole" / "run", folder)


# --- Other settings on resume -------------------------------------------------


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = replace(SMALL, steps=2)
    folder = tmp_path_factory.mktemp("two-steps") / "run"
    _, learner = experiment.build(config)
    with RunLog.create(folder, config) as log:
        questions = load_task("shopping").split("train")
        experiment.train(config, learner, questions, log)
    return folder


@pytest.fixture
def two_steps(trained_once: Path, tmp_path: Path) -> Path:
    """A run of two steps with all that a resumed one needs, for this test alone."""
    return Path(shutil.copytree(trained_once, tmp_path / "run"))


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_changed_settings_are_shown_line_by_line_and_refused(
    two_steps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(two_steps)
    assert maporl("train", "--resume", two_steps, "--steps", 3, "--ppo.learning-rate", 0.002) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:-1] == [
        "- ppo.learning_rate: 0.001",
        "+ ppo.learning_rate: 0.002",
        "- steps: 2",
        "+ steps: 3",
    ]
    assert "--force" in lines[-1]
    assert tree(two_steps) == {**before, two_steps / ".lock": (two_steps / ".lock").read_bytes()}


def test_forced_settings_take_effect_and_stay(two_steps: Path) -> None:
    flags = ("--steps", 3, "--ppo.learning-rate", 0.002, "--ppo.warmup-steps", 0)
    assert maporl("train", "--resume", two_steps, *flags, "--force") == 0
    rows = read_metrics(two_steps)
    assert [row["step"] for row in rows] == [1, 2, 3]
    # That of the third update: a third of the decay is left of a run of three steps.
    assert rows[-1]["learning_rate"] == pytest.approx((0.1 + 0.9 / 3) * 0.002, rel=1e-9)
    assert experiment.read_config(two_steps).steps == 3
    assert maporl("train", "--resume", two_steps) == 0, "now they are the run's own"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--steps", 1, "--force"), "has done 2 steps"),
        (("--team.critic-width", 8, "--force"), "critics"),
    ],
)
def test_forced_settings_that_cannot_go_on_change_nothing(
    two_steps: Path, capsys: pytest.CaptureFixture[str], flags: tuple[object, ...], says: str
) -> None:
    before = tree(two_steps)
    assert maporl("train", "--resume", two_steps, *flags) == 2
    assert says in capsys.readouterr().err
    assert tree(two_steps) == {**before, two_steps / ".lock": (two_steps / ".lock").read_bytes()}


def test_force_without_resume_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert maporl("train", "--force") == 2
    assert "--resume" in capsys.readouterr().err


def test_the_learning_rate_goes_on_where_it_was(two_steps: Path) -> None:
    config = experiment.read_config(two_steps)
    _, learner = experiment.build(config)
    fresh = [group["lr"] for group in learner.optimizer.param_groups]
    assert experiment.load_checkpoint(two_steps, learner) == 2
    rates = [group["lr"] for group in learner.optimizer.param_groups]
    assert rates[0] > read_metrics(two_steps)[-1]["learning_rate"] > fresh[0] / 2, "warming up"
    assert rates != fresh


# --- Export -------------------------------------------------------------------


def saved_run(folder: Path, **team: object) -> tuple[Path, experiment.Learner]:
    """Save a run whose weights are those of a trained one: moved, everywhere."""
    config = replace(SMALL, team=replace(TeamConfig(device="cpu"), **team))  # type: ignore[arg-type]
    _, learner = experiment.build(config)
    stir(learner.team)
    with RunLog.create(folder, config):
        experiment.save_checkpoint(folder, 1, learner)
    return folder, learner


@torch.no_grad()
def own_logits(learner: experiment.Learner, policy: str, ids: torch.Tensor) -> torch.Tensor:
    """What the team itself computes for one policy."""
    base = learner.team.base_of(policy)
    columns = torch.arange(ids.shape[1])[None]
    return base.logits(base.hidden(ids, torch.ones_like(ids), columns, [policy]))


IDS = torch.tensor([[5, 9, 2, 7, 7, 1]])


@pytest.mark.parametrize(("tuning", "merge"), [("full", False), ("full", True), ("lora", True)])
def test_exported_models_load_with_transformers_alone(
    tmp_path: Path, tuning: str, merge: bool
) -> None:
    run, learner = saved_run(tmp_path / "run", tuning=tuning)
    flags = ("--merge",) if merge else ()
    assert maporl("export", run, "--to", tmp_path / "out", *flags) == 0
    for policy in ("agent_0", "agent_1"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / policy)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / policy)
        expected = own_logits(learner, policy, IDS)
        with torch.no_grad():
            logits = model(IDS).logits[..., : expected.shape[-1]]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert len(tokenizer) == expected.shape[-1]


def test_exported_adapters_load_with_peft_alone(tmp_path: Path) -> None:
    run, learner = saved_run(tmp_path / "run", tuning="lora")
    assert maporl("export", run, "--to", tmp_path / "out") == 0
    for seat, policy in enumerate(("agent_0", "agent_1")):
        from maporl_agents import tiny

        base = AutoModelForCausalLM.from_pretrained(tiny.checkpoint(seat))
        with torch.no_grad():
            bare = base(IDS).logits
            model = PeftModel.from_pretrained(base, tmp_path / "out" / policy).eval()
            expected = own_logits(learner, policy, IDS)
            logits = model(IDS).logits[..., : expected.shape[-1]]
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        assert (bare[..., : expected.shape[-1]] - expected).abs().max() > 0.1, "the adapter acts"


def test_an_export_replaces_nothing_and_is_whole_or_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], two_steps: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert maporl("export", two_steps, "--to", tmp_path / "out") == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert maporl("export", tmp_path, "--to", tmp_path / "new") == 2
    assert "is no run" in capsys.readouterr().err
    with RunLog.create(tmp_path / "unsaved", SMALL):
        pass
    assert maporl("export", tmp_path / "unsaved", "--to", tmp_path / "new") == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


# --- A faulty verifier --------------------------------------------------------


class FaultyKey:
    """The answer key, which in a share of its calls raises, hangs, counts wrongly or says NaN."""

    KINDS = ("raise", "hang", "count", "nan")

    def __init__(self, share: float, seed: int) -> None:
        self.share = share
        self.chance = random.Random(seed)
        self.release = threading.Event()
        self.calls: list[tuple[str, int]] = []  # kind of fault, messages that it should cost

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        right = AnswerKey().score(questions, responses)
        fault = self.chance.choice(self.KINDS) if self.chance.random() < self.share else "none"
        self.calls.append((fault, {"none": 0, "nan": 1}.get(fault, len(responses))))
        match fault:
            case "raise":
                raise RuntimeError("the verifier is out of order")
            case "hang":
                self.release.wait()
            case "count":
                return right[:-1]
            case "nan":
                return [float("nan"), *right[1:]]
        return right


def timed(scorer: Scorer) -> list[float]:
    """Note from now on how long each call takes, in seconds."""
    seconds: list[float] = []
    score = scorer.score

    def measured(questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        begun = time.monotonic()
        scores = score(questions, responses)
        seconds.append(time.monotonic() - begun)
        return scores

    scorer.score = measured  # type: ignore[method-assign]
    return seconds


def train_with_faults(updates: int, seed: int) -> FaultyKey:
    """Train; check after every step that exactly the faulty messages were left out."""
    config = replace(SMALL, steps=updates)
    _, learner = experiment.build(config)
    verifier = FaultyKey(0.2, seed)
    game = DebateConfig(num_agents=2, verifier=verifier, verifier_timeout=1.0, gamma=1.0)
    debates = BatchedDebate(game, config.questions_per_step)
    seconds = timed(debates.game.scorer)
    questions = load_task("shopping").split("train")
    try:
        for step in range(updates):
            seen = len(verifier.calls)
            asked = questions_of_step(questions, step, config.questions_per_step, 0)
            rollouts, metrics = train_step(learner, debates, asked, config, seed=step)
            calls = verifier.calls[seen:]
            assert len(calls) == 3, "one call per turn, never a second one"
            assert metrics["unscored_messages"] == sum(count for _, count in calls)
            unscored = 0
            for rollout in rollouts:
                for message in rollout.transcript.messages:
                    unscored += message.score is None
                    if message.score is not None:  # no fake zero, no fake one
                        [right] = AnswerKey().score([rollout.transcript.question], [message.text])
                        assert message.score == right
                assert (rollout.rewards[~rollout.scored] == 0).all()
            assert unscored == metrics["unscored_messages"]
            assert all(torch.isfinite(p).all() for p in learner.parameter_names())
    finally:
        verifier.release.set()
    assert max(seconds) < game.verifier_timeout + 20  # A33: however long the verifier hangs
    assert sum(debates.faults.values()) == sum(count for _, count in verifier.calls)
    return verifier


@pytest.mark.thorough
def test_training_outlives_a_faulty_verifier() -> None:
    """A32 and A33 in the small; every kind of fault occurs."""
    verifier = train_with_faults(10, seed=2)
    assert {kind for kind, _ in verifier.calls} == {"none", *FaultyKey.KINDS}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_200_updates_with_a_faulty_verifier() -> None:
    """R13: a fifth of the calls fail, and the run finishes with exact counts."""
    threads = threading.active_count()
    verifier = train_with_faults(200, seed=0)
    faulty = sum(kind != "none" for kind, _ in verifier.calls)
    assert len(verifier.calls) == 600
    assert 90 <= faulty <= 150  # 120 expected, three standard deviations of 10
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= threads, "those that hung end once they are let go"
