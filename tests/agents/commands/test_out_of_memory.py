"""Memory that runs out ends a command with one sentence that says what to lower."""

from __future__ import annotations

import pytest
import torch

from maporl_agents.cli import main
from maporl_agents.commands.out_of_memory import ADVICE, out_of_memory
from maporl_agents.commands.train import Train


def of_the_machine() -> RuntimeError:
    """Return PyTorch's own error for memory that the machine does not have."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    return caught.value


@pytest.mark.parametrize(
    ("error", "begin"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has ..."),
            "the accelerator's memory is full (CUDA out of memory. Tried to allocate 2 GiB): in ",
        ),
        (MemoryError(), "the machine's memory is full: in training lower "),
    ],
)
def test_it_says_which_memory_is_full_and_what_to_lower(error: BaseException, begin: str) -> None:
    assert (out_of_memory(error) or "").startswith(begin)


def test_pytorchs_own_error_is_known() -> None:
    said = out_of_memory(of_the_machine())
    assert said == (f"the machine's memory is full (4194304.0 GiB more were asked for): {ADVICE}")


@pytest.mark.parametrize("error", [RuntimeError("expected scalar type Float"), ValueError("no")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert out_of_memory(error) is None


def test_the_command_ends_with_the_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(self: Train) -> int:
        raise of_the_machine()

    monkeypatch.setattr(Train, "__call__", fill)
    with pytest.raises(SystemExit) as stop:
        main(["train"])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("maporl: the machine's memory is full (")
    assert len(said.splitlines()) == 1


def test_the_advice_names_options_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help-all"])
    told = capsys.readouterr().out
    options = [word.strip(",.(") for word in ADVICE.split() if word.startswith("--")]
    assert len(options) == 6
    assert [option for option in options if option not in told] == []
