"""Whole runs from the command line: truncated sampling in every scheme, GRPO that is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import cut_and_resumed, maporl

from maporl_agents.config import CONFIGS
from maporl_agents.records.run_log import read_metrics

SMALL = (
    *("--name", "x", "--questions-per-step", 2, "--sampling.max-new-tokens", 4),
    *("--eval.questions", 2, "--eval.questions-before", 1, "--eval.no-greedy"),
)
CUTS = [("--sampling.top-p", 0.8), ("--sampling.top-k", 5), ("--sampling.min-p", 0.1)]


@pytest.mark.thorough
@pytest.mark.usefixtures("work_folder")
@pytest.mark.parametrize("cut", CUTS, ids=[flag.rpartition(".")[2] for flag, _ in CUTS])
@pytest.mark.parametrize("scheme", sorted(CONFIGS))
def test_truncated_sampling_trains_at_ratio_1(scheme: str, cut: tuple[str, float]) -> None:
    """The trainer's log-probabilities are the sampler's within 1e-5 before the first update.

    MALT and SWEET-RL prefer over the whole vocabulary, so there is no ratio: they only have to run.
    """
    steps = 3 if scheme == "malt" else 2
    assert maporl("train", "--scheme", scheme, *SMALL, *cut, "--steps", steps) == 0
    rows = read_metrics(Path("runs/x"))
    assert len(rows) == steps
    for row in rows if scheme not in ("malt", "sweet_rl") else ():
        assert row["sampler_mismatch"] < 1e-5
        assert row["ratio_mismatch"] < 1e-5
        assert row["sampler_fault"] == 0


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a run that do not depend on time."""
    found = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "results.json")}
    for path in sorted((folder / "checkpoints").glob("step-*/**/*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.mark.thorough
@pytest.mark.usefixtures("work_folder")
@pytest.mark.parametrize("variant", ["grpo", "rae", "remax"])
def test_a_run_of_grpo_that_was_killed_goes_on_as_if_uncut(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in step 3 of 4, behind the checkpoint of step 2: all files are bitwise the same."""
    flags = (*SMALL, "--scheme", "grpo", "--grpo.variant", variant, "--grpo.group-size", 2)
    flags += ("--steps", 4, "--checkpoint-every", 2)
    assert maporl("train", *flags, "--runs", "whole") == 0
    assert cut_and_resumed(monkeypatch, flags, killed_in=3) == [0, 1, 2, 2, 3]
    whole, cut = files_of(Path("whole/x")), files_of(Path("cut/x"))
    assert cut == whole
    assert any(name.endswith("optimizer.safetensors") for name in whole)
