"""Messages to imitate from a file of transcripts: what each agent read, and what it said then.

The file has a transcript per line, as `Transcript.to_json` writes it; ``transcripts/train.jsonl``
of a run is one. The game is replayed, so that every prompt is what the agent would read in this
run. Texts become tokens as foreign text does: no control token comes out of them.

What a person wrote, edited or struck out (`Message.person`) is read by the others, as it was, and
never imitated; nor is a message that was sent back, whose author read a note that is not here.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from pathlib import Path

from maporl_agents.models.team import Team
from maporl_agents.play.speak import requests
from maporl_agents.training.given_lines import given_lines
from maporl_agents.types import Completion, StopReason, TokenIds
from maporl_agents.update.batching import Row
from maporl_env.answers import KINDS
from maporl_env.batched import BatchedDebate
from maporl_env.types import Message, Touch, Transcript
from maporl_env.user_functions import function_named, is_own_name

TOUCHES = typing.get_args(Touch)


def rows_of(team: Team, debates: BatchedDebate, source: str) -> tuple[list[Row], int]:
    """Return a row per message of a trained agent and turn, and the number of transcripts.

    Args:
        team: that imitates.
        debates: the game.
        source: of the transcripts: a file, or a function by its name.

    Raises:
        ValueError: as `numbered_transcripts`, `made_transcripts` and `given_rows`; names the line.
    """
    if is_own_name(source):
        numbered, kind = list(enumerate(made_transcripts(source), start=1)), "transcript"
    else:
        numbered, kind = numbered_transcripts(Path(source)), "line"
    places = [f"{kind} {number} of {source!r}" for number, _ in numbered]
    return given_rows(team, debates, [one for _, one in numbered], places), len(numbered)


def made_transcripts(name: str) -> list[Transcript]:
    """Return the transcripts that a function makes, ``module:name`` or ``file.py:name``.

    Raises:
        ValueError: there is no such function, it raised, or what it returned are no transcripts.
    """
    function = function_named(name)
    try:
        made = function()
    except Exception as error:  # a user's function may raise anything
        raise ValueError(
            f"warmup.transcripts: {name!r} raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, Sequence) or not made:
        raise ValueError(f"warmup.transcripts: {name!r} must return a list of transcripts")
    for number, one in enumerate(made, start=1):
        if not isinstance(one, Transcript):
            raise ValueError(
                f"warmup.transcripts: transcript {number} of {name!r} is a {type(one).__name__}, "
                "not a maporl_env.types.Transcript"
            )
    return [_plain(one) for one in made]


def read_transcripts(path: Path) -> list[Transcript]:
    """Return the transcripts of a file; ValueError as `numbered_transcripts`."""
    return [transcript for _, transcript in numbered_transcripts(path)]


def numbered_transcripts(path: Path) -> list[tuple[int, Transcript]]:
    """Return the transcripts of a file with their lines, counted from 1.

    Raises:
        ValueError: the file cannot be read, is empty, or a line is no transcript; names the line.
    """
    return given_lines(
        path,
        lambda line: _plain(Transcript.from_dict(line)),
        setting="warmup.transcripts",
        kind="transcript",
        writer="Transcript.to_json",
    )


def _plain(transcript: Transcript) -> Transcript:
    """Return a transcript whose parts are of their types.

    Raises:
        ValueError: a part is not; names it.
    """
    question = transcript.question
    for name in ("id", "prompt", "answer"):
        if not isinstance(getattr(question, name), str):
            raise ValueError(f"its question's {name} is no text")
    if question.kind not in KINDS:
        raise ValueError(f"its question is of an unknown kind, {question.kind!r}")
    for place, message in enumerate(transcript.messages, start=1):
        if not isinstance(message.text, str) or not isinstance(message.agent, str):
            raise ValueError(f"the text or agent of message {place} is no text")
        if not isinstance(message.turn, int):
            raise ValueError(f"the turn of message {place} is no whole number")
        if not isinstance(message.score, (int, float, type(None))):
            raise ValueError(f"the score of message {place} is no number")
        if message.person not in TOUCHES:
            raise ValueError(f"message {place} has no known mark of a person: {message.person!r}")
    return transcript


def given_rows(
    team: Team,
    debates: BatchedDebate,
    transcripts: Sequence[Transcript],
    places: Sequence[str] = (),
) -> list[Row]:
    """Return a row per own message of a trained agent and turn; its `reward` is 0.

    Args:
        team: that imitates.
        debates: the game.
        transcripts: of it.
        places: where each transcript stands, for errors; () for their numbers.

    Raises:
        ValueError: a transcript has other agents than the game, more turns, or another order of
            messages than the protocol.
    """
    rows: list[Row] = []
    for episode, transcript in enumerate(transcripts):
        place = places[episode] if places else f"transcript {episode + 1}"
        if transcript.agents != debates.agents:
            raise ValueError(
                f"warmup.transcripts: {place} has the agents "
                f"{', '.join(map(str, transcript.agents))}, the game {', '.join(debates.agents)}"
            )
        try:
            rows += _rows_of(team, debates, transcript, episode)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"warmup.transcripts: {place} does not follow the rules of this game: {error}"
            ) from error
    return rows


def _rows_of(
    team: Team, debates: BatchedDebate, transcript: Transcript, episode: int
) -> Iterator[Row]:
    """Yield the rows of a transcript, round by round."""
    own: dict[int, list[TokenIds]] = {}
    left = list(transcript.messages)
    said: list[Message] = []
    while left:
        history = Transcript(transcript.question, transcript.agents, tuple(said))
        debates.take_over([debates.game.restore(history)])
        prompts = debates.prompts()
        now = {message.agent: message for message in left[: len(prompts)]}
        if not prompts or now.keys() != {prompt.agent for prompt in prompts}:
            raise ValueError(f"message {len(said) + 1} is by {left[0].agent}, who may not speak")
        earlier = [own.get(prompt.agent_index, []) for prompt in prompts]
        for prompt, request in zip(prompts, requests(team, prompts, earlier), strict=True):
            message = now[prompt.agent]
            completion = _completion(team, request.policy, message)
            own.setdefault(prompt.agent_index, []).append(completion.ids)
            if team.trains(prompt.agent_index, prompt.turn) and not message.person:
                place = (episode, prompt.turn, prompt.agent_index)
                yield Row(request.prompt, completion, request.policy, *place, 0.0)
        said += left[: len(prompts)]
        left = left[len(prompts) :]


def _completion(team: Team, policy: str, message: Message) -> Completion:
    """Return a message as the tokens that a policy would have sampled for it."""
    chat = team.base_of(policy).chat
    ids: list[int] = []
    results: list[tuple[int, int]] = []
    start = 0
    for place, text in message.results:
        ids += chat.encode(message.text[start:place])
        result = chat.encode(text)
        results.append((len(ids), len(ids) + len(result)))
        ids += result
        start = place
    ids += chat.encode(message.text[start:])
    end = chat.end_id
    if end is not None and not message.cut:
        ids.append(end)
    if not ids:
        raise ValueError(f"the message of {message.agent} in turn {message.turn + 1} is empty")
    stop = StopReason.LENGTH if message.cut else StopReason.EOS
    zeros = (0.0,) * len(ids)
    return Completion(tuple(ids), zeros, message.said, stop, results=tuple(results))
