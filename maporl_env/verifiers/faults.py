"""Calls of a verifier, which may return or raise anything.

Whatever it raises is a fault of the verifier and ends nothing, `SystemExit` included. One exception
is let through: what the handler of a signal raised during the call, as at Ctrl-C, is not its own.
"""

from __future__ import annotations

import math
import numbers
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from decimal import Decimal
from itertools import islice
from types import CodeType
from typing import Any, TypeVar

Result = TypeVar("Result")
MAX_DETAIL = 1_000


def attempt(function: Callable[[], Result]) -> tuple[Result | None, BaseException | None]:
    """Return (result, None) of a function, or (None, error) if it raises.

    Raises:
        BaseException: what a handler of signals raised that was there before the call.
    """
    if threading.current_thread() is not threading.main_thread():
        return _attempt(function, frozenset())  # handlers run in the main thread alone
    with _visible_interrupt():
        return _attempt(function, _handlers())


def _attempt(
    function: Callable[[], Result], handlers: frozenset[CodeType]
) -> tuple[Result | None, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:
        if handlers and _is_from_outside(error, handlers):
            raise
        return None, error


def _interrupt(number: int, frame: object) -> None:
    """As `signal.default_int_handler`, but written in Python, so that a traceback shows it."""
    raise KeyboardInterrupt


@contextmanager
def _visible_interrupt() -> Iterator[None]:
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _handlers() -> frozenset[CodeType]:
    """The code of each handler of a signal that is written in Python."""
    codes = {_interrupt.__code__}
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler):
            called = getattr(handler, "func", handler)  # of a functools.partial
            code = getattr(called, "__code__", None) or getattr(
                type(called).__call__, "__code__", 0
            )
            codes |= {code} if isinstance(code, CodeType) else set()
    return frozenset(codes)


def _is_from_outside(error: BaseException, handlers: frozenset[CodeType]) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        trace = trace.tb_next
    # Python's own handler leaves no trace; it is there if it was put back during the call.
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return default and isinstance(error, KeyboardInterrupt)


def say(error: BaseException, clean: Callable[[str], str] = str) -> str:
    """Return type and message of an exception; its type alone if its message cannot be read.

    Args:
        error: the exception.
        clean: what is said of its message, before the end of a long one is cut.
    """
    try:
        return f"{type(error).__name__}: {clean(str(error))}"[:MAX_DETAIL]
    except BaseException:
        return type(error).__name__


def as_list(given: Any, count: int) -> list[Any]:
    """Return scores as a list: from a sequence, an array or tensor, or an iterator.

    Of an iterator at most one more than `count` is read.

    Raises:
        TypeError: what was given has no order (a set, a mapping), is a text, or no iterable.
    """
    if isinstance(given, Mapping | Set | str | bytes | bytearray):
        raise TypeError(f"the verifier returned a {type(given).__name__}, not a list of scores")
    if callable(getattr(given, "detach", None)):  # a tensor, which may belong to a graph
        given = given.detach()
    if callable(getattr(given, "tolist", None)):  # an array: faster than element by element
        given = given.tolist()
    return list(islice(given, count + 1))


def judge(value: Any) -> tuple[str | None, float | None]:
    """Return (None, score) for a sound score, (cause of the fault, None) for anything else.

    Scores are real numbers in [0, 1] of any type: built in, of numpy, arrays and tensors without
    dimensions, `Fraction`, `Decimal`.
    """
    if value is None:
        return "no score", None
    try:
        real = _scalar(value)
        if not isinstance(real, _REAL):
            return "not a number", None
        number, fits = float(real), 0 <= real <= 1
    except OverflowError:  # an integer too large for a float
        return "out of range", None
    except Exception:  # such as a signalling NaN
        return "not a number", None
    if math.isnan(number):
        return "not a number", None
    return (None, number) if fits else ("out of range", None)


_REAL: tuple[Any, ...] = (numbers.Real, Decimal)


def _scalar(value: Any) -> Any:
    """Return the number in an array or tensor without dimensions; other values unchanged."""
    if getattr(value, "shape", None) != ():
        return value
    if callable(getattr(value, "detach", None)):
        value = value.detach()
    return value.item() if callable(getattr(value, "item", None)) else float(value)
