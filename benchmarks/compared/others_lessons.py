"""The control of protocol `lessons`: lessons that were learnt from another question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.prompts import render
from maporl_env.types import Transcript


class OthersLessons(BatchedDebate):
    """Debates whose later attempts are made with the lessons of the next debate of the batch.

    Equally many messages, of equal length on average. All debates stand at the same turn.
    """

    def prompts(self) -> list[Prompt]:
        """Return the prompts of a turn, with lessons swapped where attempts are made."""
        transcripts = self.transcripts
        return [
            prompt if prompt.turn % 2 or not prompt.turn else self._swapped(prompt, transcripts)
            for prompt in super().prompts()
        ]

    def _swapped(self, prompt: Prompt, transcripts: Sequence[Transcript]) -> Prompt:
        other = transcripts[(prompt.debate + 1) % len(transcripts)]
        mixed = replace(transcripts[prompt.debate], messages=other.messages)
        view = self.debates[prompt.debate].view_after(prompt.agent, mixed)
        return prompt._replace(view=view, text=render(view))
