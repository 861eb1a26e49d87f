"""Several processes whose messages one server writes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rank_cases import distance
from small_runs import newest_weights
from test_faults import CLI, finished, said
from test_faults import running as process_of
from vllm_stand_in import running

from maporl_agents import tiny

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]

TINY = tiny.checkpoint(0)


def test_two_processes_send_each_version_of_an_adapter_once(tmp_path: Path) -> None:
    """Two play as one does: same texts and, by kernels alone, the same weights."""
    flags = [
        *("--name", "run", "--steps", "2", "--questions-per-step", "4", "--eval.questions", "1"),
        *("--team.model", TINY, "--team.tuning", "lora", "--sampling.max-new-tokens", "6"),
        *("--sampling.engine", "vllm", "--checkpoint-every", "2"),
    ]
    sent = {}
    for count in (1, 2):
        with running(TINY) as server:
            words = ["--sampling.url", server.url, "--processes", count]
            runs = tmp_path / str(count)
            with process_of(*CLI, "train", "--runs", runs, *flags, *words) as process:
                code, output = finished(process)
            assert code == 0, output
            sent[count] = [name.rpartition("-")[0] for name in server.loaded]
            assert sorted(server.loaded) == sorted(server.unloaded)
    assert sent[1] == sent[2]
    one, two = tmp_path / "1" / "run", tmp_path / "2" / "run"
    assert said(one) == said(two)
    assert distance(newest_weights(one), newest_weights(two)) < 1e-4
