"""The mutation check can be carried out: its defects fit the code as it is."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[1]
COVERED = """
    answer_lines worked failures model_download gguf_import
    rewards credit penalties advantages losses batching layout token_logprobs maporl magrpo iac
    sample_tree malt gradient_accumulation preferences preference_pairs tree_values
    joint_returns branches optimiser kl_penalty rollout local_engine generation team speak critics
    controls reward_normalisation seed_intervals minibatch_epochs
    verdicts run_facts uniforms grouped_products grouped_adapters lean_layers lean_trunk
    token_tables read_out row_caches row_storage kept_caches truncation lm_head
    divergences grpo packed_texts objective
    limits tool_loop stop_conditions
    intervals pass_at_k ratings opponent_pool games takeaway_v0
"""


@pytest.fixture
def mutants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    return importlib.import_module("mutants")


def test_each_module_that_has_to_be_right_is_covered(mutants: ModuleType) -> None:
    assert {Path(one.file).stem for one in mutants.MUTANTS} == set(COVERED.split())
    assert len(set(mutants.MUTANTS)) == len(mutants.MUTANTS)
    tests = {test for files in mutants.TESTS.values() for test in files}
    assert [test for test in tests if not (REPOSITORY / test).is_file()] == []


def test_every_mutant_still_stands_exactly_once_in_its_file(mutants: ModuleType) -> None:
    assert mutants.stale(mutants.MUTANTS) == []
    changed = mutants.MUTANTS[0]._replace(old="no such text")
    assert mutants.stale([changed]) == [changed]
