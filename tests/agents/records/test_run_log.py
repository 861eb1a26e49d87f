"""The run folder: never lost, never mixed, the same bytes after a resume."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from maporl_agents.records import checkpoint, loggers, run_folder, run_log
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_env.types import Message, Question, Transcript

AGENTS = Path(run_log.__file__).resolve().parents[2]
ENV = Path(importlib.util.find_spec("maporl_env").origin).resolve().parents[1]


@dataclass(frozen=True)
class Game:
    task: str = "shopping"
    alpha: tuple[float, float] = (0.0, 0.5)


@dataclass(frozen=True)
class Config:
    seed: int = 0
    gamma: float = 0.3
    data: Path = Path("data/train.jsonl")
    game: Game = field(default_factory=Game)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but locks, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def transcript(*texts: str) -> Transcript:
    messages = tuple(Message(0, f"agent_{i}", text, 0.5) for i, text in enumerate(texts))
    agents = tuple(f"agent_{i}" for i in range(len(texts)))
    return Transcript(Question("q/0", "How many?", "3"), agents, messages)


def play(log: RunLog, start: int, stop: int) -> None:
    """Write what a run of these steps would; every number is a function of the step."""
    for step in range(start, stop):
        log.metrics(step, {"loss": 1 / step, "kl": math.nan if step % 3 == 0 else step * 1e-9})
        log.transcripts("train", [transcript(f"step {step}", "\\boxed{3}")])
        log.transcripts("metrics", [transcript("a file of the same name")])


def finished(folder: Path, config: object = Config()) -> Path:
    with RunLog.create(folder, config) as log:
        play(log, 1, 4)
        (folder / "checkpoints" / "step-000003").mkdir(parents=True)
    return folder


# --- Create ------------------------------------------------------------------


def test_a_run_folder_holds_config_versions_metrics_transcripts_and_events(tmp_path: Path) -> None:
    folder = finished(tmp_path / "runs" / "first")
    assert json.loads((folder / "config.json").read_text()) == {
        "seed": 0,
        "gamma": 0.3,
        "data": "data/train.jsonl",
        "game": {"task": "shopping", "alpha": [0.0, 0.5]},
    }
    assert (folder / "metrics.jsonl").read_text() == (
        '{"step": 1, "loss": 1.0, "kl": 1e-09}\n'
        '{"step": 2, "loss": 0.5, "kl": 2e-09}\n'
        '{"step": 3, "loss": 0.3333333333333333, "kl": null, "nonfinite": 1}\n'
    )
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "config.json", "versions.json", "metrics.jsonl", "tensorboard", "transcripts",
        "checkpoints",
    }  # fmt: skip


def test_versions_name_packages_and_platform_but_no_person_or_machine(tmp_path: Path) -> None:
    RunLog.create(tmp_path / "run", {}).close()
    text = (tmp_path / "run" / "versions.json").read_text()
    saved = json.loads(text)
    assert set(saved) == {"python", "packages", "platform", "cpu_count", "commit"}
    assert saved["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert saved["packages"]["numpy"] == np.__version__
    assert saved["cpu_count"] == os.cpu_count()
    words = text.replace('"', " ").replace("/", " ").split()
    assert socket.gethostname() not in words
    assert Path.home().name not in words


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_of_the_package_is_noted_wherever_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, elsewhere = tmp_path / "package", tmp_path / "elsewhere"
    for folder in (package, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(run_folder, "PACKAGE", package)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert run_log.versions()["commit"] is None

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", *who, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(file: Path) -> str:
        file.write_text("one")
        git("-C", str(file.parent), "init")
        git("-C", str(file.parent), "add", file.name)
        git("-C", str(file.parent), "commit", "-m", "One")
        return git("-C", str(file.parent), "rev-parse", "HEAD")

    commit(elsewhere / "file")
    assert run_log.versions()["commit"] is None
    git("init", str(tmp_path))  # installed within a repository that does not hold it
    assert run_log.versions()["commit"] is None
    head = commit(package / "run_folder.py")
    assert run_log.versions()["commit"] == head
    (package / "run_folder.py").write_text("two")
    assert run_log.versions()["commit"] == f"{head}-dirty"


@pytest.mark.parametrize("options", [{}, {"overwrite": True}])
def test_an_empty_folder_may_be_there_already(tmp_path: Path, options: dict[str, bool]) -> None:
    with RunLog.create(tmp_path, {"a": 1}, **options) as log:
        assert log.config == {"a": 1}


def test_a_folder_with_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    before = tree(folder)
    with pytest.raises(ValueError, match=r"run is not empty.*--resume.*--overwrite.*--name"):
        RunLog.create(folder, Config(seed=1))
    assert tree(folder) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        RunLog.create(tmp_path / "run", {}, overwrite=True)
    with pytest.raises(OSError, match="Not a directory: cannot write"):
        RunLog.create(tmp_path / "run" / "below", {})
    assert (tmp_path / "run").read_text() == "mine"


def test_overwrite_replaces_a_run_whole(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (folder / "curve.png").write_bytes(b"old")
    checkpoint.save(folder / "checkpoints", 4, lambda f: checkpoint.save_json(f / "a.json", 1))
    RunLog.create(folder, {"seed": 7}, overwrite=True).close()
    assert set(tree(folder)) == {"config.json", "versions.json", "metrics.jsonl"}
    assert json.loads((folder / "config.json").read_text()) == {"seed": 7}
    assert read_metrics(folder) == []


@pytest.mark.parametrize(
    "name", ["notes.txt", "thesis/chapter.tex", "checkpoints/v2-final", "transcripts/my notes.md",
             "tensorboard/picture.png"]
)  # fmt: skip
def test_overwrite_never_removes_what_no_run_writes(tmp_path: Path, name: str) -> None:
    folder = finished(tmp_path / "run")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("precious")
    before = tree(folder)
    with pytest.raises(ValueError, match="holds what no run writes") as caught:
        RunLog.create(folder, {}, overwrite=True)
    assert name.removesuffix("/chapter.tex") in str(caught.value)
    assert tree(folder) == before


@pytest.mark.parametrize(
    "name",
    ["checkpoints/step-000004/notes.txt", "checkpoints/step-000004/policies/agent_0/mine.bin",
     "checkpoints/step-000009/thesis.tex", "checkpoints/.saving-mine", "malt/round-1/notes.txt",
     ".saving-thesis.tex"],
)  # fmt: skip
def test_overwrite_never_removes_what_stands_among_a_runs_own(tmp_path: Path, name: str) -> None:
    folder = finished(tmp_path / "run")
    checkpoint.save(folder / "checkpoints", 4, lambda f: checkpoint.save_json(f / "a.json", 1))
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text("precious")
    before = tree(folder)
    with pytest.raises(ValueError, match=rf"holds what no run writes \(.*{Path(name).name}"):
        RunLog.create(folder, {}, overwrite=True)
    assert tree(folder) == before


def test_overwrite_removes_what_a_killed_save_left(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    for name in (".saving-step-000004-0a1b2c3d", ".removing-step-000002-0a1b2c3d"):
        (folder / "checkpoints" / name).mkdir(parents=True)
        (folder / "checkpoints" / name / "half.safetensors").touch()
    (folder / ".saving-config.json-0a1b2c3d").touch()
    RunLog.create(folder, {}, overwrite=True).close()
    assert set(tree(folder)) == {"config.json", "versions.json", "metrics.jsonl"}


LINKED = ["metrics.jsonl", "questions.json", "results.json", "transcripts/train.jsonl", ".lock"]


@pytest.mark.parametrize("kind", [Path.symlink_to, Path.hardlink_to])
@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_a_run_folder_leads_nowhere(tmp_path: Path, kind: object, name: str) -> None:
    """A folder from somebody else: what its links lead to is neither emptied nor written to."""
    folder = finished(tmp_path / "run")
    victim = tmp_path / "victim"
    victim.write_text('{"step": 9}\nprecious')
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    kind(folder / name, victim)  # type: ignore[operator]
    with pytest.raises(ValueError, match=rf"{name} is a link"):
        RunLog.resume(folder, Config())
    assert victim.read_text() == '{"step": 9}\nprecious'


def test_folders_of_a_run_are_no_links_but_that_of_its_checkpoints(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (tmp_path / "big disk").mkdir()
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").symlink_to(tmp_path / "big disk")
    RunLog.resume(folder, Config()).close()
    shutil.rmtree(folder / "transcripts", ignore_errors=True)
    (folder / "transcripts").symlink_to(tmp_path / "big disk")
    with pytest.raises(ValueError, match="transcripts is a link"):
        RunLog.resume(folder, Config())


def test_a_lock_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (folder / ".lock").unlink()
    os.mkfifo(folder / ".lock")
    with pytest.raises(ValueError, match="is a link, or no plain file"):
        RunLog.resume(folder, Config())


@pytest.mark.parametrize("name", ["run", "a.b-c_1", "größe", "7"])
def test_a_runs_folder_is_directly_below_all_runs(tmp_path: Path, name: str) -> None:
    assert run_folder.folder_of(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/tmp/x", "a/b", "a\\b", "-x", ".hidden", "a\0b", "a\nb",
             "x" * 101, "a b", "~", "x.", "C:x", "$HOME", "*"],
)  # fmt: skip
def test_a_name_that_leaves_the_folder_of_all_runs_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a run"):
        run_folder.folder_of(tmp_path, name)


def test_overwrite_follows_no_link(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    (tmp_path / "big disk").mkdir()
    (tmp_path / "big disk" / "latest").write_text("precious")
    (folder / "checkpoints").symlink_to(tmp_path / "big disk")
    with pytest.raises(ValueError, match=r"no run writes \(checkpoints\)"):
        RunLog.create(folder, {}, overwrite=True)
    assert (tmp_path / "big disk" / "latest").read_text() == "precious"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"lr": math.nan}, "config, lr is nan"),
        ({"f": print}, "config, f is a builtin_function_or_method"),
        ({1: 2}, "config has the key 1"),
        (Config, "The config is a type: give a dataclass or a dict"),
        (None, "The config is a NoneType"),
    ],
)
def test_a_config_that_json_cannot_hold_makes_nothing(
    tmp_path: Path, config: object, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        RunLog.create(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_the_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, existed: bool
) -> None:
    folder = tmp_path / "run"
    if existed:
        folder.mkdir()
    real, calls = getattr(os, call), []

    def failing(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise OSError(28, os.strerror(28))
        real(*args)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(OSError, match=r"No space left on device: cannot write .*run\. Free"):
        RunLog.create(folder, {})
    monkeypatch.undo()
    assert folder.exists() == existed
    assert not existed or tree(folder) == {}
    RunLog.create(folder, {}).close()


# --- Metrics -----------------------------------------------------------------


def test_metrics_take_all_kinds_of_numbers(tmp_path: Path) -> None:
    values = {
        "int": 3,
        "bool": True,
        "numpy": np.float32(0.5),
        "count": np.int64(4),
        "tensor": torch.tensor(0.25, requires_grad=True),
        "nan": math.nan,
        "inf": -math.inf,
    }
    with RunLog.create(tmp_path, {}) as log:
        log.metrics(np.int64(0), values)
        assert read_metrics(tmp_path) == [  # readable while the run goes on
            {"step": 0, "int": 3, "bool": 1, "numpy": 0.5, "count": 4, "tensor": 0.25,
             "nan": None, "inf": None, "nonfinite": 2}
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "values", "says"),
    [
        (4, {"loss": 0.0}, "step 4 comes after step 5; steps do not fall"),
        (6, {"loss": "0.5"}, "metric 'loss' is '0.5', which is not one number"),
        (6, {"loss": None}, "metric 'loss' is None"),
        (6, {"loss": torch.ones(2)}, "which is not one number"),
        (6, {"step": 1.0}, "cannot be called 'step'"),
        (6, {"nonfinite": 1.0}, "cannot be called 'nonfinite'"),
    ],
)
def test_a_bad_metric_writes_nothing(
    tmp_path: Path, step: int, values: Mapping[str, float], says: str
) -> None:
    with RunLog.create(tmp_path, {}) as log:
        log.metrics(5, {"loss": 1.0})
        before = tree(tmp_path)
        with pytest.raises(ValueError, match=says):
            log.metrics(step, {"fine": 1.0, **values})
        assert tree(tmp_path) == before
        log.metrics(5, {"vote": 0.5})  # a second line of a step is fine


def test_a_full_disk_takes_back_the_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunLog.create(tmp_path, {}) as log:
        log.metrics(1, {"loss": 1.0})
        before = tree(tmp_path)

        def full(_: int) -> None:
            raise OSError(28, os.strerror(28))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match=r"No space left.*metrics\.jsonl\. Free some space"):
                log.metrics(2, {"loss": 0.5})
        assert tree(tmp_path) == before
        log.metrics(2, {"loss": 0.25})
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1.0, 0.25]


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    log = RunLog.create(tmp_path, {})
    log.close()
    log.close()
    with pytest.raises(ValueError, match="is closed"):
        log.metrics(1, {})
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json", "is not JSON"),
        ('{"step": 2, "lo', "is not JSON"),
        ('{"loss": 1.0}', "is not an object with a whole number"),
        ('{"step": 2.5}', "is not an object with a whole number"),
        ("[2]", "is not an object"),
        ("", "is not JSON"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    finished(tmp_path)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], line + "\n", *lines[1:]]))
    with pytest.raises(ValueError, match=rf"metrics\.jsonl, line 2 {says}"):
        read_metrics(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=rf"metrics\.jsonl, line 2 {says}"):
        RunLog.resume(tmp_path, Config())
    assert tree(tmp_path) == before


def test_a_torn_last_line_is_dropped_with_a_warning_and_never_glued_to(tmp_path: Path) -> None:
    finished(tmp_path)
    whole = read_metrics(tmp_path)
    for torn in ("{", '{"step": 4, "loss": 0.1}'):
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(torn)
        with pytest.warns(UserWarning, match="the last line is torn and left out"):
            assert read_metrics(tmp_path) == whole
        with RunLog.resume(tmp_path, Config()):
            assert read_metrics(tmp_path) == whole


def test_metrics_of_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metrics\.jsonl does not exist: give the folder"):
        read_metrics(tmp_path)


# --- Transcripts -------------------------------------------------------------

HOSTILE = ["two\nlines\r\n", "</script><script>alert(1)</script>", "\u2028\x85\x0b\x00", "\ud800 é",
           '{"step": 9}\n{"step": 10}']  # fmt: skip


def test_one_debate_stays_one_line_whatever_agents_write(tmp_path: Path) -> None:
    debates = [transcript(text, text) for text in HOSTILE]
    with RunLog.create(tmp_path, {}) as log:
        log.transcripts("before", debates[:1])
        log.metrics(3, {})
        log.transcripts("train", debates)
        log.transcripts("train", iter(debates[:2]))
    lines = (tmp_path / "transcripts" / "train.jsonl").read_bytes().splitlines()
    assert [Transcript.from_json(line.decode("ascii")) for line in lines] == debates + debates[:2]
    assert all(line.startswith(b'{"step": 3, "question"') for line in lines)
    assert (tmp_path / "transcripts" / "before.jsonl").read_bytes().startswith(b'{"step": 0, ')


@pytest.mark.parametrize("name", ["", "../metrics", "a/b", ".hidden", "a b", "a\n"])
def test_transcripts_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    with RunLog.create(tmp_path, {}) as log:
        before = tree(tmp_path)
        with pytest.raises(ValueError, match="is no name for transcripts"):
            log.transcripts(name, [transcript("a")])
        assert tree(tmp_path) == before


# --- Resume ------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(7))
def test_a_resumed_run_writes_the_same_bytes(tmp_path: Path, cut: int) -> None:
    """Killed after step 5, last checkpoint at `cut` (6: the kill came between the two)."""
    with RunLog.create(tmp_path / "whole", Config()) as log:
        play(log, 1, 9)
    stop = max(cut, 5)
    with RunLog.create(tmp_path / "cut", Config()) as log:
        play(log, 1, stop + 1)
    for path in (tmp_path / "cut").rglob("*.jsonl"):
        with path.open("a") as file:
            file.write('{"step": ')
    with RunLog.resume(tmp_path / "cut", Config()) as log:
        log.truncate_after(cut)
        play(log, cut + 1, 9)
    whole, resumed = tree(tmp_path / "whole"), tree(tmp_path / "cut")
    for name in ("metrics.jsonl", "transcripts/train.jsonl", "config.json"):
        assert resumed[name] == whole[name]


def test_resuming_without_truncating_does_not_repeat_steps(tmp_path: Path) -> None:
    with RunLog.create(tmp_path, Config()) as log:
        log.transcripts("before", [transcript("of step 0")])
        log.metrics(3, {})
    with (
        RunLog.resume(tmp_path, Config()) as log,
        pytest.raises(ValueError, match=r"step 2 comes after step 3.*call truncate_after"),
    ):
        log.metrics(2, {})


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="There is no run in"):
            RunLog.resume(folder, {})
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(checkpoint.CheckpointError, match=r"config\.json cannot be read as JSON"):
        RunLog.resume(tmp_path, Config())
    RunLog.create(tmp_path, Config(), overwrite=True).close()  # the lock was let go


def test_other_settings_are_shown_and_refused(tmp_path: Path) -> None:
    finished(tmp_path)
    before = tree(tmp_path)
    other = {"seed": 0, "gamma": 0.9, "data": "data/train.jsonl",
             "game": {"task": "shopping", "alpha": [0.0, 2.0], "beta": [1, 1]}}  # fmt: skip
    with pytest.raises(ValueError, match=r"(?s)settings differ.*--force") as caught:
        RunLog.resume(tmp_path, other)
    assert str(caught.value).splitlines()[1:-1] == [
        "- game.alpha: [0.0, 0.5]",
        "+ game.alpha: [0.0, 2.0]",
        "+ game.beta: [1, 1]",
        "- gamma: 0.3",
        "+ gamma: 0.9",
    ]
    assert tree(tmp_path) == before


def test_other_settings_by_force_are_printed_and_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with RunLog.resume(tmp_path, Config(gamma=0.9), force=True) as log:
        assert log.config["gamma"] == 0.9
        assert (tmp_path / "config.json").read_bytes() == before, "no checkpoint fits them yet"
        log.truncate_after(2)
    assert "- gamma: 0.3\n+ gamma: 0.9\n" in capsys.readouterr().err
    with RunLog.resume(tmp_path, Config(gamma=0.9)):
        assert capsys.readouterr().err == ""


# --- One writer --------------------------------------------------------------

HOLDER = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from maporl_agents.records.run_log import RunLog
log = RunLog.create(Path(sys.argv[1]), {})
log.transcripts("train", [])
print("holding", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER, folder, AGENTS, ENV]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        before = tree(folder)
        says = rf"Another process \(id {process.pid}\) is writing to .*run"
        with pytest.raises(ValueError, match=says):
            RunLog.resume(folder, {})
        with pytest.raises(ValueError, match=says):
            RunLog.create(folder, {}, overwrite=True)
        assert tree(folder) == before
        process.send_signal(signal.SIGKILL)
    assert (folder / ".lock").read_text() == f"{process.pid}\n"  # stale, and taken over:
    with RunLog.resume(folder, {}):
        pass


def test_two_logs_of_one_process_are_refused_too(tmp_path: Path) -> None:
    with RunLog.create(tmp_path, {}), pytest.raises(ValueError, match="Another process"):
        RunLog.resume(tmp_path, {})
    RunLog.resume(tmp_path, {}).close()


# --- Loggers -----------------------------------------------------------------


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def test_tensorboard_shows_one_curve_also_after_a_resume(tmp_path: Path) -> None:
    with RunLog.create(tmp_path, {}) as log:
        for step in (1, 2, 3):
            log.metrics(step, {"train/loss": step / 4})
        assert scalars(tmp_path) == {"train/loss": [(1, 0.25), (2, 0.5), (3, 0.75)]}
    with RunLog.resume(tmp_path, {}) as log:
        log.truncate_after(2)
        log.metrics(3, {"train/loss": 7.0, "kl": math.inf})
    assert scalars(tmp_path) == {
        "train/loss": [(1, 0.25), (2, 0.5), (3, 7.0)],
        "kl": [(3, math.inf)],
    }
    files = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert files == ["events.out.tfevents.000000", "events.out.tfevents.000001"]


class Notes:
    """A logger of a user's own."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.closed = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.lines.append((step, dict(values)))

    def close(self) -> None:
        self.closed += 1


def test_other_loggers_get_every_value_and_are_closed(tmp_path: Path) -> None:
    notes = Notes()
    with RunLog.create(tmp_path, {}, loggers=[notes]) as log:
        log.metrics(1, {"kl": math.inf})
        for logger in log.loggers:  # how times are logged, which are no metrics of the run
            logger.log(1, {"seconds": 2.5})
    log.close()
    assert notes.lines == [(1, {"kl": math.inf}), (1, {"seconds": 2.5})]
    assert notes.closed == 1
    assert read_metrics(tmp_path) == [{"step": 1, "kl": None, "nonfinite": 1}]
    assert scalars(tmp_path)["seconds"] == [(1, 2.5)]


def test_weights_and_biases_is_asked_only_when_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ValueError, match="pip install wandb"):
        run_log.WandbLogger("run", {})


def test_weights_and_biases_gets_every_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    run = SimpleNamespace(
        log=lambda values, step: said.append((step, values)), finish=lambda: said.append("finish")
    )

    def init(**options: object) -> SimpleNamespace:
        said.append(options)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    logger = run_log.WandbLogger("first", {"seed": 0})
    with RunLog.create(tmp_path, {}, loggers=[logger]) as log:
        log.metrics(1, {"loss": 0.5})
    started = {"project": "maporl", "name": "first", "config": {"seed": 0}}
    assert said == [started, (1, {"loss": 0.5}), "finish"]


def test_loggers_are_made_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    wandb = ModuleType("wandb")
    wandb.init = lambda **options: started.append(options)  # type: ignore[attr-defined]
    wandb.__spec__ = ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    [logger] = loggers.make_loggers(["wandb"], "first", {"seed": 0})
    assert isinstance(logger, loggers.WandbLogger)
    assert started == [{"project": "maporl", "name": "first", "config": {"seed": 0}}]
    assert loggers.make_loggers([], "first", {}) == ()


def test_a_logger_that_cannot_be_had_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"'wandbb'.*choose among wandb"):
        loggers.require_loggers(["wandbb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install wandb"):
        loggers.require_loggers(["wandb"])


def test_the_run_log_needs_no_torch() -> None:
    program = "import sys; sys.path[:0] = sys.argv[1:]; import maporl_agents.records.run_log; "
    program += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program, AGENTS, ENV], check=False).returncode == 0
