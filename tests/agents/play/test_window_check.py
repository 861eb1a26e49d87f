"""Questions too long for a model are found before a run begins, named, and left out if wished."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from maporl_agents.cli import main
from maporl_agents.config import CONFIGS, EvalConfig, GameConfig, Sampling, TeamConfig, TrainConfig
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play import window_check
from maporl_agents.play.window_check import (
    NoneFits,
    full_length,
    too_long,
    unscored,
    why_too_long,
)
from maporl_agents.records import checkpoint_folder, questions_record
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debate_config, training_questions
from maporl_env.batched import BatchedDebate
from maporl_env.tasks import files, load_task, shopping
from maporl_env.types import Question

SAMPLING = Sampling(max_new_tokens=32)


@pytest.fixture(scope="module")
def team() -> Team:
    """Two tiny agents, each with a window of 512 tokens; a word is a token."""
    return make_team(TeamConfig(tuning="none"), num_agents=2, num_turns=3, seed=0)


def question(words: int, name: str = "q") -> Question:
    return Question(f"{name}/{words}", " ".join(["pen"] * words), "1")


def by_playing(team: Team, game: GameConfig, questions: Sequence[Question]) -> list[int]:
    debates = BatchedDebate(unscored(debate_config(game)), 1)
    speak = full_length(team)
    return [
        place
        for place, one in enumerate(questions)
        if why_too_long(team, debates, SAMPLING, one, speak)
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_turns": 1},
        {"history": "last"},
        {"protocol": "sequential"},
        {"protocol": "self_correction", "num_agents": 1},
        {"token_budget": 100},
    ],
)
def test_the_bounds_find_what_playing_at_full_length_finds(
    team: Team, options: dict[str, Any]
) -> None:
    """No question that overflows is let through, and none is refused that fits."""
    game = GameConfig(**options)
    questions = [question(words) for words in (3, *range(20, 500, 12))]
    wrong = by_playing(team, game, questions)
    assert 0 < len(wrong) < len(questions)
    found = too_long(team, debate_config(game), SAMPLING, questions)
    assert list(found) == wrong
    limit = "budget of 100" if options.get("token_budget") else "window of 512"
    assert all(limit in reason for reason in found.values())


def test_private_texts_count_as_they_stand_beside_the_question(team: Team) -> None:
    game = GameConfig(num_turns=2)
    questions = [
        replace(question(3, f"{seat}"), id=f"{seat}/{words}", private=private)
        for words in range(3, 300, 12)
        for seat in (0, 1)
        for text in [" ".join(["pen"] * words)]
        for private in [("", text) if seat else (text, "pen")]
    ]
    wrong = by_playing(team, game, questions)
    assert 0 < len(wrong) < len(questions)
    assert list(too_long(team, debate_config(game), SAMPLING, questions)) == wrong


def test_a_question_is_played_only_if_the_bounds_leave_it_open(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[Question] = []

    def watched(team: Any, debates: Any, sampling: Any, question: Question, speak: Any) -> None:
        played.append(question)

    monkeypatch.setattr(window_check, "why_too_long", watched)
    config = debate_config(GameConfig())
    assert too_long(team, config, SAMPLING, load_task("shopping").split("test")) == {}
    assert played == []
    too_long(team, config, SAMPLING, [question(5), question(400)])
    assert played == [question(400)]


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", CONFIGS)
def test_every_scheme_as_it_is_fits_its_models(scheme: str) -> None:
    config = CONFIGS[scheme]()
    team, _ = experiment.build(config)
    some = training_questions(config.game)[:200]
    assert too_long(team, debate_config(config.game), config.sampling, some) == {}


# --- A run --------------------------------------------------------------------------


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(split: str, count: int, long: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Questions of `shopping`; some with so many more words."""
    some = load_task("shopping").split(split)[:count]
    return [
        {"id": q.id, "prompt": q.prompt, "answer": q.answer, "split": split}
        for q in [*some, *(replace(question(words, split), answer="1") for words in long)]
    ]


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A run whose file has a training question of 150 words, and held-out ones of 150 and 600."""
    file = write(tmp_path / "mine.jsonl", rows("train", 12, [150]) + rows("test", 4, [150, 600]))
    words = tmp_path / "words.json"
    words.write_text(json.dumps(asdict(shopping.TEMPLATE)))
    game = GameConfig(task=str(file), template=str(words), num_turns=3)
    return TrainConfig(steps=1, questions_per_step=4, game=game, eval=EvalConfig(questions=6))


def console() -> Console:
    return Console(file=io.StringIO(), width=300)


def test_a_run_with_a_question_that_is_too_long_does_not_begin(
    config: TrainConfig, tmp_path: Path
) -> None:
    """One of 150 words fits in turn 1, not in turn 3 behind messages of full length."""
    with pytest.raises(ValueError, match=r"training question 'train/150' is too long: in turn 3"):
        experiment.run(config, tmp_path / "run", console())
    assert not (tmp_path / "run").exists()
    single = replace(config, game=replace(config.game, num_turns=1))
    with pytest.raises(ValueError, match=r"held-out question 'test/600' is too long: in turn 1"):
        experiment.run(single, tmp_path / "run", console())


@pytest.mark.thorough
@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_too_long_is_left_out_if_wished(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: bool
) -> None:
    if on_disk:
        for split in ("train", "test"):
            given = [json.loads(line) for line in Path(config.game.task).read_text().splitlines()]
            (tmp_path / "data").mkdir(exist_ok=True)
            write(tmp_path / "data" / f"{split}.jsonl", [r for r in given if r["split"] == split])
        config = replace(config, game=replace(config.game, task=str(tmp_path / "data")))
        monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(files, "LARGE_BYTES", 0)
    config = replace(config, game=replace(config.game, long_questions="leave_out"))
    trained: list[int] = []
    train = experiment.train

    def watched(*args: Any, **hooks: Any) -> None:
        trained.append(len(args[2]))
        train(*args, **hooks)

    monkeypatch.setattr(experiment, "train", watched)
    screen = console()
    results = experiment.run(config, tmp_path / "run", screen)
    assert results["after"]["sampled"]["num_questions"] == 4
    assert trained == [12]
    noted = json.loads((tmp_path / "run" / questions_record.FILE).read_text())
    assert noted["left_out"]["training"] == ["train/150"]
    assert sorted(noted["left_out"]["held-out"]) == ["test/150", "test/600"]
    assert noted["training"]["count"] == 12
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "left out as too long: 1 training questions (train/150)" in shown


def test_a_question_is_kept_where_that_is_asked_for(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "finish", lambda *args, **_: {"asked": args[3]})
    config = replace(config, game=replace(config.game, long_questions="keep"))
    kept = experiment.run(config, tmp_path / "run", console())["asked"]
    assert [len(questions) for questions in kept.values()] == [13, 6]


def test_where_none_fits_the_settings_are_named(config: TrainConfig, tmp_path: Path) -> None:
    game = replace(config.game, long_questions="leave_out")
    config = replace(config, game=game, sampling=Sampling(max_new_tokens=500))
    with pytest.raises(NoneFits, match=r"no training question is sure to fit: .*lower max_new_to"):
        experiment.run(config, tmp_path / "run", console())


def test_eval_finds_them_before_the_first_debate_too(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", "--task", config.game.task, "--turns", "1", "--max-new-tokens", "8"]
    with pytest.raises(SystemExit) as stop:
        main(command)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert "question 'test/600' is too long" in error
    assert error.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        main([*command, "--long-questions", "leave_out"])
    assert not stop.value.code
    assert "left out as too long: 1 questions (test/600)" in capsys.readouterr().out


def test_play_looks_at_its_one_question(
    config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["play", "--task", config.game.task, "--turns", "1", "--max-new-tokens", "8"]
    places = [asked.id for asked in load_task(config.game.task).split("test")]
    at = str(places.index("test/600"))
    with pytest.raises(SystemExit) as stop:
        main([*command, "--index", at])
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert "question 'test/600' is too long: in turn 1 a prompt of" in printed.err
    assert "--index, or begin all the same with --long-questions keep" in printed.err
    assert printed.err.count("\n") == 1
    assert "Question" not in printed.out
    with pytest.raises(SystemExit):
        main([*command, "--index", at, "--long-questions", "keep"])
    assert "Question" in capsys.readouterr().out  # begun all the same
    with pytest.raises(SystemExit) as stop:
        main([*command, "--index", "0"])
    assert not stop.value.code


@pytest.mark.parametrize("command", ["eval", "play"])
def test_verdicts_that_nobody_would_read_are_refused(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--turns", "1", "--verdicts", "noisy_key"])
    assert stop.value.code == 2
    assert "--verdicts are read from the second turn on" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["eval", "play"])
def test_the_models_of_a_run_are_its_own(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    checkpoint_folder.save_json(tmp_path / "config.json", asdict(config))
    with pytest.raises(SystemExit) as stop:
        main([command, "--run", str(tmp_path), "--model", "tiny-sharing"])
    assert stop.value.code == 2
    assert "--run brings its own models: leave out --model" in capsys.readouterr().err


@pytest.mark.thorough
def test_eval_goes_on_where_only_messages_of_full_length_would_not_fit(
    config: TrainConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """If that is asked for: a message that does not fit would end it in the middle."""
    file = write(tmp_path / "short.jsonl", rows("test", 3))
    command = ["eval", "--task", str(file), "--max-new-tokens", "200", "--run"]
    made = replace(config, steps=1, game=replace(config.game, task=str(file), train_split="test"))
    long = replace(made, sampling=Sampling(max_new_tokens=200))
    with pytest.raises(NoneFits):
        experiment.run(long, tmp_path / "run", console())
    experiment.run(made, tmp_path / "run", console())
    with pytest.raises(SystemExit) as stop:
        main([*command, str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert "no question is sure to fit: in turn 2" in error
    assert "lower --max-new-tokens, take fewer --turns" in error
    assert error.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        main([*command, str(tmp_path / "run"), "--long-questions", "keep"])
    assert not stop.value.code, capsys.readouterr().err


def test_the_usual_limit_of_eval_fits_the_built_in_models(
    config: TrainConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = write(tmp_path / "short.jsonl", rows("test", 3))
    with pytest.raises(SystemExit) as stop:
        main(["eval", "--task", str(file)])
    assert not stop.value.code, capsys.readouterr().err


# --- Measuring on training questions ------------------------------------------------


def one_list(tmp_path: Path) -> Path:
    plain = [{key: row[key] for key in ("id", "prompt", "answer")} for row in rows("train", 8)]
    return write(tmp_path / "mine.jsonl", plain)


@pytest.mark.thorough
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_run_that_is_measured_on_its_training_questions_says_so_in_output_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: bool
) -> None:
    if on_disk:
        monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(files, "LARGE_BYTES", 0)
        monkeypatch.setattr(questions_record, "MOST", 0)  # known without reading them
    game = GameConfig(task=str(one_list(tmp_path)), num_turns=1)
    team = TeamConfig(train_turns="all")
    sizes = EvalConfig(questions=4)
    config = TrainConfig(steps=1, questions_per_step=2, game=game, team=team, eval=sizes)
    screen = console()
    experiment.run(config, tmp_path / "run", screen)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("WARNING: 4 of 4 questions of split 'test'") == 2  # before and after
    assert "held-out" not in shown
    noted = json.loads((tmp_path / "run" / questions_record.FILE).read_text())
    [warning] = noted["warnings"]
    assert "training questions too" in warning


@pytest.mark.thorough
def test_eval_and_play_say_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = one_list(tmp_path), tmp_path / "out.json"
    tests = [{**row, "split": "test"} for row in rows("test", 3)]
    apart = write(tmp_path / "apart.jsonl", rows("train", 5) + tests)
    short = ["--turns", "1", "--max-new-tokens", "8"]
    for command, path, options, warned in (
        ("eval", file, ["--out", str(out)], True),
        ("play", file, [], True),
        ("eval", apart, ["--split", "train"], True),
        ("eval", apart, [], False),
        ("play", apart, [], False),
    ):
        with pytest.raises(SystemExit) as stop:
            main([command, "--task", str(path), *short, *options])
        printed = capsys.readouterr()
        assert not stop.value.code, printed.err
        assert ("WARNING" in printed.out) == warned, (command, path)
    assert "training questions too" in json.loads(out.read_text())["warnings"][0]


def test_a_training_question_among_the_held_out_ones_is_counted() -> None:
    train = [question(n) for n in range(1, 5)]
    held = [question(3, "other"), question(9)]
    assert questions_record.seen_in_training(held, held, train) == 1
    assert questions_record.seen_in_training(held[1:], held, train) == 0
    assert questions_record.memory_warning(0, 2, "test") == ""


def test_the_same_words_with_other_private_texts_are_another_question() -> None:
    train = [replace(question(3), private=("pen", str(n))) for n in range(4)]
    held = [replace(question(3), private=("pen", str(n))) for n in (3, 4, 5)]
    assert questions_record.seen_in_training(held, held, train) == 1
    assert len(questions_record.fingerprints([*train, *held])) == 6
    assert (
        questions_record.fingerprints([question(3)])
        == [  # as in folders written before
            hashlib.sha256(b"pen pen pen").hexdigest()[:16]
        ]
    )
