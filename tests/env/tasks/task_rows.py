"""Rows of questions, and files of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OWN = [{"prompt": f"{n} + 1?", "answer": n + 1, "id": f"own/{n}"} for n in range(4)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
