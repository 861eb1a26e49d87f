"""The debates of ``maporl eval``: played batch by batch, or taken from disk where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from maporl_agents.config import Sampling
from maporl_agents.measure.debate_stats import turn_stats
from maporl_agents.measure.evaluate import Evaluation, played_parts, tokens_of
from maporl_agents.measure.failures import Failures, failures
from maporl_agents.measure.pass_at_k import (
    RepeatedRow,
    final_texts,
    outcome_of,
    repeated_rows,
)
from maporl_agents.models.team import Team
from maporl_agents.records.eval_record import EvalRecord, Played
from maporl_agents.training.make_game import LoadedGame, make_verifier
from maporl_agents.training.progress import evaluation_progress
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question, Transcript
from maporl_env.verifiers import Scorer

Picker = Callable[[Sequence[Question], Sequence[str]], list[float | None]]
"""(questions, texts) -> scores, by which the best text is picked."""


def picker(name: str) -> Picker | None:
    """Return the verifier of a name, guarded against its faults; None for no name."""
    return Scorer(make_verifier(name)).score if name else None


@dataclass
class Passes:
    """N sampled debates of each question, and a greedy one if wished.

    Attributes:
        team: who debates.
        game: that is played.
        sampling: how messages are drawn.
        questions: each debated N times.
        samples: N.
        greedy: also once greedily.
        seed: names the sampling noise.
        batch: debates side by side.
        picks: scores final texts, of which the best is picked; None for nobody.
        played: by decoding and sample, the debates in the order of the questions.
    """

    team: Team
    game: LoadedGame
    sampling: Sampling
    questions: Sequence[Question]
    samples: int
    greedy: bool
    seed: int
    batch: int
    picks: Picker | None
    played: dict[str, list[list[Played]]] = field(default_factory=dict)

    def play(self, record: EvalRecord | None, console: Console) -> None:
        """Play what the record does not hold yet; each batch is written when it is over."""
        debates = self.game.debates(min(self.batch, len(self.questions)))
        numbers = {"sampled": self.samples, "greedy": int(self.greedy)}
        for decoding, number in ((name, count) for name, count in numbers.items() if count):
            size = debates.batch_size
            kept: list[list[Played]] = [[] for _ in range(number)]
            if record is not None:
                kept = record.kept(decoding, self.questions, number, size)
            total, there = number * len(self.questions), sum(map(len, kept))
            if there:
                console.print(f"{decoding}: {there:,} of {total:,} debates are there already")
            with evaluation_progress(total, console) as shown:
                shown(there)
                for sample, played in enumerate(kept):
                    self._play_sample(debates, decoding, sample, played, record, shown)
            self.played[decoding] = kept

    def _play_sample(
        self,
        debates: BatchedDebate,
        decoding: str,
        sample: int,
        played: list[Played],
        record: EvalRecord | None,
        shown: Callable[[int], None],
    ) -> None:
        """Add the debates that are missing to those of one sample."""
        sampling = self.sampling
        if decoding == "greedy":
            sampling = sampling.greedy()
        parts = played_parts(
            *(self.team, debates, self.questions, sampling),
            seed=self.seed,
            sample=sample,
            first=len(played),
        )
        for rollouts in parts:
            transcripts = [rollout.transcript for rollout in rollouts]
            picks = self._picks(debates, transcripts)
            new = [
                Played(transcript, tokens_of(rollout), picked)
                for transcript, rollout, picked in zip(transcripts, rollouts, picks, strict=True)
            ]
            if record is not None:
                record.add(decoding, sample, new)
            played += new
            shown(len(new))

    def _picks(
        self, debates: BatchedDebate, transcripts: Sequence[Transcript]
    ) -> list[tuple[float | None, ...]]:
        """Return the scores of the final texts of each debate; () where nobody picks."""
        if self.picks is None:
            return [()] * len(transcripts)
        texts = [final_texts(debates.game.protocol, one) for one in transcripts]
        asked = [one.question for one, each in zip(transcripts, texts, strict=True) for _ in each]
        scores = iter(self.picks(asked, [text for each in texts for text in each]))
        return [tuple(next(scores) for _ in each) for each in texts]

    @property
    def results(self) -> dict[str, Evaluation]:
        """The results by decoding, of the first debate of each question."""
        return {decoding: _evaluation(samples[0]) for decoding, samples in self.played.items()}

    def repeated(self) -> list[RepeatedRow]:
        """Return the figures of several debates; [] for one of each question and no picking."""
        if self.samples == 1 and self.picks is None:
            return []
        protocol = self.game.debates(1).game.protocol
        by_question = [
            [outcome_of(protocol, one.transcript, one.picks) for one in tried]
            for tried in zip(*self.played["sampled"], strict=True)
        ]
        return repeated_rows(by_question)

    def failures(self) -> dict[str, list[Failures]]:
        """Return why messages are not right, by decoding and turn."""
        return {name: [*failures(one.transcripts)] for name, one in self.results.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        stage = {decoding: result.to_dict() for decoding, result in self.results.items()}
        for decoding, by_turn in self.failures().items():
            stage[decoding]["failures"] = [turn.to_dict() for turn in by_turn]
        rows = self.repeated()
        return stage | ({"repeated": [row.to_dict() for row in rows]} if rows else {})


def _evaluation(played: Sequence[Played]) -> Evaluation:
    transcripts = tuple(one.transcript for one in played)
    tokens = sum(one.tokens for one in played)
    return Evaluation(turn_stats(transcripts), len(played), tokens, transcripts)
