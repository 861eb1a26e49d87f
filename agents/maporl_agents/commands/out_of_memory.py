"""Out of memory, on a GPU or the machine: one sentence says which settings lower the peak."""

from __future__ import annotations

import sys

ADVICE = (
    "in training lower --sampling.max-new-tokens, --questions-per-step or --ppo.micro-tokens (or "
    "the scheme's own micro-tokens), or take --team.tuning lora or --team.quantization nf4; "
    "`maporl plan` with the same options estimates the peak. A run goes on from its last "
    "checkpoint with --resume"
)


def out_of_memory(error: BaseException) -> str | None:
    """Return a sentence for an error that means that memory ran out; None for any other.

    PyTorch raises `OutOfMemoryError` for a GPU and a `RuntimeError` of its allocator for the
    machine's own memory, Python a `MemoryError`.
    """
    torch = sys.modules.get("torch")
    said = " ".join(str(error).split())
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return f"the accelerator's memory is full ({'. '.join(said.split('. ')[:2])}): {ADVICE}"
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate" in said
    ):
        wanted = said.partition("you tried to allocate ")[2].partition(" bytes")[0]
        size = f" ({int(wanted) / 2**30:.1f} GiB more were asked for)" if wanted.isdigit() else ""
        return f"the machine's memory is full{size}: {ADVICE}"
    return None
