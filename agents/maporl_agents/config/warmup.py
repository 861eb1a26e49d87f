"""Settings of a warm-up by imitation, the first stage of a run of any scheme."""

from __future__ import annotations

from dataclasses import dataclass

from maporl_agents.config import checks


@dataclass(frozen=True)
class WarmupConfig:
    """A warm-up: the models imitate their own right answers, before anything is rewarded."""

    steps: int = 0
    """Updates; 0 for no warm-up."""
    questions: int = 128
    """Training questions that are debated once, to find right answers."""
    transcripts: str = ""
    """A file of transcripts to imitate in place of own right answers, one as JSON per line, such as
    transcripts/train.jsonl of a run: all messages of trained agents and turns."""
    batch_size: int = 16
    """Messages in one update."""
    learning_rate: float = 1e-3
    """Of AdamW; it falls linearly to a tenth. LoRA on a large model wants less."""

    def __post_init__(self) -> None:
        checks.require_numbers(self, checks.NOT_NEGATIVE, "steps", "learning_rate")
        checks.require_numbers(self, checks.AT_LEAST_1, "questions", "batch_size")
