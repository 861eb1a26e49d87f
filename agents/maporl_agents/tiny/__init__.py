"""The built-in tiny language model: a word-level tokenizer and a 0.14 M parameter Llama per agent.

`tokenizer.make_tokenizer` builds the tokenizer, ``python -m maporl_agents.tiny.pretrain`` makes the
weights that are shipped in ``weights/agent_0`` and ``weights/agent_1``.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


def checkpoint(seat: int) -> Path:
    """Return the folder of the shipped model for an agent; seats alternate between the two."""
    return WEIGHTS / f"agent_{seat % 2}"
