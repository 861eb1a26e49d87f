"""Several processes end with the token ids and weights of one."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rank_cases import HERE, distance, ends, moved, outcome, start, train

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]

EXACT = (
    *("maporl-consensus", "maporl-many-lora-consensus", "maporl-alone", "maporl-one"),
    *("magrpo", "magrpo-lora", "malt", "iac", "grpo", "mlpo"),
    *("maporl-lora-sharded-passes", "magrpo-lora-sharded"),
)
"""Cases in float64, where rounding is far below what is compared."""
SINGLE = ("maporl-consensus", "maporl-lora-consensus", "magrpo-lora", "grpo-lora")
"""Cases in float32, with an eps of AdamW above the rounding of gradients."""
if find_spec("bitsandbytes"):
    SINGLE = (*SINGLE, "maporl-nf4")


CASES = {"exact": EXACT, "single": SINGLE}
MOST = 1e-6
"""The largest difference of a weight."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All cases in one process: a folder each for float64 and float32."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("exact", "single")}
    for kind, cases in CASES.items():
        for case in cases:
            train(case, folders[kind], exact=kind == "exact")
    return folders


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("kind", CASES)
def test_the_same_ids_and_weights(
    alone: dict[str, Path], tmp_path: Path, count: int, kind: str
) -> None:
    """Ragged debates of all schemes; some ranks have nothing to read in some minibatches."""
    cases = CASES[kind]
    told = ends(start(count, HERE / "rank_cases.py", tmp_path, kind, *cases), 800)
    assert [code for code, _ in told] == [0] * count, told
    apart = {}
    for case in cases:
        said, weights = outcome(tmp_path, case, count)
        expected, reference = outcome(alone[kind], case, 1)
        assert said == expected, case
        assert moved(alone[kind], case) > 100 * MOST, case
        apart[case] = distance(weights, reference)
    assert max(apart.values()) <= MOST, apart
