"""Runs trusted tests against a function that lives in the worker.

The tests run here unchanged, but for each `assert`, which is counted: one that fails does not hide
those after it. A constant (`assert True`) tests nothing and is not counted.
"""

from __future__ import annotations

import ast
import builtins
import types
from typing import Any

from . import frames

Message = dict[str, Any]
_COUNTER = "__counted__"
MAX_DETAIL = 500


class WorkerDied(BaseException):
    """The worker is gone or talks nonsense. No `except Exception` of a test may swallow it."""


class Remote:
    """A function of the program, called through pipes."""

    def __init__(self, name: str, requests: int, replies: int) -> None:
        self.name, self.requests, self.replies = name, requests, replies

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Return what the program's function returns, made anew from plain data.

        Raises:
            Exception: what the function raised, if it is built in; else RuntimeError.
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
        except (ValueError, TypeError, KeyError, MemoryError) as error:
            raise WorkerDied(f"the program sent no sound answer ({error})") from error
        kind = getattr(builtins, raised, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                failure = kind(detail)
            except TypeError:  # such as UnicodeDecodeError, which wants more than a text
                failure = RuntimeError(f"{raised}: {detail}")
            raise failure
        raise RuntimeError(f"{raised}: {detail}")


class Tally:
    """A context manager around each assertion; counts and goes on."""

    def __init__(self) -> None:
        self.passed = self.failed = 0
        self.first = ""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> bool:
        """Count; only errors of the test itself stop here."""
        if error is None:
            self.passed += 1
            return False
        if not isinstance(error, Exception):
            return False
        self.failed += 1
        self.first = self.first or _say(error)
        return True


class _Count(ast.NodeTransformer):
    """Puts each assertion that tests something into `with __counted__:`."""

    def __init__(self) -> None:
        self.found = 0

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        if isinstance(node.test, ast.Constant):
            return node
        self.found += 1
        item = ast.withitem(ast.Name(_COUNTER, ast.Load()))
        return ast.copy_location(ast.With([item], [node]), node)


def compile_tests(tests: str) -> tuple[types.CodeType, int]:
    """Return tests with counted assertions, and how many there are; SyntaxError, ValueError."""
    count = _Count()
    tree = ast.fix_missing_locations(count.visit(ast.parse(tests, "<tests>")))
    if not count.found:
        raise ValueError("the tests assert nothing")
    return compile(tree, "<tests>", "exec", dont_inherit=True), count.found


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
    try:
        exec(code, names)
    except Exception as error:  # outside an assertion
        tally.failed += 1
        tally.first = tally.first or _say(error)
    executed = tally.passed + tally.failed
    fine = tally.passed == executed > 0  # an assertion in a branch not taken is none
    return {
        "outcome": "passed" if fine else "failed",
        "passed": tally.passed,
        "total": executed if fine else max(executed, found),
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
