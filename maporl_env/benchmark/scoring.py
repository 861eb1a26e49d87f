"""Scoring of the benchmark's fixed suite: players play its cases, debates are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maporl_env.answers import extract_answer, read_gold
from maporl_env.batched import BatchedDebate, Prompt
from maporl_env.benchmark.players import Players, Speak
from maporl_env.benchmark.results import CaseResult, Report, TurnResult, read_report, write_report
from maporl_env.benchmark.suite import CASES, Case
from maporl_env.debate import Debate
from maporl_env.intervals import clustered_mean
from maporl_env.protocols import Protocol
from maporl_env.types import Transcript
from maporl_env.user_functions import texts_of
from maporl_env.verifiers import Scorer, VerifierLike

BATCH = 100
"""Debates side by side, the same for all players: the noise of samplers may depend on it."""

Watch = Callable[[Case, int], None]
"""Called with a case and the number of its questions that are done."""


@dataclass(frozen=True)
class _Played:
    """One finished debate.

    Attributes:
        transcript: what was said.
        team: accuracy of the team's answer, by turn.
        reward: mean over agents of the sum of their rewards.
    """

    transcript: Transcript
    team: tuple[float, ...]
    reward: float


def score(
    players: Players,
    cases: Sequence[Case] = CASES,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    watch: Watch | None = None,
    verifier: VerifierLike | None = None,
    verifier_name: str = "",
) -> Report:
    """Let players play cases of the suite and return their report.

    Args:
        players: who plays; see `players`.
        cases: of the suite.
        out: a file that holds the report after every case. If it is there already, with the same
            players, its cases are not played again.
        overwrite: begin anew even so.
        watch: told about progress.
        verifier: gives the column "score" in place of the suite's own; accuracy and reward stay
            the suite's.
        verifier_name: of that verifier, kept in the report: results scored by different verifiers
            do not share a file.

    Raises:
        ValueError: a case that is not as the suite has it, players that can play no case or fail
            in one, or a file `out` that holds something else.
    """
    about = players.about | ({"verifier": verifier_name} if verifier_name else {})
    scorer = None if verifier is None else Scorer(verifier)
    report = _begin(players.name, about, out, overwrite)
    for case in cases:
        if case.name in report.cases:
            if watch is not None:
                watch(case, case.num_questions)
            continue
        case.require_sealed()
        if reason := players.refusal(case):
            report = replace(report, refused={**report.refused, case.name: reason})
        else:
            result = score_case(players, case, watch=watch, scorer=scorer)
            report = report.with_case(case.name, result)
        if out is not None and report.cases:
            write_report(out, report)
    if not report.cases:
        raise ValueError(f"{players.name!r} can play none of the cases: {_reasons(report)}")
    return report


def _reasons(report: Report) -> str:
    return "; ".join(dict.fromkeys(report.refused.values()))


def _begin(name: str, about: dict[str, Any], out: str | Path | None, overwrite: bool) -> Report:
    new = Report.begin(name, about)
    if out is None or overwrite or not Path(out).exists():
        return new
    there = read_report(out)
    if (there.name, there.about) != (name, about):
        raise ValueError(
            f"{out} holds results of {_described(there, new)}, not of "
            f"{_described(new, there)}: give another file, or overwrite it"
        )
    return replace(there, refused={})


def _described(who: Report, other: Report) -> str:
    """Return the name of players, with those entries of their description that others lack."""
    absent = object()
    own = {key: value for key, value in who.about.items() if other.about.get(key, absent) != value}
    return f"{who.name!r}" + (f" ({own})" if own else "")


def kept_cases(out: str | Path | None, overwrite: bool = False) -> tuple[str, ...]:
    """Return the cases whose results a file holds, which `score` does not play again."""
    if out is None or overwrite or not Path(out).exists():
        return ()
    return tuple(read_report(out).cases)


def told_of_file(out: str | Path, kept: Sequence[str], report: Report) -> str:
    """Return the closing line about a file of results, which names the new ones.

    Args:
        out: the file.
        kept: what `kept_cases` said of it before.
        report: what it holds now.
    """
    new = [name for name in report.cases if name not in kept]
    if not new:
        return (
            f"nothing was left to play: {out} held these results, begun {report.date}, already "
            "(--overwrite plays them again)"
        )
    return f"wrote {out}" + (f" (cases in it from before: {len(kept)})" if kept else "")


def score_case(
    players: Players,
    case: Case,
    *,
    watch: Watch | None = None,
    scorer: Scorer | None = None,
) -> CaseResult:
    """Let players debate every question of a case once, and measure.

    With a `scorer` the messages are scored by it once they are all written.

    Raises:
        ValueError: the players fail: they raise, or give no list of as many texts as prompts.
    """
    started = time.perf_counter()
    played: list[_Played] = []
    tokens: list[int] = []
    questions = case.questions()
    batch = BatchedDebate(case.config(), min(BATCH, len(questions)))
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        speak = players.speaker(case, part, case.seed + start)
        batch.reset(part)
        while prompts := batch.prompts():
            batch.step(_ask(players.name, speak, case, prompts))
        done = _finished(batch)
        played += done if scorer is None else _rescored(done, scorer, batch.game.protocol)
        tokens += [speak.tokens] if hasattr(speak, "tokens") else []
        if watch is not None:
            watch(case, len(played))
    messages = sum(len(one.transcript.messages) for one in played)
    clusters = [case.cluster_of(question) for question in questions]
    team_NT = np.array([one.team for one in played])
    return CaseResult(
        digest=case.digest,
        num_questions=len(played),
        turns=tuple(_turn(t, played, clusters) for t in range(case.num_turns)),
        gain=clustered_mean(list(team_NT[:, -1] - team_NT[:, 0]), clusters),
        reward=clustered_mean([one.reward for one in played], clusters),
        tokens=sum(tokens) / messages if tokens else None,
        seconds=round(time.perf_counter() - started, 2),
        by_question=tuple(one.team[-1] for one in played),
    )


def _ask(name: str, speak: Speak, case: Case, prompts: Sequence[Prompt]) -> list[str]:
    """Return the players' answers to prompts; raise one clear error for a wrong answer."""
    where = f"agents {name!r}, case {case.name}, turn {prompts[0].turn + 1}"
    try:
        texts = speak(prompts)
    except Exception as error:
        raise ValueError(f"{where}: they failed with {type(error).__name__}: {error}") from error
    return texts_of(texts, len(prompts), where)


def _finished(batch: BatchedDebate) -> Iterator[_Played]:
    rewards = batch.turn_rewards().sum(axis=1).mean(axis=1)
    for debate, reward in zip(batch.debates, rewards, strict=True):
        turns = range(debate.transcript.turn)
        team = tuple(_team_accuracy(debate, turn) for turn in turns)
        yield _Played(debate.transcript, team, float(reward))


def _rescored(played: Iterable[_Played], scorer: Scorer, protocol: Protocol) -> Iterator[_Played]:
    """Yield finished debates whose messages have the scores of another verifier.

    It reads what the protocol has scored: in "joint", say, the joined answer of a turn.
    """
    for one in played:
        history = one.transcript
        responses = [
            protocol.response(message.agent, history.until(message.turn + 1))
            for message in history.messages
        ]
        scores = scorer.score([history.question] * len(responses), responses)
        messages = (replace(m, score=x) for m, x in zip(history.messages, scores, strict=True))
        yield replace(one, transcript=replace(history, messages=tuple(messages)))


def _team_accuracy(debate: Debate, turn: int) -> float:
    """Return the chance that the team's answer after a turn, drawn from tied ones, is right."""
    transcript = debate.transcript
    question = transcript.question
    outcome = debate.protocol.outcome(transcript.until(turn + 1))
    gold = read_gold(question.answer, question.kind)
    return 1.0 / len(outcome) if gold in outcome else 0.0


def _turn(turn: int, played: Sequence[_Played], clusters: Sequence[object]) -> TurnResult:
    spoken = [one.transcript.of_turn(turn) for one in played]
    read = [
        [extract_answer(message.text, one.transcript.question.kind) for message in messages]
        for one, messages in zip(played, spoken, strict=True)
    ]
    golds = [read_gold(q.answer, q.kind) for q in (one.transcript.question for one in played)]
    right_NA = np.array(
        [[answer == gold for answer in row] for row, gold in zip(read, golds, strict=True)]
    )
    scored = [
        (float(np.mean(known)), cluster)
        for messages, cluster in zip(spoken, clusters, strict=True)
        if (known := [m.score for m in messages if m.score is not None])
    ]
    return TurnResult(
        team=clustered_mean([one.team[turn] for one in played], clusters),
        accuracy=clustered_mean(list(right_NA.mean(axis=1)), clusters),
        agents=tuple(float(share) for share in right_NA.mean(axis=0)),
        score=clustered_mean(*map(list, zip(*scored, strict=True))) if scored else None,
        words=float(np.mean([len(m.text.split()) for messages in spoken for m in messages])),
        invalid=float(np.mean([answer is None for row in read for answer in row])),
    )
