"""Checkpoints: whole or absent after a kill, every damage named, bitwise back."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from maporl_agents.records import checkpoint
from maporl_agents.records.checkpoint import CheckpointError

AGENTS = Path(checkpoint.__file__).resolve().parents[2]

# --- Factories ---------------------------------------------------------------


NAMES = ("agent_0/adapter.safetensors", "state.json", "weights.safetensors")


def files_of(step: int) -> dict[str, bytes]:
    """The content of the checkpoint of a step: known in advance, different for every step."""
    return dict.fromkeys(NAMES, b"%d " % step * 20 * (step % 7 + 1))


def writer(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, data in files_of(step).items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)

    return write


def save(root: Path, step: int, *, keep: int = 2) -> Path:
    return checkpoint.save(root, step, writer(step), keep=keep)


def content(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def newest(root: Path) -> Path:
    folder = checkpoint.latest(root)
    assert folder is not None
    return folder


# --- Save and find -----------------------------------------------------------


def test_a_checkpoint_is_what_was_written_and_the_newest_is_found(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "checkpoints"
    assert checkpoint.latest(root) is None
    for step in (0, 9, 12):
        folder = save(root, step, keep=3)
        assert folder == root / f"step-{step:06d}"
        assert newest(root) == folder
        assert content(folder) == files_of(step)
        assert (root / "latest").read_text() == f"{folder.name}\n"
    assert names(root) == {"step-000000", "step-000009", "step-000012", "latest"}


def test_the_newest_is_by_number_and_foreign_names_are_ignored(tmp_path: Path) -> None:
    for step in (9, 10):
        save(tmp_path, step)
        (tmp_path / f"step-{step:06d}").rename(tmp_path / f"step-{step}")
    (tmp_path / "latest").unlink()
    for name in ("v2-final", "step-11b", "step-", "step-١٢", "my-step-99", "step-99.tmp"):
        (tmp_path / name).mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they are not even taken for damaged ones
        assert newest(tmp_path).name == "step-10"


def test_a_folder_without_any_checkpoint_has_no_newest(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    (tmp_path / ".saving-step-000001-0").mkdir()
    assert checkpoint.latest(tmp_path) is None


def test_old_ones_beyond_keep_are_removed_newer_ones_never(tmp_path: Path) -> None:
    for step in (1, 2, 3, 20):
        save(tmp_path, step, keep=9)
    save(tmp_path, 5, keep=2)
    assert names(tmp_path) == {"step-000003", "step-000005", "step-000020", "latest"}
    save(tmp_path, 21, keep=1)
    assert names(tmp_path) == {"step-000021", "latest"}


def test_removal_waits_until_the_new_one_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, keep=1)
    honest = checkpoint.verify

    def verify(folder: Path) -> None:  # a disk that loses the last byte of what was written
        path = folder / "state.json"
        os.truncate(path, path.stat().st_size - 1)
        honest(folder)

    monkeypatch.setattr(checkpoint, "verify", verify)
    with pytest.raises(CheckpointError, match=r"Nothing was saved.*state\.json cut short"):
        save(tmp_path, 2, keep=1)
    monkeypatch.undo()
    assert names(tmp_path) == {"step-000001", "latest"}
    assert content(newest(tmp_path)) == files_of(1)


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 3)
    folder = checkpoint.save(tmp_path, 3, writer(4))
    assert content(folder) == files_of(4)
    assert names(tmp_path) == {"step-000003", "latest"}


def test_debris_of_killed_saves_is_cleaned_and_blocks_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".saving-step-000002-abc", ".removing-step-000000-abc"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "half.safetensors").write_bytes(b"half")
    (tmp_path / ".saving-latest-abc").write_text("step-00")
    assert newest(tmp_path).name == "step-000001"
    save(tmp_path, 2)
    assert names(tmp_path) == {"step-000001", "step-000002", "latest"}


def test_what_the_writer_raises_passes_through_and_leaves_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)

    def write(folder: Path) -> None:
        writer(2)(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 2, write)
    assert names(tmp_path) == {"step-000001", "latest"}


@pytest.mark.parametrize("options", [{"step": -1}, {"step": 1, "keep": 0}])
def test_bad_numbers_are_refused_before_anything_is_made(
    tmp_path: Path, options: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match="at least"):
        checkpoint.save(tmp_path / "new", write=writer(1), **options)
    assert not (tmp_path / "new").exists()


def test_a_writer_that_leaves_nothing_or_a_pickle_saves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="left no file"):
        checkpoint.save(tmp_path, 1, lambda folder: None)
    with pytest.raises(CheckpointError, match=r"Nothing was saved.*rng\.pth: a pickle"):
        checkpoint.save(tmp_path, 1, lambda folder: torch.save({}, folder / "rng.pth"))
    assert names(tmp_path) == set()


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
        assert checkpoint.step_of(found) >= 2
        assert content(found) == files_of(checkpoint.step_of(found))
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
        checkpoint.save(tmp_path, 2, write)
    assert str(caught.value) == (
        f"Cannot save {tmp_path}/step-000002: No space left on device. Free some space there, make "
        "it writable or choose another folder; the checkpoints saved before are untouched."
    )
    assert names(tmp_path) == {"step-000001", "latest"}


SMALL_DISK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from maporl_agents.records import checkpoint
root = Path(sys.argv[2])
def write(folder, size):
    (folder / "weights.safetensors").write_bytes(b"x" * size)
def refused(step, size):
    try:
        checkpoint.save(root, step, lambda folder: write(folder, size))
    except checkpoint.CheckpointError as error:
        print(error)
    else:
        raise SystemExit(f"step {step} was saved")
    assert checkpoint.latest(root).name == "step-000001"
    assert sorted(path.name for path in root.iterdir()) == ["latest", "step-000001"]
checkpoint.save(root, 1, lambda folder: write(folder, 100_000))
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
        subprocess.run([*mount, make], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets no user mount a file system")
    run = f'{make} && exec "$0" -c "$1" "$2" "$3"'
    command = [*mount, run, sys.executable, SMALL_DISK, str(AGENTS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    full, read_only = done.stdout.splitlines()
    assert "No space left on device" in full
    assert "Read-only file system" in read_only


# --- Damage ------------------------------------------------------------------


def edit_manifest(folder: Path, change: Callable[[dict], object], *, reseal: bool = True) -> None:
    """Change a manifest; with `reseal` the way somebody would who knows the format."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    if reseal:
        body = {key: value for key, value in manifest.items() if key != "checksum"}
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        manifest["checksum"] = digest
    path.write_text(json.dumps(manifest))


def flip(path: Path, *, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def rewrite(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file instead of the folder": (replace_by_file, "is not a folder"),
    "manifest missing": (lambda f: (f / "manifest.json").unlink(), r"has no manifest\.json"),
    "manifest empty": (rewrite("manifest.json", b""), r"empty manifest\.json"),
    "manifest torn": (
        lambda f: os.truncate(f / "manifest.json", 40),
        r"manifest\.json that is not JSON",
    ),
    "manifest binary": (rewrite("manifest.json", b"\xff\x00"), "is not JSON"),
    "manifest nested without end": (rewrite("manifest.json", b"[" * 100_000), "is not JSON"),
    "manifest a list": (rewrite("manifest.json", b"[1]"), r"malformed manifest\.json"),
    "manifest null": (rewrite("manifest.json", b"null"), r"(malformed|empty) manifest\.json"),
    "manifest without files": (lambda f: edit_manifest(f, lambda m: m.pop("files")), "malformed"),
    "manifest with a size in words": (
        lambda f: edit_manifest(f, lambda m: m["files"]["state.json"].update(size="ten")),
        "malformed",
    ),
    "newer format": (
        lambda f: edit_manifest(f, lambda m: m.update(format=2)),
        "has format 2, and this version reads format 1",
    ),
    "manifest altered": (
        lambda f: edit_manifest(f, lambda m: m.update(step=13), reseal=False),
        "altered manifest.json: it does not match its own checksum",
    ),
    "step of another checkpoint": (
        lambda f: edit_manifest(f, lambda m: m.update(step=13)),
        "holds step 13, not the step of its name",
    ),
    "manifest pointing outside": (
        lambda f: edit_manifest(f, lambda m: m["files"].update({"../x": m["files"]["state.json"]})),
        "outside the folder",
    ),
    "a file too many": (rewrite("agent_0/more.json", b"{}"), r"agent_0/more\.json, which was not"),
    "hostile pickle": (
        rewrite("agent_0/adapter_model.bin", b"cposix\nsystem\n(S'true'\ntR."),
        r"agent_0/adapter_model\.bin: a pickle may run code",
    ),
    "link to a folder": (lambda f: (f / "more").symlink_to(f), "more as a link or device"),
    "pipe": (lambda f: os.mkfifo(f / "pipe"), "pipe as a link or device"),
} | {
    f"{name} {kind}": (lambda f, name=name, act=act: act(f / name), says.format(name=name))
    for name in NAMES
    for kind, act, says in [
        ("missing", lambda p: p.unlink(), "lacks {name}"),
        ("emptied", lambda p: os.truncate(p, 0), "{name} cut short: 0 of"),
        ("one byte short", lambda p: os.truncate(p, p.stat().st_size - 1), "{name} cut short"),
        ("one byte long", lambda p: p.write_bytes(p.read_bytes() + b"\0"), "{name} too long"),
        ("one bit flipped", flip, "{name} altered"),
        ("last bit flipped", lambda p: flip(p, at=1), "{name} altered"),
        ("a link", replace_by_link, "{name} as a link or device instead"),
    ]
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_damage_is_named_and_the_one_before_is_used(tmp_path: Path, kind: str) -> None:
    save(tmp_path, 11)
    folder = save(tmp_path, 12)
    damage, says = DAMAGES[kind]
    damage(folder)
    with pytest.raises(CheckpointError, match=says) as caught:
        checkpoint.verify(folder)
    assert str(folder) in str(caught.value)
    with pytest.warns(UserWarning, match=says):
        assert newest(tmp_path) == tmp_path / "step-000011"
    damage_too, says_too = DAMAGES["manifest missing"]
    damage_too(tmp_path / "step-000011")
    with pytest.raises(CheckpointError, match=f"(?s){says}.*step-000011 {says_too}"):
        checkpoint.latest(tmp_path)
    assert content(save(tmp_path, 12)) == files_of(12)  # the way out: save it anew
    assert newest(tmp_path) == folder


def test_every_single_bit_flip_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    path = folder / "manifest.json"
    whole = path.read_bytes()
    meaning = json.loads(whole)
    for position in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            same = json.loads(flipped) == meaning  # a space that became a tab, say
        except ValueError:
            same = False
        if not same:
            with pytest.raises(CheckpointError):
                checkpoint.verify(folder)


def test_a_checkpoint_that_vanished_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    shutil.rmtree(save(tmp_path, 2))
    with pytest.warns(UserWarning, match="names 'step-000002', but .* holds no such checkpoint"):
        assert newest(tmp_path).name == "step-000001"
    shutil.rmtree(tmp_path / "step-000001")
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* can be loaded"):
        checkpoint.latest(tmp_path)


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("name", ["model.pt", "adapter_model.bin", "rng.pkl", "a.pth", "x.ckpt"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "exploded"
    folder = save(tmp_path / "root", 1)
    (folder / name).write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(CheckpointError, match="a pickle may run code"):
        checkpoint.verify(folder)
    with pytest.raises(CheckpointError, match=r"not a \.safetensors file.*never loaded"):
        checkpoint.load_tensors(folder / name)
    disguised = folder / "weights.safetensors"
    disguised.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        checkpoint.load_tensors(disguised)
    assert not marker.exists()
    pickle.loads(disguised.read_bytes())
    assert marker.exists()  # the bomb was live


# --- Kills -------------------------------------------------------------------

SAVER = """
import shutil, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from maporl_agents.records import checkpoint
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
    checkpoint._seal(folder, 1)

root, how = Path(sys.argv[2]), sys.argv[3]
newest = checkpoint.latest(root)
step = checkpoint.step_of(newest) if newest else 0
while True:
    step += 1
    save_in_place(root) if how == "in place" else checkpoint.save(root, step, write, keep=1)
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
        assert checkpoint.step_of(found) >= said > step
        step = checkpoint.step_of(found)
        assert content(found) == files_of(step)
    assert step >= count


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
            checkpoint.verify(tmp_path / "root" / "step-000001")
        except CheckpointError:
            lost += 1
            shutil.rmtree(tmp_path / "root")
    assert lost >= 5
