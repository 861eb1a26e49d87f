"""The queue behind the verifier service: requests from an event loop, scored in one thread."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, fields

from maporl_env.types import Question
from maporl_env.verifiers import Scorer, VerifierLike

Scores = list[float | None]


@dataclass(frozen=True)
class Limits:
    """Limits of a service. A request beyond them is refused, never shortened."""

    max_bytes: int = 4_000_000
    """Of one request."""
    max_items: int = 256
    """Responses in one request."""
    max_chars: int = 100_000
    """Of one text."""
    max_waiting: int = 4_096
    """Responses that wait or are being scored; beyond them the answer is 503."""
    max_connections: int = 512
    """Connections at a time. A further one takes the place of the one that has waited longest for
    its client; where none waits, the answer is 503."""
    max_client_connections: int = 128
    """Connections of one address at a time, with the same rule."""
    batch_items: int = 64
    """Responses that are scored together, where several requests wait."""
    receive_seconds: float = 10.0
    """For the head of a request to arrive, and for its body."""
    answer_seconds: float = 60.0
    """For it to be scored; beyond them the answer is 504."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name} must be a finite number > 0, not {value!r}")
        if self.max_waiting < self.max_items:
            raise ValueError(
                f"max_waiting={self.max_waiting} must be at least max_items={self.max_items}: "
                "a full request would never be taken"
            )


class Refusal(Exception):
    """A request that is not answered with scores.

    Attributes:
        status: of HTTP.
        kind: one word for programs.
        message: one sentence for people; holds no text of the request.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


@dataclass(eq=False)
class _Job:
    """One request in the queue, and where its scores are awaited."""

    questions: Sequence[Question]
    responses: Sequence[str]
    loop: asyncio.AbstractEventLoop
    scores: asyncio.Future[Scores]

    def deliver(self, scores: Scores | Refusal) -> None:
        """Pass the scores to the request, if it still waits; called from the scoring thread."""
        try:
            self.loop.call_soon_threadsafe(self._set, scores)
        except RuntimeError:
            return  # the loop has closed: the service was shut down

    def _set(self, scores: Scores | Refusal) -> None:
        if self.scores.done():
            return
        if isinstance(scores, Refusal):
            self.scores.set_exception(scores)
        else:
            self.scores.set_result(scores)


class ScoreQueue:
    """Takes requests, scores them in order of arrival and in batches, in a thread of its own.

    A verifier that never returns holds up that thread alone: requests are then answered with 504
    and 503, and `busy_seconds` grows. Whatever a verifier raises, SystemExit included, is a fault
    of its batch. Should the thread end all the same, all requests are answered with 500 at once,
    and `dead` says so. The thread does not keep the program alive.

    Args:
        verifier: what scores.
        limits: sizes of the queue and its times.

    Attributes:
        scored: responses that got a score.
        batches: calls of the verifier.
        waiting: responses that wait or are being scored.
        dead: whether the scoring thread has ended without being told to.
    """

    def __init__(self, verifier: VerifierLike, limits: Limits) -> None:
        self.limits = limits
        self.scored = self.batches = self.waiting = 0
        self._scorer = Scorer(verifier)
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = self.dead = False
        self._taken: list[_Job] = []
        self._busy_since: float | None = None

    @property
    def faults(self) -> Counter[str]:
        """Responses without a score, by cause; see `maporl_env.verifiers.Scorer`."""
        return self._scorer.faults

    def start(self) -> None:
        """Start the scoring thread."""
        threading.Thread(target=self._work, name="verifier", daemon=True).start()

    def close(self) -> None:
        """Let the scoring thread end after the batch it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def busy_seconds(self) -> float:
        """Return the seconds the verifier has spent on its present batch; 0 if it is idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def score(self, questions: Sequence[Question], responses: Sequence[str]) -> Scores:
        """Return the scores of one request.

        Raises:
            Refusal: too much waits already (503), scoring took too long (504), or the scoring
                thread has ended (500).
        """
        loop = asyncio.get_running_loop()
        job = _Job(questions, responses, loop, loop.create_future())
        self._put(job)
        try:
            return await asyncio.wait_for(job.scores, self.limits.answer_seconds)
        except asyncio.TimeoutError:
            raise Refusal(
                504, "timed_out", f"not scored within {self.limits.answer_seconds} s"
            ) from None
        finally:
            self._withdraw(job)

    def _put(self, job: _Job) -> None:
        with self._changed:
            if self.dead:
                raise _dead()
            if self.waiting + len(job.responses) > self.limits.max_waiting:
                raise Refusal(503, "busy", f"{self.waiting} responses wait already: try again")
            self.waiting += len(job.responses)
            self._jobs.append(job)
            self._changed.notify()

    def _withdraw(self, job: _Job) -> None:
        """Take a request out of the count, and out of the queue if it is still in there."""
        with self._changed:
            self.waiting -= len(job.responses)
            if job in self._jobs:
                self._jobs.remove(job)

    def _work(self) -> None:
        try:
            while jobs := self._take():
                self._busy_since = time.monotonic()
                for job, scores in zip(jobs, self._judge(jobs), strict=True):
                    job.deliver(scores)
                self._busy_since = None
        finally:
            self._end()

    def _end(self) -> None:
        """Refuse all waiting requests after the scoring thread has ended."""
        with self._changed:
            self.dead = not self._closed
            self._busy_since = None
            for job in [*self._taken, *self._jobs]:
                job.deliver(_dead())

    def _take(self) -> list[_Job]:
        """Wait for requests and return those of the next batch, at least one; [] at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            jobs: list[_Job] = []
            self._taken = jobs
            room = self.limits.batch_items
            while self._jobs and (not jobs or len(self._jobs[0].responses) <= room):
                jobs.append(self._jobs.popleft())
                room -= len(jobs[-1].responses)
            return [] if self._closed else jobs

    def _judge(self, jobs: Sequence[_Job]) -> list[Scores]:
        """Score several requests together; should all of it fail, each by itself.

        So a request that the verifier chokes on does not cost its neighbours their scores.
        """
        questions = [question for job in jobs for question in job.questions]
        responses = [text for job in jobs for text in job.responses]
        before = Counter(self._scorer.faults)
        self.batches += 1
        scores = self._scorer.score(questions, responses)
        known = sum(score is not None for score in scores)
        if len(jobs) > 1 and responses and not known:
            self._scorer.faults = before
            return [self._judge([job])[0] for job in jobs]
        self.scored += known
        ends = [sum(len(job.responses) for job in jobs[: i + 1]) for i in range(len(jobs))]
        return [scores[end - len(job.responses) : end] for job, end in zip(jobs, ends, strict=True)]


def _dead() -> Refusal:
    return Refusal(500, "dead", "the scoring thread has ended: restart the service")
