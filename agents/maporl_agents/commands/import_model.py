"""``maporl import``: a GGUF file as a plain folder of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from maporl_agents.terminal import console, terminated_as_interrupt

if TYPE_CHECKING:
    from maporl_agents.models.sources.gguf_import import Header


@dataclass(frozen=True)
class Import:
    """Write the model and tokenizer of a GGUF file as a plain folder, to be named as any model.

    Quantised weights are expanded, as far as transformers reads the file. Needs the extra `gguf`.
    Example: maporl import model.gguf my-model, then maporl play --model ./my-model.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.gguf")]
    """The file."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """A new or empty folder; made whole or not at all."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the written weights. float32 keeps the expanded numbers as they are; on processors without
    bfloat16 arithmetic it is also the fastest."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        from maporl_agents.models.sources.gguf_import import import_gguf

        terminal = console()
        with terminated_as_interrupt():
            made = import_gguf(self.file, self.folder, self.dtype)
        for warning in made.warnings:
            terminal.print(f"warning: {warning}", soft_wrap=True)
        terminal.print(f"wrote {_formats(made.header)} as {self.dtype} to", soft_wrap=True)
        terminal.print(str(made.folder), soft_wrap=True, markup=False)
        return 0


def _formats(header: Header) -> str:
    """Return the formats of a file's weights, e.g. "106,168,320 weights in Q4_1"."""
    return ", ".join(f"{number:,} weights in {name}" for name, number in header.weights.items())
