"""``maporl verifier ...`` from samples to a reward and a service, as a user types it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from refusals import refused

from maporl_agents.cli import main
from maporl_agents.config import GameConfig, Sampling, TeamConfig
from maporl_agents.records.run_log import read_metrics
from maporl_agents.training import make_game
from maporl_agents.training.make_game import make_verifier
from maporl_agents.verifier.data import Example, Sampled, load_examples, save_examples
from maporl_agents.verifier.model import LearnedVerifier
from maporl_env.tasks import shopping
from maporl_env.tasks.published import gsm8k
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey, RemoteVerifier

TOKEN = "sesame-sesame-sesame"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of the built-in agents and a verifier trained on them for three steps."""
    folder = tmp_path_factory.mktemp("made")
    sizes = ("--questions", 6, "--test-questions", 6, "--debates", 6)
    assert run("verifier", "data", folder / "data", *sizes) == 0
    small = ("--steps", 3, "--rows-per-step", 8, "--lora-rank", 2, "--device", "cpu")
    assert run("verifier", "train", folder / "data", folder / "verifier", *small) == 0
    return folder


def test_data_are_sampled_from_questions_that_the_halves_do_not_share(made: Path) -> None:
    train, test = (load_examples(made / "data" / f"{half}.jsonl") for half in ("train", "test"))
    assert len(train) == len(test) == 6 * 6 * 2
    assert not {e.question.id for e in train} & {e.question.id for e in test}
    key = AnswerKey().score([e.question for e in train], [e.response for e in train])
    assert [example.right for example in train] == [score == 1 for score in key]
    about = json.loads((made / "data" / "data.json").read_text())
    assert about["template"]["opening"] == shopping.TEMPLATE.opening
    assert about["train"]["questions"] == 6


def test_a_file_that_is_both_splits_is_divided(tmp_path: Path) -> None:
    """Both splits of a user's file are one list: no question of it may be in both halves."""
    rows = [
        json.dumps({"prompt": f"how much is {n} + 1 ?", "answer": str(n + 1)}) for n in range(8)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(rows) + "\n")
    sizes = ("--questions", 8, "--test-questions", 4, "--debates", 1, "--max-new-tokens", 2)
    where = ("--task", tmp_path / "mine.jsonl", "--held-out-share", 0.5)
    assert run("verifier", "data", tmp_path / "d", *where, *sizes) == 0
    asked = [
        {e.question.prompt for e in load_examples(tmp_path / "d" / f"{half}.jsonl")}
        for half in ("train", "test")
    ]
    assert [len(prompts) for prompts in asked] == [4, 4]
    assert not asked[0] & asked[1]


def test_training_leaves_a_verifier_and_its_report(made: Path) -> None:
    folder = made / "verifier"
    verifier = LearnedVerifier.load(folder)
    assert verifier.template == shopping.TEMPLATE
    facts = json.loads((folder / "verifier.json").read_text())["report"]
    assert facts["balance"] == "question"
    assert facts["examples"] == facts["counts"]["kept"]
    assert len(facts["losses"]) == 3
    report = json.loads((folder / "report.json").read_text())
    assert report["verifier"]["sampled"]["answers"] == 72
    assert (folder / "reliability.png").stat().st_size > 10_000


def test_verifiers_are_measured_side_by_side(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made / "verifier"
    assert run("verifier", "eval", made / "data", folder, folder, "--out", tmp_path / "both") == 0
    assert json.loads((tmp_path / "both" / "report.json").read_text()) == {
        str(folder): json.loads((folder / "report.json").read_text())["verifier"]
    }
    assert "within" in capsys.readouterr().out


def test_recordings_are_divided_by_question(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "gsm8k" / "example_model_solutions.jsonl"
    short = tmp_path / "short.jsonl"
    short.write_text("\n".join(source.read_text().splitlines()[:40]) + "\n")
    assert run("verifier", "data", tmp_path / "d", "--recordings", short) == 0
    train, test = (load_examples(tmp_path / "d" / f"{half}.jsonl") for half in ("train", "test"))
    assert (len(train), len(test)) == (32 * 4, 8 * 4)
    template = json.loads((tmp_path / "d" / "data.json").read_text())["template"]
    assert "A: 34" in template["instruction"]


def test_unbalanced_training_takes_everything(made: Path, tmp_path: Path) -> None:
    options = ("--balance", "none", "--steps", 1, "--rows-per-step", 2, "--device", "cpu")
    assert run("verifier", "train", made / "data", tmp_path / "v", *options) == 0
    facts = json.loads((tmp_path / "v" / "verifier.json").read_text())["report"]
    assert (facts["balance"], facts["examples"]) == ("none", 72)


@pytest.mark.thorough
def test_a_run_is_paid_by_a_learned_verifier_and_watched_by_the_key(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loads: list[Path] = []
    load = LearnedVerifier.load

    def counted(folder: Path, device: str | None = None) -> LearnedVerifier:
        loads.append(folder)
        return load(folder, device)

    monkeypatch.setattr(LearnedVerifier, "load", counted)
    monkeypatch.setattr(make_game, "_LOADED", {})
    game = ("--game.verifier", f"learned:{made / 'verifier'}")
    sizes = ("--steps", 2, "--questions-per-step", 4, "--eval.questions", 4)
    assert run("train", "--runs", tmp_path, "--name", "run", *game, *sizes) == 0
    metrics = read_metrics(tmp_path / "run")
    assert len(metrics) == 2
    for row in metrics:
        assert 0 < row["score/turn_1"] < 1
        assert row["accuracy/turn_1"] * 8 == int(row["accuracy/turn_1"] * 8)
    assert loads == [made / "verifier"]
    shown = " ".join(capsys.readouterr().out.split())
    num_known = len({e.question.prompt for e in load_examples(made / "data" / "train.jsonl")})
    facts = json.loads((made / "verifier" / "verifier.json").read_text())["report"]
    assert 0 < len(facts["trained_on"]) <= num_known  # those with only wrong answers were dropped
    assert f"warning: {len(facts['trained_on'])} of " in shown
    assert "was trained on: its scores there may be better" in shown


def test_one_learned_verifier_is_kept_and_read_again_when_it_changes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_game, "_LOADED", {})
    copy = tmp_path / "copy"
    shutil.copytree(made / "verifier", copy)
    first = make_verifier(f"learned:{copy}")
    assert make_verifier(f"learned:{copy}") is first
    gone = weakref.ref(first)
    del first
    os.utime(copy / "verifier.json", ns=(1, 1))
    again = make_verifier(f"learned:{copy}")
    assert gone() is None
    assert make_verifier(f"learned:{made / 'verifier'}") is not again
    assert make_verifier(f"learned:{copy}") is not again
    shutil.rmtree(copy)
    with pytest.raises(ValueError, match=r"no verifier\.json"):
        make_verifier(f"learned:{copy}")


def test_a_game_that_pays_one_verifier_and_shows_another_reads_each_once(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = LearnedVerifier.load
    monkeypatch.setattr(make_game, "_LOADED", {})
    monkeypatch.setattr(
        LearnedVerifier, "load", lambda folder: loads.append(folder.name) or load(folder)
    )
    for name in ("paid", "shown"):
        shutil.copytree(made / "verifier", tmp_path / name)
    paid, shown = (f"learned:{tmp_path / name}" for name in ("paid", "shown"))
    game = GameConfig(verifier=paid, feedback_verifier=shown, reward_feedback=True)
    for _ in range(3):
        config = make_game.debate_config(game)
        assert config.verifier is not config.feedback_verifier is not None
    assert loads == ["paid", "shown"]
    make_game.debate_config(GameConfig(verifier=shown))  # another game: what it does not use goes
    assert [Path(path).parent.name for path, _ in make_game._LOADED] == ["shown"]
    assert loads == ["paid", "shown"]
    make_game.debate_config(GameConfig())
    assert not make_game._LOADED


def test_who_answers_is_loaded_and_decoded_as_the_flags_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team as a recipe has it on one GPU, on a task that has a part for verifiers."""
    asked: list[tuple[TeamConfig, Sampling, list[str]]] = []

    def team_of(config: TeamConfig, **_: Any) -> Any:
        base = SimpleNamespace(device=torch.device("cuda"))
        return SimpleNamespace(bases=[base], config=config)

    def answers(team: Any, game: Any, questions: Any, sampling: Sampling, **_: Any) -> Any:
        asked.append((team.config, sampling, sorted(q.id for q in questions)))
        return Sampled([Example(question, "\\boxed{1}", True) for question in questions], 0)

    monkeypatch.setattr("maporl_agents.models.loading.make_team", team_of)
    monkeypatch.setattr("maporl_agents.verifier.data.sample_answers", answers)
    monkeypatch.setattr(gsm8k, "NUM_VERIFIER", 2)
    (tmp_path / "gsm8k").mkdir()
    for half in ("train", "test"):
        rows = [json.dumps({"question": f"{half} {n}?", "answer": "#### 1"}) for n in range(4)]
        (tmp_path / "gsm8k" / f"{half}.jsonl").write_text("\n".join(rows) + "\n")
    team = ("--model", "microsoft/Phi-3-mini-128k-instruct", "--quantization", "nf4")
    team = (*team, "--double-quant", "--dtype", "bfloat16", "--device", "cuda:1")
    drawn = ("--max-rows", 32, "--temperature", 1.3, "--stop", "###")
    where = ("--task", "gsm8k", "--data", tmp_path / "gsm8k")
    assert run("verifier", "data", tmp_path / "d", *where, *team, *drawn) == 0
    config, sampling, ids = asked[0]
    assert config == TeamConfig(
        model=("microsoft/Phi-3-mini-128k-instruct",),
        tuning="none",
        quantization="nf4",
        double_quant=True,
        dtype="bfloat16",
        device="cuda:1",
    )
    assert sampling == Sampling(300, 1.3, max_rows=32, stop=("###",))
    assert ids == ["gsm8k/train/0", "gsm8k/train/1"]  # those of the verifier
    assert len(asked[1][2]) == 4
    assert run("verifier", "data", tmp_path / "e", *where, "--split", "train") == 0
    assert len(asked[2][2]) == 4
    assert asked[2][0] == TeamConfig(tuning="none")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--held-out-share", 0.3), "--held-out-share divides --recordings and splits that are"),
        (("--recordings", "x", "--agents", 3), "with --recordings .* --agents would do nothing"),
        (
            ("--recordings", "x", "--temperature", 1, "--dtype", "bfloat16", "--task", "gsm8k"),
            "--dtype, --task, --temperature would do nothing",
        ),
        (("--max-new-tokens", -1), "max_new_tokens must be at least 1, not -1"),
        (("--double-quant",), "double_quant quantises the scales of 'nf4'"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[Any, ...], complaint: str
) -> None:
    assert run("verifier", "data", tmp_path / "d", *options) != 0
    shown = capsys.readouterr()
    assert re.search(complaint, " ".join((shown.out + shown.err).split()))
    assert not (tmp_path / "d").exists()


@refused(
    ("learned", "named with its folder"),
    ("learned:nowhere", "no verifier.json"),
    ("remote:nowhere", "http://host:port"),
    ("magic", "choose one of key, "),
)
def test_a_verifier_that_is_not_there_is_named(name: str) -> None:
    make_verifier(name)


def test_mistakes_end_with_a_sentence(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, complaint in (
        (("data", made / "data"), "is not empty"),
        (("train", made / "data", made / "verifier"), "is not empty"),
        (("train", tmp_path, tmp_path / "v"), "no such file"),
        (("eval", made / "data"), "at least one verifier"),
        (("eval", made / "data", tmp_path), "no verifier.json"),
        (("serve", tmp_path / "none"), "no verifier.json"),
        (("serve", "key", "--host", "0.0.0.0"), "give a token"),
        (("serve", "tests"), "'tests' is not served, because it runs programs and tests"),
        (("serve", "tests:partial"), "choose one of key, noisy_key, learned, remote"),
        (("serve", "cowriting"), "'cowriting' is not served"),
    ):
        assert run("verifier", *arguments) == 2
        assert complaint in capsys.readouterr().err


def test_an_empty_token_file_is_no_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    assert run("verifier", "serve", "key", "--token-file", tmp_path / "token") == 2


def test_one_sided_data_cannot_train(made: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "data.json").write_text((made / "data" / "data.json").read_text())
    asked = Question("q", "q", "4")
    for half in ("train", "test"):
        save_examples(tmp_path / "d" / f"{half}.jsonl", [Example(asked, "\\boxed{4}", True)])
    assert run("verifier", "train", tmp_path / "d", tmp_path / "v") == 2
    assert not (tmp_path / "v").exists()


def spoil(made: Path, folder: Path, test: list[Example]) -> None:
    """Make data that can be trained on, with another test half."""
    shutil.copytree(made / "data", folder)
    save_examples(folder / "test.jsonl", test)


def test_a_one_sided_test_half_is_found_before_training(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("maporl_agents.verifier.training.fit", None)  # must not come so far
    spoil(made, tmp_path / "d", [Example(Question("q", "q", "4"), "\\boxed{4}", True)])
    assert run("verifier", "train", tmp_path / "d", tmp_path / "v") == 2
    assert "no question of" in capsys.readouterr().err
    trained = load_examples(made / "data" / "train.jsonl")
    spoil(made, tmp_path / "e", trained)
    assert run("verifier", "train", tmp_path / "e", tmp_path / "v") == 2
    assert "6 questions of" in capsys.readouterr().err


def test_a_trained_verifier_is_kept_if_it_cannot_be_measured(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("none of 2 answers has a score")

    monkeypatch.setattr("maporl_agents.verifier.evaluation.evaluate_verifier", fail)
    options = ("--steps", 1, "--rows-per-step", 2, "--device", "cpu")
    assert run("verifier", "train", made / "data", tmp_path / "v", *options) == 2
    assert LearnedVerifier.load(tmp_path / "v").template == shopping.TEMPLATE


@pytest.fixture
def service(made: Path) -> Iterator[str]:
    """The trained verifier, served by a process of its own that asks for a token."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ("verifier", "serve", str(made / "verifier"), "--port", str(port))
    process = subprocess.Popen(
        [sys.executable, "-m", "maporl_agents.cli", *command],
        env={**os.environ, "MAPORL_VERIFIER_TOKEN": TOKEN, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15)


@pytest.mark.slow
def test_service_and_verifier_give_the_same_scores(service: str, made: Path) -> None:
    remote = RemoteVerifier(service, token=TOKEN, retries=9, pause_seconds=0.1)
    examples = load_examples(made / "data" / "test.jsonl")
    questions, responses = [e.question for e in examples], [e.response for e in examples]
    end = time.monotonic() + 60
    while True:
        try:
            scores = remote.score(questions, responses)
            break
        except RuntimeError:
            assert time.monotonic() < end
    direct = LearnedVerifier.load(made / "verifier").score(questions, responses)
    assert scores == pytest.approx(direct, abs=1e-6)
