"""Runs trusted tests against a function that lives in the worker.

The tests run here unchanged, but for each `assert`, which is counted: one that fails does not hide
those after it. A constant (`assert True`) tests nothing and is not counted. An assertion in a loop
is one, however often it runs, so that a program cannot add to the count by returning a long list.
"""

from __future__ import annotations

import ast
import builtins
import sys
import types
from collections.abc import Hashable
from typing import Any

from . import frames

Message = dict[str, Any]
_COUNTER = "__counted__"
_FILE = "<tests>"
_ENDS_ITERATION = (StopIteration, StopAsyncIteration)
MAX_DETAIL = 500
MAX_CALLERS = 100


class WorkerDied(BaseException):
    """The worker is gone or talks nonsense. No `except Exception` of a test may swallow it."""


class Remote:
    """A function of the program, called through pipes."""

    def __init__(self, name: str, requests: int, replies: int) -> None:
        self.name, self.requests, self.replies = name, requests, replies

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Return the result of the program's function, rebuilt from plain data.

        Raises:
            Exception: what the function raised, if it is built in; else RuntimeError. So is what
                ends an iteration without an error: in `map`, `zip`, `next`, `iter` it would end
                the tests (generators treat it likewise, PEP 479).
            WorkerDied: there is no sound answer.
        """
        call = {
            "name": self.name,
            "arguments": frames.pack(arguments),
            "keywords": frames.pack(keywords),
        }
        try:
            frames.send(self.requests, call)
        except OSError as error:
            raise WorkerDied("the program ended itself") from error
        return self.answer()

    def answer(self) -> Any:
        """Return the next answer of the worker; errors as for a call."""
        try:
            reply = frames.receive(self.replies)
            if isinstance(reply, dict) and reply.keys() == {"value"}:
                return frames.unpack(reply["value"])
            raised, detail = str(reply["raised"]), str(reply["detail"])
        except EOFError as error:
            raise WorkerDied("the program ended itself") from error
        except (ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
            raise WorkerDied(f"the program sent no sound answer ({error})") from error
        kind = getattr(builtins, raised, None)
        if (
            isinstance(kind, type)
            and issubclass(kind, Exception)
            and not issubclass(kind, _ENDS_ITERATION)
        ):
            try:
                failure = kind(detail)
            except TypeError:  # such as UnicodeDecodeError, which wants more than a text
                failure = RuntimeError(f"{raised}: {detail}")
            raise failure
        raise RuntimeError(f"{raised}: {detail}")


class Tally:
    """Counts assertions.

    Attributes:
        held: for each assertion that ran, whether it held, one entry per run. One written in a
            helper of the tests counts once for each place from which it was called.
        reached: numbers of the assertions that ran.
        first: the first error in words.
    """

    def __init__(self) -> None:
        self.held: dict[Hashable, list[int]] = {}
        self.reached: set[int] = set()
        self.first = ""

    def __call__(self, number: int) -> _Assertion:
        """Return a context manager around one run of an assertion."""
        self.reached.add(number)
        return _Assertion(self, self.held.setdefault((number, _callers()), [0, 0]))

    def fail(self, error: Exception) -> None:
        """Keep the first error."""
        self.first = self.first or _say(error)


def _callers() -> frozenset[tuple[types.CodeType, int]]:
    """From where in the tests the function is called that is running an assertion."""
    found = set()
    frame = sys._getframe(2).f_back  # beyond the function itself
    for _ in range(MAX_CALLERS):
        if frame is None:
            break
        if frame.f_code.co_filename == _FILE:
            found.add((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return frozenset(found)


class _Assertion:
    """Count one run of an assertion, and go on with the tests."""

    def __init__(self, tally: Tally, runs: list[int]) -> None:
        self.tally, self.runs = tally, runs  # runs: those that held, and all

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> bool:
        """Count; only errors of the test itself stop here."""
        self.runs[1] += 1
        if error is None:
            self.runs[0] += 1
        elif isinstance(error, Exception):
            self.tally.fail(error)
        return isinstance(error, Exception)


class _Count(ast.NodeTransformer):
    """Puts each assertion that tests something into `with __counted__(its number):`."""

    def __init__(self) -> None:
        self.found = 0

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        if isinstance(node.test, ast.Constant):
            return node
        number = ast.Constant(self.found)
        self.found += 1
        item = ast.withitem(ast.Call(ast.Name(_COUNTER, ast.Load()), [number], []))
        return ast.copy_location(ast.With([item], [node]), node)


def compile_tests(tests: str) -> tuple[types.CodeType, int]:
    """Return tests with counted assertions, and how many there are; SyntaxError, ValueError."""
    count = _Count()
    tree = ast.fix_missing_locations(count.visit(ast.parse(tests, _FILE)))
    if not count.found:
        raise ValueError("the tests assert nothing")
    return compile(tree, _FILE, "exec", dont_inherit=True), count.found


def check(job: Message, requests: int, replies: int) -> Message:
    """Return the verdict on the program at the other end of the pipes."""
    remote = Remote(job["name"], requests, replies)
    try:
        remote.answer()
    except WorkerDied as error:
        return {"outcome": "died", "detail": str(error)}
    except Exception as error:
        return {"outcome": "failed", "detail": _say(error)}
    try:
        return _value(remote, job["arguments"]) if job["tests"] is None else _run(remote, job)
    except WorkerDied as error:
        return {"outcome": "died", "detail": str(error)}


def _value(remote: Remote, arguments: Any) -> Message:
    try:
        value = remote(*frames.unpack(arguments))
        return {"outcome": "passed", "value": frames.pack(value), "detail": ""}
    except Exception as error:
        return {"outcome": "failed", "detail": _say(error)}


def _run(remote: Remote, job: Message) -> Message:
    try:
        code, found = compile_tests(job["tests"])
    except (SyntaxError, ValueError) as error:
        return {"outcome": "invalid", "detail": _say(error)}
    tally = Tally()
    names = _Names({"__name__": "tests", _COUNTER: tally}, job["name"], remote)
    ended = True
    try:
        exec(code, names)
    except Exception as error:  # outside an assertion
        ended = False
        tally.fail(error)
    return _verdict(tally, found, ended)


def _verdict(tally: Tally, found: int, ended: bool) -> Message:
    """Return the verdict; `ended` says whether the tests ran to their end, without an error."""
    shares = [held / runs if runs else 0.0 for held, runs in tally.held.values()]
    passed = shares.count(1.0)
    fine = ended and passed == len(shares) > 0  # an assertion in a branch not taken is none
    missing = 0 if fine else max(found - len(tally.reached), int(not ended))
    total = len(shares) + missing
    return {
        "outcome": "passed" if fine else "failed",
        "passed": passed,
        "total": total,
        "share": 1.0 if fine else sum(shares) / max(1, total),
        "detail": tally.first,
    }


class _Names(dict[str, Any]):
    """The tests' global names, in which the function under test cannot be defined anew."""

    def __init__(self, names: dict[str, Any], name: str, remote: Remote) -> None:
        super().__init__(names | {name: remote})
        self.name = name

    def __setitem__(self, name: str, value: Any) -> None:
        if name != self.name:
            super().__setitem__(name, value)


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_DETAIL]
