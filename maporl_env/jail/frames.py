"""Messages on pipes: a length of four bytes, then JSON. Values cross as plain data only.

A value of the program reaches the tests as a number, text, list, ... made anew from JSON, never as
an object: an `__eq__` that is always true stays behind in the worker. Whatever the worker sends is
hostile; every function here ends in the value or in ValueError (EOFError at the end of a pipe).
"""

from __future__ import annotations

import json
import math
import os
import select
import struct
import time
from collections.abc import Callable, Collection
from typing import Any

HEADER = struct.Struct(">I")
MAX_BYTES = 4_000_000  # of one frame
MAX_DEPTH = 60  # of nested values
MAX_BITS = 12_000  # of an integer in decimal digits: below Python's own limit for these, 4,300

_TAGS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": lambda pairs: {key: value for key, value in pairs},  # noqa: C416 - checks the pairs
    "bytes": bytes,
    "complex": lambda parts: complex(*parts),
    "int": lambda parts: int("".join(parts), 16),
}


def pack(value: Any, depth: int = 0) -> Any:
    """Return a value in a form that JSON can represent; ValueError if it is not plain data.

    Subclasses become their plain base: a Counter a dict, an IntEnum an int.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"the value is nested deeper than {MAX_DEPTH}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        value = int(value)
        return value if value.bit_length() <= MAX_BITS else {"int": [_hexadecimal(value)]}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [pack(item, depth + 1) for item in value]
    return {_tag(value): [pack(item, depth + 1) for item in _items(value)]}


def _hexadecimal(value: int) -> str:
    if value.bit_length() > 3 * MAX_BYTES:  # four bits are a character, and there may be others
        raise ValueError(f"an integer of {value.bit_length()} bits is too long to be sent")
    return hex(value)


def _tag(value: object) -> str:
    for kind in (tuple, set, frozenset, dict, bytes, complex):
        if isinstance(value, kind):
            return kind.__name__
    raise ValueError(f"a {type(value).__name__} is not plain data")


def _items(value: Any) -> Collection[Any]:
    if isinstance(value, dict):
        return list(value.items())
    return (value.real, value.imag) if isinstance(value, complex) else list(value)


def unpack(data: Any, depth: int = 0) -> Any:
    """Inverse of :func:`pack`; ValueError for a value that `pack` cannot return."""
    if depth > 2 * MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(data, list):
        return [unpack(item, depth + 1) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise ValueError("not a packed value")
    ((tag, items),) = data.items()
    if tag not in _TAGS or not isinstance(items, list):
        raise ValueError("not a packed value")
    try:
        return _TAGS[tag]([unpack(item, depth + 1) for item in items])
    except (
        TypeError,
        OverflowError,
    ) as error:  # an unhashable member of a set, a pair that is none
        raise ValueError("not a packed value") from error


def dumps(message: Any) -> bytes:
    """Return a message as bytes; lone surrogates survive."""
    return json.dumps(message).encode("ascii")


def loads(payload: bytes) -> Any:
    """Inverse of :func:`dumps`; ValueError for anything malformed."""
    try:
        return json.loads(payload)
    except (RecursionError, UnicodeDecodeError) as error:
        raise ValueError("not a message") from error


def send(pipe: int, message: Any, deadline: float | None = None) -> None:
    """Write one message; TimeoutError at the deadline (of `time.monotonic`)."""
    payload = dumps(message)
    if len(payload) > MAX_BYTES:
        raise ValueError(f"a message of {len(payload)} bytes is longer than {MAX_BYTES}")
    rest = memoryview(HEADER.pack(len(payload)) + payload)
    while rest:
        _wait(pipe, select.POLLOUT, deadline)
        rest = rest[os.write(pipe, rest[: select.PIPE_BUF] if deadline is not None else rest) :]


def receive(pipe: int, deadline: float | None = None, max_bytes: int = MAX_BYTES) -> Any:
    """Read one message, and not a byte more.

    Raises:
        EOFError: the other side is gone.
        ValueError: what came is no message, or longer than `max_bytes`.
        TimeoutError: the deadline has passed.
    """
    (length,) = HEADER.unpack(_read(pipe, HEADER.size, deadline))
    if length > max_bytes:
        raise ValueError(f"a message of {length} bytes is longer than {max_bytes}")
    return loads(_read(pipe, length, deadline))


def serve(requests: int, replies: int, answer: Callable[[Any], Any]) -> None:
    """Say that this process is ready, then answer each request until the other side is gone."""
    send(replies, {"ready": True})
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        send(replies, answer(request))


def _read(pipe: int, length: int, deadline: float | None) -> bytes:
    parts = []
    while length:
        _wait(pipe, select.POLLIN, deadline)
        part = os.read(pipe, min(length, 1 << 16))
        if not part:
            raise EOFError("the other side closed the pipe")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _wait(pipe: int, event: int, deadline: float | None) -> None:
    if deadline is None:
        return
    poll = select.poll()
    poll.register(pipe, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(math.ceil(left * 1000)):
        raise TimeoutError("no answer in time")
