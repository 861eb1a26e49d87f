"""Checkpoints survive full disks, failing system calls and kills."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkpoint_cases import NAMES, content, files_of, names, newest, save, writer

from maporl_agents.records import checkpoint_folder
from maporl_agents.records.checkpoint_folder import CheckpointError

AGENTS = Path(checkpoint_folder.__file__).resolve().parents[2]


# --- Order of disk operations, full and failing disks ------------------------


class Disk:
    """The real system calls, noted in order; the `fail_at`-th raises instead of acting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fail_at = fail_at
        for name in ("fsync", "rename", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))

    def _noting(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object, **options: object) -> None:
            if len(self.calls) == self.fail_at:
                self.calls.append((name, "failed"))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk")
            what = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[-1])
            self.calls.append((name, what))
            real(*args, **options)

        return call


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="needs /proc to name what is synced"
)


@needs_proc
def test_everything_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, keep=1)
    disk = Disk(monkeypatch)
    save(tmp_path, 2, keep=1)
    monkeypatch.undo()
    named = disk.calls.index(("rename", str(tmp_path / "step-000002")))
    pointed = disk.calls.index(("replace", str(tmp_path / "latest")))
    removed = [i for i, (_, what) in enumerate(disk.calls) if ".removing-" in what]
    synced = {what.split("/", 1)[-1] for call, what in disk.calls[:named] if call == "fsync"}
    inside = {what.partition(".saving-step-000002-")[2][8:] for what in synced}
    folders = {"", "/agent_0"}
    assert inside >= {f"/{name}" for name in [*files_of(2), "manifest.json"]} | folders
    assert ("fsync", str(tmp_path)) in disk.calls[named:pointed]
    assert ("fsync", str(tmp_path)) in disk.calls[pointed : min(removed)]
    assert len(removed) == 1


@pytest.mark.thorough
@needs_proc
@pytest.mark.filterwarnings("ignore:The old checkpoint")  # that it stays is only a notice
@pytest.mark.parametrize("step", [2, 3])
def test_whichever_system_call_fails_the_newest_stays_loadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """E4: step 2 is saved again, or step 3 anew; its first call fails, then its second, ..."""
    before = tmp_path / "before"
    save(before, 1)
    save(before, 2)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        save(shutil.copytree(before, tmp_path / "whole"), step)
    refused = 0
    for index in range(len(disk.calls)):
        root = shutil.copytree(before, tmp_path / str(index))
        with monkeypatch.context() as patch:
            Disk(patch, fail_at=index)
            try:
                save(root, step)
            except CheckpointError as error:
                refused += 1
                message = str(error)
                assert "No space left on device. Free some space" in message
        assert not any(name.startswith(".saving-step") for name in names(root))
        found = newest(root)
        assert checkpoint_folder.step_of(found) >= 2
        assert content(found) == files_of(checkpoint_folder.step_of(found))
        assert content(save(root, 4)) == files_of(4)  # and the next save goes through
    assert refused >= 11  # 2 folders made, 4 files and 2 folders synced, renamed, root synced, ...


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without space")
def test_a_full_disk_while_writing_is_one_clear_sentence(tmp_path: Path) -> None:
    save(tmp_path, 1)

    def write(folder: Path) -> None:
        writer(2)(folder)
        with open("/dev/full", "wb") as file:
            file.write(b"more")

    with pytest.raises(CheckpointError) as caught:
        checkpoint_folder.save(tmp_path, 2, write)
    assert str(caught.value) == (
        f"Cannot save {tmp_path}/step-000002: No space left on device. Free some space there, make "
        "it writable or choose another folder; the checkpoints saved before are untouched."
    )
    assert names(tmp_path) == {"step-000001", "latest"}


SMALL_DISK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from maporl_agents.records import checkpoint_folder
root = Path(sys.argv[2])
def write(folder, size):
    (folder / "weights.safetensors").write_bytes(b"x" * size)
def refused(step, size):
    try:
        checkpoint_folder.save(root, step, lambda folder: write(folder, size))
    except checkpoint_folder.CheckpointError as error:
        print(error)
    else:
        raise SystemExit(f"step {step} was saved")
    assert checkpoint_folder.latest(root).name == "step-000001"
    assert sorted(path.name for path in root.iterdir()) == ["latest", "step-000001"]
checkpoint_folder.save(root, 1, lambda folder: write(folder, 100_000))
refused(2, 1_000_000)
import subprocess
subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
refused(3, 10)
"""


def test_a_small_then_read_only_file_system(tmp_path: Path) -> None:
    """On a real file system of 256 KiB, mounted in a name space of its own."""
    mount = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    make = f"mount -t tmpfs -o size=256k none {tmp_path}"
    try:
        probe = f"{make} && mount -o remount,ro {tmp_path}"
        subprocess.run([*mount, probe], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets no user mount a file system")
    run = f'{make} && exec "$0" -c "$1" "$2" "$3"'
    command = [*mount, run, sys.executable, SMALL_DISK, str(AGENTS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    full, read_only = done.stdout.splitlines()
    assert "No space left on device" in full
    assert "Read-only file system" in read_only


# --- Kills -------------------------------------------------------------------

SAVER = """
import shutil, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from maporl_agents.records import checkpoint_folder
assert "torch" not in sys.modules  # or each start would take seconds

def write(folder):
    (folder / "agent_0").mkdir()
    for name in sys.argv[4:]:
        (folder / name).write_bytes(b"%d " % step * 20 * (step % 7 + 1))

def save_in_place(root):
    folder = root / "step-000001"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write(folder)
    checkpoint_folder._seal(folder, 1)

root, how = Path(sys.argv[2]), sys.argv[3]
newest = checkpoint_folder.latest(root)
step = checkpoint_folder.step_of(newest) if newest else 0
while True:
    step += 1
    save_in_place(root) if how == "in place" else checkpoint_folder.save(root, step, write, keep=1)
    print(step, flush=True)
"""


def kills(root: Path, count: int, how: str = "safe") -> Iterator[int]:
    """SIGKILL a saving process at random moments; yield the last step it had said was saved."""
    chance = random.Random(0)
    for _ in range(count):
        command = [sys.executable, "-c", SAVER, AGENTS, root, how, *NAMES]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
            yield int((first + process.stdout.read()).split()[-1])


def survive(root: Path, count: int) -> None:
    step = 0
    for said in kills(root, count):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # not even a damaged one to be passed over
            found = newest(root)
        assert checkpoint_folder.step_of(found) >= said > step
        step = checkpoint_folder.step_of(found)
        assert content(found) == files_of(step)
    assert step >= count


@pytest.mark.thorough
def test_a_few_kills(tmp_path: Path) -> None:
    survive(tmp_path / "root", 5)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # seconds; alone it takes about a tenth
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_200_kills_lose_nothing(tmp_path: Path, place: str) -> None:
    """R1: after every kill the newest checkpoint loads, is whole, and its step never fell."""
    root = tmp_path / "root"
    if place == "memory":
        memory = Path("/dev/shm")
        if not os.access(memory, os.W_OK):
            pytest.skip("no file system in memory at /dev/shm")
        root = memory / f"maporl-{os.getpid()}"
    try:
        survive(root, 200)
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.slow
def test_the_kills_do_destroy_checkpoints_saved_in_place(tmp_path: Path) -> None:
    """The control: a test whose kills a naive save survives would show nothing."""
    lost = 0
    for _ in kills(tmp_path / "root", 40, "in place"):
        try:
            checkpoint_folder.verify(tmp_path / "root" / "step-000001")
        except CheckpointError:
            lost += 1
            shutil.rmtree(tmp_path / "root")
    assert lost >= 5
