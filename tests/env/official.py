"""The official tests of PettingZoo, in the form in which the environments here are given to them.

`bombardment_test` takes the None of step() for an observation and cannot pass anywhere;
`test_save_obs` is for pictures; `manual_control_test` for keyboards.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from pettingzoo.test import max_cycles_test, parallel_seed_test, render_test, seed_test, state_test
from pettingzoo.utils.conversions import aec_to_parallel, parallel_to_aec


class Converted:
    """One environment module, with its interfaces converted into each other."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def to_parallel(self, **options: Any) -> Any:
        return aec_to_parallel(self.module.env(**options))

    def to_aec(self, **options: Any) -> Any:
        return parallel_to_aec(self.module.parallel_env(**options))

    def twice(self, **options: Any) -> Any:
        return aec_to_parallel(self.to_aec(**options))


def check_seeds_and_state(
    aec: Callable[..., Any], parallel: Callable[..., Any], options: dict[str, Any]
) -> None:
    seed_test(lambda: aec(**options), num_cycles=10)
    parallel_seed_test(lambda: parallel(**options), num_cycles=10)
    state_test(aec(**options), parallel(**options))


def check_max_cycles_and_render(
    module: Any, capsys: pytest.CaptureFixture[str], *, printed: str
) -> None:
    max_cycles_test(module)
    render_test(module.env)
    assert printed in capsys.readouterr().out


def check_output_in_other_processes(code: str) -> str:
    """Run a program under two hash seeds; return its output, which must be the same."""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(p for p in sys.path if p)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    return outputs[0]
