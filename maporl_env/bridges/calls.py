"""Collaboration by calls: who is asked. Models are black boxes from prompts to texts.

Two untrained methods at the level "API" of "When One LLM Drools" (arXiv 2502.04506):

    cheap_first = Cascade([small, large], samples=3, agreement=2 / 3)
    router = VerifierRouter.fitted([algebra, geometry], questions, verifier)
    batch = play([router, router], num_turns=2)        # `bridges.speakers.play`

Each is a speaker (`prompts -> texts`) made of speakers, so that it can take any agent's place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maporl_env.answers import answers_equal, extract_answer
from maporl_env.types import Question
from maporl_env.verifiers import Scorer, VerifierLike

Speaker = Callable[[Sequence[str]], Sequence[str]]
"""Writes one text per prompt."""

NGRAM = 3
"""Characters of the pieces by which prompts are compared."""


def _asked(speaker: Speaker, prompts: Sequence[str], name: str) -> list[str]:
    """Return a speaker's texts; ValueError unless there is one per prompt."""
    texts = list(speaker(prompts))
    if len(texts) != len(prompts):
        raise ValueError(f"{name} gave {len(texts)} texts for {len(prompts)} prompts")
    return texts


@dataclass
class Cascade:
    """Asks cheap speakers first, and the next one where the answers of one do not agree.

    Each speaker but the last answers `samples` times. If the most common answer has the share
    `agreement` of them, the first message that gives it is taken; else the next speaker is asked.
    A message without a readable answer agrees with none. The last speaker answers once.

    Attributes:
        speakers: from the cheapest to the dearest, at least two.
        samples: answers of each that are compared, at least 2.
        agreement: share of them that must be equal, in (0, 1].
        kind: of the answers, see `answers`.
        calls: prompts that each speaker has been asked so far.

    Raises:
        ValueError: a setting that is none of these.
    """

    speakers: Sequence[Speaker]
    samples: int = 3
    agreement: float = 2 / 3
    kind: str = "number"
    calls: list[int] = field(init=False)

    def __post_init__(self) -> None:
        if len(self.speakers) < 2:
            raise ValueError(f"a cascade needs at least two speakers, not {len(self.speakers)}")
        if self.samples < 2:
            raise ValueError(f"samples must be at least 2 to agree, not {self.samples}")
        if not 0 < self.agreement <= 1:
            raise ValueError(f"agreement must be a share in (0, 1], not {self.agreement}")
        extract_answer("", self.kind)  # ValueError for an unknown kind
        self.calls = [0] * len(self.speakers)

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Return one message per prompt."""
        found: dict[int, str] = {}
        for place, speaker in enumerate(self.speakers):
            open_ = [n for n in range(len(prompts)) if n not in found]
            if not open_:
                break
            last = place == len(self.speakers) - 1
            times = 1 if last else self.samples
            asked = [prompts[n] for n in open_ for _ in range(times)]
            texts = _asked(speaker, asked, f"speaker {place} of the cascade")
            self.calls[place] += len(asked)
            for group, n in enumerate(open_):
                own = texts[group * times : (group + 1) * times]
                chosen = own[0] if last else self._agreed(own)
                if chosen is not None:
                    found[n] = chosen
        return [found[n] for n in range(len(prompts))]

    def _agreed(self, texts: Sequence[str]) -> str | None:
        """Return the first text of the most common answer; None if too few share it."""
        answers = [extract_answer(text, self.kind) for text in texts]
        shares = [
            sum(answers_equal(answer, other) for other in answers) / len(texts)
            for answer in answers
        ]
        best = max(range(len(texts)), key=lambda n: shares[n])
        enough = answers[best] is not None and shares[best] >= self.agreement - 1e-9
        return texts[best] if enough else None


@dataclass
class VerifierRouter:
    """Asks the one speaker that a verifier scored best on the questions most like a prompt.

    Make one with `fitted`. A prompt is compared with the validation questions by their pieces of
    three characters (cosine of TF-IDF vectors), so that one answer is paid for per prompt.

    Attributes:
        speakers: K speakers.
        texts: N prompts of validation questions.
        scores: (N, K) the verifier's score of each speaker on each; NaN where it had none.
        neighbours: how many of the most similar questions are looked at.
        calls: prompts that each speaker has been asked so far.
    """

    speakers: Sequence[Speaker]
    texts: Sequence[str]
    scores: NDArray[np.float64]
    neighbours: int = 8
    calls: list[int] = field(init=False)

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, not {self.neighbours}")
        if self.scores.shape != (len(self.texts), len(self.speakers)) or not self.scores.size:
            raise ValueError(
                f"scores of {len(self.texts)} questions by {len(self.speakers)} speakers, at least "
                f"one of each, are needed, not of shape {self.scores.shape}"
            )
        self.calls = [0] * len(self.speakers)
        self._similarity = Similarity(self.texts)

    @classmethod
    def fitted(
        cls,
        speakers: Sequence[Speaker],
        questions: Sequence[Question],
        verifier: VerifierLike,
        *,
        prompt_of: Callable[[Question], str] = lambda question: question.prompt,
        neighbours: int = 8,
    ) -> VerifierRouter:
        """Ask every speaker the validation questions once, and score what they answer.

        Args:
            speakers: K speakers.
            questions: that no result is shown on.
            verifier: scores answers.
            prompt_of: returns what a speaker is asked for a question.
            neighbours: see the class.
        """
        texts = [prompt_of(question) for question in questions]
        scorer = Scorer(verifier)
        columns = []
        for place, speaker in enumerate(speakers):
            said = _asked(speaker, texts, f"speaker {place} of the router")
            columns.append([np.nan if s is None else s for s in scorer.score(questions, said)])
        return cls(speakers, texts, np.array(columns, dtype=float).T, neighbours)

    def route(self, prompts: Sequence[str]) -> list[int]:
        """Return the place of the speaker that each prompt goes to."""
        near = self._similarity.nearest(prompts, min(self.neighbours, len(self.texts)))
        overall = _means(self.scores)
        found = []
        for rows in near:
            local = _means(self.scores[rows])
            found.append(int(np.argmax(np.where(np.isnan(local), overall, local))))
        return found

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Return one message per prompt, each of one speaker."""
        routes = self.route(prompts)
        texts: dict[int, str] = {}
        for place, speaker in enumerate(self.speakers):
            own = [n for n, route in enumerate(routes) if route == place]
            if own:
                said = _asked(speaker, [prompts[n] for n in own], f"speaker {place} of the router")
                self.calls[place] += len(own)
                texts.update(zip(own, said, strict=True))
        return [texts[n] for n in range(len(prompts))]


def _means(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each column without NaN; NaN for a column that has nothing else."""
    known = ~np.isnan(scores)
    totals = np.where(known, scores, 0.0).sum(0)
    return np.where(known.any(0), totals / np.maximum(known.sum(0), 1), np.nan)


class Similarity:
    """Cosine similarity to some texts by the TF-IDF of their pieces of three characters."""

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [_pieces(text) for text in texts]
        names = sorted(set().union(*counted)) if counted else []
        self._columns = {name: column for column, name in enumerate(names)}
        held = Counter(name for pieces in counted for name in pieces)
        self._weights = np.array([np.log((1 + len(texts)) / (1 + held[n])) + 1 for n in names])
        self._table = self._vectors(counted)

    def nearest(self, texts: Sequence[str], count: int) -> NDArray[np.intp]:
        """Return the indices of the `count` most similar texts to each, (n, count)."""
        likeness = self._vectors([_pieces(text) for text in texts]) @ self._table.T
        return np.argsort(-likeness, axis=1, kind="stable")[:, :count]

    def _vectors(self, counted: Sequence[Counter[str]]) -> NDArray[np.float64]:
        """Return unit vectors, (n, pieces); 0 for a text without a known piece."""
        table = np.zeros((len(counted), len(self._columns)))
        for row, pieces in enumerate(counted):
            for name, count in pieces.items():
                if name in self._columns:
                    column = self._columns[name]
                    table[row, column] = count * self._weights[column]
        norms: Any = np.linalg.norm(table, axis=1, keepdims=True)
        return table / np.where(norms == 0, 1.0, norms)


def _pieces(text: str) -> Counter[str]:
    plain = " ".join(text.lower().split())
    return Counter(plain[n : n + NGRAM] for n in range(max(1, len(plain) - NGRAM + 1)))
