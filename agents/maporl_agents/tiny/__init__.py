"""The built-in tiny language models: word-level tokenizers, Llamas of 0.14 M parameters, a Qwen2.

- `tiny`: two models with different knowledge, for the task `shopping`; agents alternate.
- `tiny-sharing`: one model for everybody, for the tasks `sharing` and `coins`.
- `tiny-sharing-qwen2`: a partner of another family, size (0.08 M) and vocabulary, for the same two.
- `tiny-maker`: one model for everybody, for the tasks `expressions` and `routes`.

`tokenizer.make_tokenizer` builds the tokenizers, ``python -m maporl_agents.tiny.pretrain`` makes
the weights that are shipped in ``weights``.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"

MODELS = {
    "tiny": ("agent_0", "agent_1"),
    "tiny-sharing": ("sharing",),
    "tiny-sharing-qwen2": ("sharing_qwen2",),
    "tiny-maker": ("maker",),
}
"""Folders of the weights of each built-in model; agents take them in turn."""


def checkpoint(agent_index: int, model: str = "tiny") -> Path:
    """Return the folder of the shipped model for an agent."""
    folders = MODELS[model]
    return WEIGHTS / folders[agent_index % len(folders)]
