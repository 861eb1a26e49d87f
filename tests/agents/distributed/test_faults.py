"""Processes that are killed, stopped or started differently: nothing is lost, and all end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from rank_cases import HERE, REPOSITORY, distance, ends, start
from small_runs import newest_weights, wait_for_step

from maporl_agents.records import checkpoint_folder
from maporl_agents.records.run_log import read_metrics

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds ranks in /proc"),
]

CLI = ("-m", "maporl_agents.cli")
FLAGS = (
    *("--name", "run", "--steps", "5", "--questions-per-step", "4", "--checkpoint-every", "1"),
    *("--eval.questions", "2", "--team.tuning", "lora", "--sampling.max-new-tokens", "8"),
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@contextmanager
def running(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Run a Python command and all its processes, none of which outlives the block."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "agents")])
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for one in (*descendants(process.pid), process.pid):
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


def descendants(parent: int) -> list[int]:
    """Return the processes that a process has started, and those that these have started."""
    try:
        words = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return []
    return [one for child in map(int, words) for one in (child, *descendants(child))]


def of_rank(parent: int, rank: int) -> int:
    """Return the process of a rank below a launcher."""
    for one in descendants(parent):
        try:
            variables = Path(f"/proc/{one}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"RANK={rank}".encode() in variables:
            return one
    raise AssertionError(f"no process of rank {rank}")


def finished(process: subprocess.Popen[str], seconds: float = 400) -> tuple[int, str]:
    """Return the exit code and the output of a command."""
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def said(folder: Path) -> list[Any]:
    """Return the debates that a run has logged in training."""
    lines = (folder / "transcripts" / "train.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes from start to end, by `--processes`."""
    runs = tmp_path_factory.mktemp("whole")
    with running(*CLI, "train", "--runs", runs, "--processes", 2, *FLAGS) as process:
        code, output = finished(process)
    assert code == 0, output
    assert output.count("training on") == 1  # rank 0 alone prints
    assert output.count("run folder:") == 1
    return runs / "run"


def test_a_killed_rank_is_started_again_and_nothing_has_changed(
    whole: Path, tmp_path: Path
) -> None:
    """By torchrun itself; weights, moments and metrics are those of the uninterrupted run."""
    command = (*TORCHRUN, "--max-restarts", 2, *CLI, "train", "--runs", tmp_path, *FLAGS)
    with running(*command) as process:
        wait_for_step(process, tmp_path / "run", 2)
        os.kill(of_rank(process.pid, 1), signal.SIGKILL)
        code, output = finished(process)
    assert code == 0, output
    assert "resuming" in output
    expected, found = newest_weights(whole), newest_weights(tmp_path / "run")
    assert all(torch.equal(expected[name], found[name]) for name in expected | found)
    metrics = [folder / "metrics.jsonl" for folder in (whole, tmp_path / "run")]
    assert metrics[0].read_bytes() == metrics[1].read_bytes()
    assert said(whole) == said(tmp_path / "run")


def test_a_stopped_rank_stops_all_and_other_numbers_of_processes_go_on(
    whole: Path, tmp_path: Path
) -> None:
    """Two processes, then one, then two: the run ends as the uninterrupted one."""
    folder = tmp_path / "run"
    with running(*CLI, "train", "--runs", tmp_path, "--processes", 2, *FLAGS) as process:
        wait_for_step(process, folder, 1)
        os.kill(of_rank(process.pid, 1), signal.SIGTERM)
        code, output = finished(process)
    assert code == 128 + signal.SIGTERM, output
    assert output.count("stopped after step") == 1
    done = len(read_metrics(folder))
    newest = checkpoint_folder.latest(folder / "checkpoints")
    assert newest is not None
    assert checkpoint_folder.step_of(newest) == done
    with running(*CLI, "train", "--resume", folder) as process:
        wait_for_step(process, folder, done + 1)
        process.send_signal(signal.SIGTERM)
        code, output = finished(process)
    assert code == 128 + signal.SIGTERM, output
    with running(*CLI, "train", "--resume", folder, "--processes", 2) as process:
        code, output = finished(process)
    assert code == 0, output
    assert said(whole) == said(folder)
    assert distance(newest_weights(whole), newest_weights(folder)) <= 1e-6


def test_a_loss_that_is_no_number_ends_all_ranks_with_one_sentence(tmp_path: Path) -> None:
    told = ends(start(2, HERE / "rank_nan.py", tmp_path), seconds=300)
    sentences = {text.splitlines()[-1] for code, text in told if code == 0}
    assert len(sentences) == 1, told
    [sentence] = sentences
    assert sentence.startswith("the loss became nan")
    assert sentence.endswith(" True")  # weights are as they were


def run_by_hand(per_rank: Sequence[Sequence[object]], runs: Path, *flags: object) -> list[Any]:
    """Return exit codes and outputs of processes that were started with words of their own."""
    command = (*CLI, "train", "--runs", runs, *FLAGS, *flags)
    return ends(start(len(per_rank), *command, per_rank=per_rank), seconds=300)


@pytest.mark.parametrize("what", ["settings", "data", "count", "missing"])
def test_ranks_that_do_not_fit_together_are_refused(tmp_path: Path, what: str) -> None:
    """One sentence on rank 0, an error code on all, and no run folder."""
    files = [tmp_path / f"{name}.jsonl" for name in ("one", "other")]
    for file, answer in zip(files, ("1", "2"), strict=True):
        row = {"prompt": "How many?", "answer": answer, "kind": "number"}
        rows = [{"id": f"q{i}", "split": ("train", "test")[i % 2], **row} for i in range(8)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    per_rank, sentence = {
        "settings": ([("--seed", 1), ("--seed", 2)], "rank 1 has other setting seed than rank 0"),
        "data": ([("--game.task", file) for file in files], "rank 1 has other"),
        "count": ([()] * 3, "3 processes for 2 debates in a step"),
        "missing": ([(), ("--game.task", tmp_path / "none.jsonl")], "none.jsonl"),
    }[what]
    more = ("--questions-per-step", 2) if what == "count" else ()
    told = run_by_hand(per_rank, tmp_path / "runs", *more)
    assert [code for code, _ in told] == [2] * len(told), told
    lines = [line for _, text in told for line in text.splitlines() if line.startswith("maporl:")]
    assert len(lines) == 1, told
    assert sentence in lines[0]
    assert lines[0] in told[0][1]
    assert not (tmp_path / "runs" / "run").exists()
