"""What a run's files hold comes back bitwise, or is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from maporl_agents.records import storage


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=50)
@given(values)
def test_json_comes_back_unchanged(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    storage.save_json(path, value)
    back = storage.load_json(path)
    assert back == value
    assert repr(back) == repr(value)  # tells -0.0 from 0.0, 1 from True


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": [1.0, float("nan")]}, r"x\.json, a, \[1\] is nan"),
        ({"a": float("inf")}, r"x\.json, a is inf"),
        ({"a": {3: 1}}, "the key 3: JSON keys must be text"),
        ({"a": torch.ones(1)}, "a is a Tensor"),
        ({1, 2}, "is a set"),
    ],
)
def test_what_json_cannot_hold_is_refused(tmp_path: Path, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        storage.save_json(tmp_path / "x.json", value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": NaN}', "[Infinity]", '{"a": 1, "a": 2}', "[" * 100_000, "\x00"]
)
def test_damaged_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(storage.CheckpointError, match=r"x\.json cannot be read as JSON"):
        storage.load_json(path)


def test_absent_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(storage.CheckpointError, match=r"x\.json cannot be read.*No such file"):
        storage.load_json(tmp_path / "x.json")


def test_tensors_come_back_bitwise(tmp_path: Path) -> None:
    noise = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    tensors = {
        "strided": noise.T[::2],
        "half": noise.bfloat16(),
        "special": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.empty(0, 3),
        "mask": noise > 0,
        "tied": noise,
        "tied too": noise,
        "trained": nn.Parameter(noise.double()),
    }
    path = tmp_path / "t.safetensors"
    storage.save_tensors(path, tensors)
    back = storage.load_tensors(path)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        assert bits(back[name]) == bits(tensor)


def test_tensor_files_have_one_ending(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        storage.save_tensors(tmp_path / "t.pt", {})
    with pytest.raises(storage.CheckpointError, match="No such file"):
        storage.load_tensors(tmp_path / "absent.safetensors")


def test_a_failing_write_of_tensors_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="could not be written"):
        storage.save_tensors(tmp_path / "no folder" / "t.safetensors", {"a": torch.ones(1)})


def test_writing_text_replaces_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "latest"
    storage.write_text(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            storage.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
