"""Which questions a run is trained on, that these are not a verifier's, and that they stay."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from rich.console import Console

from maporl_agents import cli
from maporl_agents.config import EvalConfig, GameConfig, TrainConfig
from maporl_agents.models.team import Team
from maporl_agents.recipes import recipe
from maporl_agents.records import questions_record
from maporl_agents.records.settings_diff import SettingsDiffer
from maporl_agents.training import experiment
from maporl_agents.training.make_game import training_questions
from maporl_agents.training.resume import resume
from maporl_env import sandbox
from maporl_env.tasks import BUILT_IN, files, load_task, shopping
from maporl_env.tasks.published import anli, gsm8k, tinygsm
from maporl_env.types import Question


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


# --- The split ---------------------------------------------------------------------


@pytest.mark.parametrize("task", BUILT_IN)
def test_built_in_tasks_train_on_their_training_split(task: str) -> None:
    assert list(training_questions(GameConfig(task=task))) == list(load_task(task).split("train"))


def disjoint(game: GameConfig) -> Sequence[Question]:
    """The questions of a run, none of which is a verifier's."""
    questions = training_questions(game)
    verifier = load_task(game.task, game.data).split("verifier")
    assert {q.prompt for q in questions}.isdisjoint(q.prompt for q in verifier)
    assert {q.id for q in questions}.isdisjoint(q.id for q in verifier)
    return questions


def test_gsm8k_trains_on_what_no_verifier_has_seen(data_dir: Path, tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").symlink_to(data_dir / "gsm8k" / f"{name}.jsonl")
    game = replace(recipe("phi3-gsm8k").game, data=str(tmp_path))
    with pytest.raises(ValueError, match="'gsm8k' has no split 'rl'; choose one of"):
        training_questions(game)
    known = [{"question": q.prompt, "answer": q.answer} for q in load_task("gsm8k", tmp_path).split("verifier")[:9]]  # fmt: skip  # noqa: E501
    new = [{"question": f"{n} and {n}?", "answer": str(2 * n)} for n in range(30)]
    write(tmp_path / "tinygsm.jsonl", known + new)
    assert len(disjoint(game)) == 30
    assert len(training_questions(replace(game, train_split=""))) == 6_973  # 500 are for validation
    assert len(training_questions(replace(game, train_split="second_half"))) == 3_487


def test_anli_trains_on_what_no_verifier_has_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anli, "NUM_VERIFIER", 20)
    monkeypatch.setattr(anli, "NUM_RL", 15)
    rows = [{"premise": f"p{n}", "hypothesis": "h", "label": n % 3} for n in range(50)]
    write(tmp_path / "train_r3.jsonl", rows)
    write(tmp_path / "test_r3.jsonl", rows[:3])
    game = replace(recipe("phi3-anli").game, data=str(tmp_path))
    assert [q.id for q in disjoint(game)] == [f"anli/train/{n}" for n in range(20, 35)]
    assert len(training_questions(replace(game, train_split=""))) == 50


def test_without_being_asked_no_run_takes_another_data_set_than_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the hub GSM8K always has its split "rl", of TinyGSM, whose programs would be run."""
    asked_for: list[str] = []

    def stream(name: str, config: str | None, split: str) -> Any:
        asked_for.append(f"{name} {split}")
        return [("here", {"question": f"{name} {split}?", "answer": "#### 1"})]

    monkeypatch.delenv("MAPORL_DATA", raising=False)
    monkeypatch.setattr(gsm8k, "read_hub", stream)
    monkeypatch.setattr(tinygsm, "stream_hub", stream)
    for game in (GameConfig(task="gsm8k"), recipe("small-gpu").game):
        assert [q.prompt for q in training_questions(game)] == ["openai/gsm8k train?"]
    assert {name.split()[0] for name in asked_for} == {"openai/gsm8k"}


def test_programs_that_cannot_be_run_end_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "test"):
        write(tmp_path / f"{name}.jsonl", [{"question": f"{name}?", "answer": "#### 1"}])
    program = "def simple_math_problem():\n    return 2\n"
    write(tmp_path / "tinygsm.jsonl", [{"question": "tiny?", "code": program}])
    monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)  # the runs of this folder are not those of the repository
    monkeypatch.setattr(sandbox, "unavailable", lambda isolation: "no sandbox here (no map)")
    flags = ["--game.task", "gsm8k", "--game.data", str(tmp_path), "--game.train-split", "rl"]
    for command in ("train", "plan"):
        with pytest.raises(SystemExit) as stop:
            cli.main([command, *flags])
        assert stop.value.code == 2
        assert capsys.readouterr().err == "maporl: no sandbox here (no map)\n"
        assert not (tmp_path / "runs").exists()


def test_a_verifier_and_its_agents_do_not_share_questions_unnoticed(tmp_path: Path) -> None:
    """Both draw from "train" where a task has no parts for them."""
    whole = [Question(str(n), f"{n} and {n}?", str(2 * n)) for n in range(6)]
    twins = [replace(question, id=f"twin {question.id}") for question in whole[:2]]
    for name, known in (("some", twins), ("none", whole[4:])):
        (tmp_path / name).mkdir()
        about = {"report": {"trained_on": questions_record.fingerprints(known)}}
        (tmp_path / name / "verifier.json").write_text(json.dumps(about))
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "verifier.json").write_text('{"report": {}}')

    def told(verifier: str, shown: str = "") -> list[str]:
        game = GameConfig(verifier=verifier, feedback_verifier=shown, reward_feedback=bool(shown))
        return questions_record.shared_with_verifiers(game, whole[:4])

    some = f"learned:{tmp_path / 'some'}"
    [sentence] = told(some)
    assert sentence.startswith(
        f"2 of 4 training questions are among those that the verifier {tmp_path}"
    )
    assert told(some, some) == told("key", some) == [sentence]
    assert told(f"learned:{tmp_path / 'none'}") == told(f"learned:{tmp_path / 'older'}") == []
    assert told("key") == told("remote:http://127.0.0.1:1") == []


# --- A run and its questions ---------------------------------------------------------


def rows(split: str, count: int) -> list[dict[str, Any]]:
    some = shopping.load().split(split)[:count]
    return [{"id": q.id, "prompt": q.prompt, "answer": q.answer, "kind": q.kind} for q in some]


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A run on a folder of its own questions."""
    write(tmp_path / "data" / "train.jsonl", rows("train", 12))
    write(tmp_path / "data" / "test.jsonl", rows("test", 4))
    template = tmp_path / "words.json"
    template.write_text(json.dumps(asdict(shopping.TEMPLATE)))
    game = GameConfig(task=str(tmp_path / "data"), template=str(template), num_turns=2)
    sizes = EvalConfig(questions=4)
    return TrainConfig(steps=1, questions_per_step=2, checkpoint_every=1, game=game, eval=sizes)


def tree(folder: Path) -> dict[Path, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in found if "tensorboard" not in path.parts}


@pytest.mark.thorough
@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_run_does_not_go_on_with_other_questions(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, on_disk: bool
) -> None:
    if on_disk:
        monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(files, "LARGE_BYTES", 0)
    monkeypatch.setattr(experiment, "finish", lambda *_, **__: {})  # what is checked comes before
    folder = tmp_path / "run"
    experiment.run(config, folder, console())
    noted = json.loads((folder / questions_record.FILE).read_text())
    assert {name: entry["count"] for name, entry in noted.items()} == {
        "training": 12, "held-out": 4,
    }  # fmt: skip
    resume(folder, console())

    file = tmp_path / "data" / f"{part}.jsonl"
    text = file.read_text()
    other = [json.loads(line) for line in text.splitlines()]
    other[0]["answer"] = str(int(other[0]["answer"]) + 1)
    write(file, other)
    before = tree(folder)
    name = "training" if part == "train" else "held-out"
    named = f"the {name} questions .*{tmp_path / 'data'}.* are not those .*--force"
    with pytest.raises(ValueError, match=named):
        resume(folder, console())
    with pytest.raises(SettingsDiffer):  # told first: they may be why the questions are others
        resume(folder, console(), replace(config, seed=9))
    assert tree(folder) == before

    screen = console()
    resume(folder, screen, force=True)
    assert f"going on although the {name} questions" in screen.file.getvalue()  # type: ignore[attr-defined]
    resume(folder, console())  # from now on those are its questions
    file.write_text(text)
    with pytest.raises(ValueError, match="are not those"):
        resume(folder, console())


def test_a_run_of_an_earlier_version_goes_on(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "finish", lambda *_, **__: {"went": "on"})
    folder = tmp_path / "run"
    experiment.run(config, folder, console())
    (folder / questions_record.FILE).unlink()
    settings = json.loads((folder / "config.json").read_text())
    del settings["game"]["train_split"]
    (folder / "config.json").write_text(json.dumps(settings))
    assert resume(folder, console()) == {"went": "on"}
    other = replace(config, game=replace(config.game, train_split="test"))
    with pytest.raises(SettingsDiffer, match=r"\+ game.train_split: \"test\""):
        resume(folder, console(), other)


@pytest.mark.thorough
def test_a_run_is_trained_on_the_split_that_is_named_and_holds_one_team_while_it_is(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teams: WeakSet[Team] = WeakSet()
    alive, trained_on = [], []
    build, train = experiment.build, experiment.train

    def counted(config: Any, **options: Any) -> Any:
        team, learner = build(config, **options)
        teams.add(team)
        return team, learner

    def watched(config: Any, learner: Any, questions: Sequence[Question], *_: Any, **more: Any):
        alive.append(len(teams))
        trained_on.append([question.id for question in questions])
        return train(config, learner, questions, *_, **more)

    monkeypatch.setattr(experiment, "build", counted)
    monkeypatch.setattr(experiment, "train", watched)
    write(tmp_path / "data" / "dev.jsonl", rows("train", 20)[15:])
    config = replace(config, game=replace(config.game, train_split="dev"))
    screen = console()
    experiment.run(config, tmp_path / "run", screen)
    first = screen.file.getvalue().splitlines()[0]  # type: ignore[attr-defined]
    assert first == f"training on 5 questions: split 'dev' of task {tmp_path / 'data'}"
    teams.clear()
    resume(tmp_path / "run", console(), replace(config, steps=2), force=True)
    assert alive == [1, 1]
    assert trained_on == [[row["id"] for row in rows("train", 20)[15:]]] * 2


def test_the_split_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--game.train-split", "nowhere"])
    assert stop.value.code == 2
    known = "['test', 'train', 'validation']"
    assert f"no split 'nowhere'; choose one of {known}" in capsys.readouterr().err
