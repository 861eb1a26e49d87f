"""docs/how-to/tools.md is true: its snippet runs."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "tools.md"
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_snippet_runs() -> None:
    [program] = SNIPPET.findall(PAGE.read_text(encoding="utf-8"))
    exec(compile(program, str(PAGE), "exec", dont_inherit=True), {"__name__": "snippet"})
