"""The factories of the agents' tests and the arena of the outside libraries, for the tests here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "agents")]
