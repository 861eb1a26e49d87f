"""Settings that both trainers of TRL run with: on one CPU, nothing logged and nothing saved."""

from __future__ import annotations

from typing import Any

QUIET: dict[str, Any] = {
    "learning_rate": 1e-5,
    "temperature": 1.0,
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
}
