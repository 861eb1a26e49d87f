"""A Python function as a verifier, with a time limit."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import typing
from collections.abc import Callable, Sequence
from typing import Any

from maporl_env.types import Question
from maporl_env.verifiers.base import ScoreFunction
from maporl_env.verifiers.faults import as_list


class VerifierTimeout(TimeoutError):
    """A verifier did not answer in time."""


class FunctionVerifier:
    """Any Python function as a verifier, with a time-out.

    A call that hangs is abandoned after `timeout_seconds`. A thread cannot be stopped: it goes on
    as a daemon, which does not keep the program alive. A process is killed.

    Args:
        function: `(questions, responses) -> scores`.
        timeout_seconds: limit for one batch; None for no limit, then the caller's thread is used.
        isolate: "thread", or "process" (the function and its results must be picklable).
    """

    def __init__(
        self,
        function: ScoreFunction,
        timeout_seconds: float | None = None,
        isolate: typing.Literal["thread", "process"] = "thread",
    ) -> None:
        if not callable(function):
            raise ValueError(f"a verifier function must be callable, not {function!r}")
        if timeout_seconds is not None and not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be > 0 or None, not {timeout_seconds!r}")
        if isolate not in ("thread", "process"):
            raise ValueError(f"unknown isolate {isolate!r}: choose one of thread, process")
        self.function = function
        self.timeout_seconds = timeout_seconds
        self.isolate = isolate

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> Sequence[float]:
        """Call the function; VerifierTimeout if it takes too long, its own errors otherwise."""
        if self.timeout_seconds is None:
            return self.function(questions, responses)
        run = _run_in_thread if self.isolate == "thread" else _run_in_process
        scores: Sequence[float] = run(
            _listed, (self.function, list(questions), list(responses)), self.timeout_seconds
        )
        return scores


def _listed(
    function: ScoreFunction, questions: Sequence[Question], responses: Sequence[str]
) -> list[Any]:
    """Call a function and read all its scores: an iterator may take as long as the call."""
    return as_list(function(questions, responses), len(responses))


def _run_in_thread(function: Callable[..., Any], args: tuple[Any, ...], seconds: float) -> Any:
    results: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
    threading.Thread(target=_report, args=(results.put, function, args), daemon=True).start()
    try:
        return _unwrap(results.get(timeout=seconds))
    except queue.Empty:
        raise VerifierTimeout(f"the verifier gave no answer in {seconds} s") from None


def _run_in_process(function: Callable[..., Any], args: tuple[Any, ...], seconds: float) -> Any:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(there.send, function, args), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            raise VerifierTimeout(f"the verifier gave no answer in {seconds} s")
        return _unwrap(here.recv())
    except EOFError:
        raise RuntimeError("the verifier's process died without an answer") from None
    finally:
        process.kill()
        process.join()
        here.close()


def _report(send: Callable[[Any], None], function: Callable[..., Any], args: Any) -> None:
    try:
        result = (True, function(*args))
    except BaseException as error:
        result = (False, error)
    try:
        send(result)
    except Exception as error:
        send((False, RuntimeError(f"the verifier's result cannot be sent back: {error}")))


def _unwrap(report: tuple[bool, Any]) -> Any:
    fine, result = report
    if fine:
        return result
    raise result
