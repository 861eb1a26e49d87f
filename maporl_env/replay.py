r"""Debates played by recorded text.

    recordings = replay.load("example_model_solutions.jsonl")
    batch = replay.start(recordings[:64])
    recorded = Recorded(recordings[:64])
    while prompts := batch.prompts():
        batch.step(recorded(prompts))

The agents are the recorded speakers; each message is exactly the text in the file.
In a debate of more turns than were recorded an agent holds its last text. Reading, voting, credit
and rendering are those of any debate.

Two kinds of file are read, told apart by their columns:

- GSM8K's `example_model_solutions.jsonl`: `question`, `ground_truth`, and one object per model
  with `solution` and `is_correct`. These texts mark their answer by a last line `A: 34`, so their
  questions are of kind "last_line".
- Transcripts as this package writes them (`Transcript.to_json`, one per line).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from maporl_env.answers import last_line_answer, read_gold
from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.prompts import Template
from maporl_env.tasks.files import read_rows
from maporl_env.tasks.splits import Row
from maporl_env.types import AgentID, Question, Touch, Transcript

LAST_LINE_TEMPLATE = Template(instruction="End with your final answer on a line of its own: A: 34")

Value = TypeVar("Value", str, bool)


@dataclass(frozen=True, slots=True)
class Recording:
    """One question and the messages about it. Made by :func:`load`, played by `Recorded`.

    Attributes:
        question: what was asked.
        speakers: the name of each agent's speaker.
        texts: per agent, one text per turn in which it spoke.
        turns: per agent, these turns, ascending; () for 0, 1, 2, ... of agents that all spoke.
        persons: (turn, agent, what a person did to its message), where one did; see `Touch`.
        marks: per agent, whether the source calls its last text right; () if it does not say.
    """

    question: Question
    speakers: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    marks: tuple[bool, ...] = ()
    turns: tuple[tuple[int, ...], ...] = ()
    persons: tuple[tuple[int, AgentID, Touch], ...] = ()

    def __post_init__(self) -> None:
        somebody = any(self.texts) if self.turns else all(self.texts)
        if not self.texts or len(self.texts) != len(self.speakers) or not somebody:
            raise ValueError(
                f"recording of {self.question.id!r}: every speaker needs at least one text; got "
                f"{len(self.speakers)} speakers with {[len(said) for said in self.texts]} texts"
            )

    @classmethod
    def of_transcript(cls, transcript: Transcript) -> Recording:
        """Return the messages of a debate, turn by turn."""
        agents, messages = transcript.agents, transcript.messages
        texts = tuple(transcript.texts_of(agent) for agent in agents)
        persons = tuple((m.turn, m.agent, m.person) for m in transcript.intervened)
        if transcript.ends is None:
            return cls(transcript.question, agents, texts, persons=persons)
        turns = tuple(tuple(m.turn for m in messages if m.agent == agent) for agent in agents)
        return cls(transcript.question, agents, texts, turns=turns, persons=persons)

    def marked(self, transcript: Transcript) -> Transcript:
        """Return a replay of this recording with the marks of what a person did."""
        found = {(turn, agent): what for turn, agent, what in self.persons}
        messages = (
            replace(message, person=found.get((message.turn, message.agent), ""))
            for message in transcript.messages
        )
        return replace(transcript, messages=tuple(messages))

    @property
    def num_turns(self) -> int:
        """The number of turns that were recorded: by default the most texts of one speaker."""
        return (
            1 + max(map(max, filter(None, self.turns))) if self.turns else max(map(len, self.texts))
        )

    def text(self, agent_index: int, turn: int) -> str:
        """Return an agent's text in a turn (0-based): the recorded one, else its last before it.

        "" if it has said nothing.
        """
        said = self.texts[agent_index]
        if self.turns:
            said = said[: bisect_right(self.turns[agent_index], turn) or 1]
        return said[min(turn, len(said) - 1)] if said else ""

    def messages(self, turn: int) -> dict[AgentID, str]:
        """Return all agents' messages of a turn, as the Parallel environment takes them."""
        return {f"agent_{agent}": self.text(agent, turn) for agent in range(len(self.texts))}


class Recorded:
    """Agents that speak from recordings: the i-th recording is played in the i-th debate.

    Args:
        recordings: one per debate of a batch.
    """

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self.recordings = tuple(recordings)

    def __call__(self, prompts: Iterable[Prompt]) -> list[str]:
        """Return the recorded text for each prompt of a `BatchedDebate`."""
        return [self.recordings[p.debate].text(p.agent_index, p.turn) for p in prompts]


def start(
    recordings: Sequence[Recording], num_turns: int | None = None, **options: Any
) -> BatchedDebate:
    """Return a batch that is ready to play the recordings' questions.

    Args:
        recordings: of equally many speakers.
        num_turns: the horizon T; None for as many turns as were recorded.
        options: of `DebateConfig`, except task and num_agents, which the recordings give.

    Raises:
        ValueError: no recordings, or of different numbers of speakers.
    """
    widths = sorted({len(recording.speakers) for recording in recordings})
    if len(widths) != 1:
        raise ValueError(f"recordings must be of equally many speakers, got {widths or 'none'}")
    questions = [recording.question for recording in recordings]
    if all(question.kind == "last_line" for question in questions):
        options = {"template": LAST_LINE_TEMPLATE, **options}
    turns = num_turns if num_turns is not None else max(r.num_turns for r in recordings)
    config = DebateConfig(task=questions, num_agents=widths[0], num_turns=turns, **options)
    batch = BatchedDebate(config, len(questions))
    batch.reset(questions)
    return batch


def play(
    recordings: Sequence[Recording], num_turns: int | None = None, **options: Any
) -> BatchedDebate:
    """Play recordings to the end; arguments and errors are those of :func:`start`."""
    batch, recorded = start(recordings, num_turns, **options), Recorded(recordings)
    while prompts := batch.prompts():
        batch.step(recorded(prompts))
    return batch


def load(path: str | Path) -> list[Recording]:
    """Return the recordings of a file; the module docstring describes its format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an empty file, or a row that is no recording (with file and line number).
    """
    path = Path(path)
    recordings = []
    for index, (where, row) in enumerate(read_rows(path)):
        try:
            recordings.append(_recording(row, f"{path.stem}/{index}"))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{where}: {error}") from error
    if not recordings:
        raise ValueError(f"{path} holds no recording")
    return recordings


def _recording(row: Row, name: str) -> Recording:
    if {"question", "agents", "messages"} <= row.keys():
        recording = Recording.of_transcript(Transcript.from_dict(row))
        read_gold(recording.question.answer, recording.question.kind)
        return recording
    solved = {model: said for model, said in row.items() if isinstance(said, dict)}
    if not {"question", "ground_truth"} <= row.keys() or not solved:
        raise ValueError(
            "a recording has question, ground_truth and an object with solution and is_correct per "
            f"model, or is a transcript; this row has {', '.join(map(str, row)) or 'nothing'}"
        )
    worked = _field(row, "ground_truth", str)
    gold = last_line_answer(worked)
    if gold is None:
        raise ValueError(f"ground_truth has no last line 'A: N' but {worked[-40:]!r}")
    return Recording(
        question=Question(name, _field(row, "question", str), str(gold), "last_line"),
        speakers=tuple(solved),
        texts=tuple((_field(said, "solution", str),) for said in solved.values()),
        marks=tuple(_field(said, "is_correct", bool) for said in solved.values()),
    )


def _field(row: Row, name: str, kind: type[Value]) -> Value:
    value = row.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of type {kind.__name__}, not {value!r}")
    return value
