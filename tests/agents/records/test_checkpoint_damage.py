"""Every damage of a checkpoint is named, and a pickle is never opened."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_cases import NAMES, content, files_of, newest, save

from maporl_agents.records import checkpoint_folder
from maporl_agents.records.checkpoint_folder import CheckpointError

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
        checkpoint_folder.verify(folder)
    assert str(folder) in str(caught.value)
    with pytest.warns(UserWarning, match=says):
        assert newest(tmp_path) == tmp_path / "step-000011"
    damage_too, says_too = DAMAGES["manifest missing"]
    damage_too(tmp_path / "step-000011")
    with pytest.raises(CheckpointError, match=f"(?s){says}.*step-000011 {says_too}"):
        checkpoint_folder.latest(tmp_path)
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
                checkpoint_folder.verify(folder)


def test_a_checkpoint_that_vanished_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    shutil.rmtree(save(tmp_path, 2))
    with pytest.warns(UserWarning, match="names 'step-000002', but .* holds no such checkpoint"):
        assert newest(tmp_path).name == "step-000001"
    shutil.rmtree(tmp_path / "step-000001")
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* can be loaded"):
        checkpoint_folder.latest(tmp_path)


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
        checkpoint_folder.verify(folder)
    with pytest.raises(CheckpointError, match=r"not a \.safetensors file.*never loaded"):
        checkpoint_folder.load_tensors(folder / name)
    disguised = folder / "weights.safetensors"
    disguised.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        checkpoint_folder.load_tensors(disguised)
    assert not marker.exists()
    pickle.loads(disguised.read_bytes())
    assert marker.exists()  # the bomb was live
