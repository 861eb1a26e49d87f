"""Settings of a warm-up by imitation or preferences, the first stage of a run of any scheme."""

from __future__ import annotations

from dataclasses import dataclass

from maporl_agents.config import checks


@dataclass(frozen=True)
class WarmupConfig(checks.Checked):
    """A warm-up: the models imitate their own right answers, before anything is rewarded."""

    steps: checks.Count = 0
    """Updates; 0 for no warm-up."""
    questions: checks.AtLeast1 = 128
    """Training questions that are debated once, to find right answers."""
    transcripts: str = ""
    """A file of transcripts to imitate in place of own right answers, one as JSON per line, such as
    transcripts/train.jsonl of a run: all messages of trained agents and turns. Or one's own
    module:function or file.py:function without arguments, which returns a list of them."""
    preferences: str = ""
    """A file of preference pairs that are learnt by DPO in place of imitation, one as JSON per line
    in TRL's conversational format, with agent and turn, such as preferences.jsonl of `maporl
    watch`: all pairs of trained agents and turns; `steps` is for each policy."""
    preference_beta: checks.Above0 = 0.1
    """Strength of the DPO loss; larger values keep the policy closer to the model before."""
    batch_size: checks.AtLeast1 = 16
    """Messages, or pairs, in one update."""
    learning_rate: checks.NotNegative = 1e-3
    """Of AdamW; it falls linearly to a tenth. LoRA on a large model wants less."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transcripts and self.preferences:
            raise ValueError(
                "warmup.transcripts are imitated and warmup.preferences are learnt by DPO: give "
                "one of them"
            )
