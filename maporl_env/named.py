"""A user's own function: by its name, ``module:function``, and the texts that it gives."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def function_named(name: str) -> Callable[..., Any]:
    """Return the function of a module that can be imported, also from the current folder.

    Raises:
        ValueError: there is no such module or function, or it cannot be called.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{name!r} cannot be found ({error}): give module:function of a module that can be "
            "imported from here"
        ) from error
    if not callable(found):
        raise ValueError(f"{name!r} is not a function")
    function: Callable[..., Any] = found
    return function


def source_digest(function: Callable[..., Any]) -> str:
    """Return a hash of the file in which a function is written, or its class; "" if there is none.

    What that file imports is not seen.
    """
    found: Any = function
    while isinstance(found, functools.partial):
        found = found.func
    found = inspect.unwrap(found)
    try:
        path = inspect.getsourcefile(found if inspect.isroutine(found) else type(found))
        return hashlib.sha256(Path(path or "").read_bytes()).hexdigest()[:16]
    except (TypeError, OSError):
        return ""


def texts_of(given: object, count: int, who: str) -> list[str]:
    """Return what a function `prompts -> texts` gave, or say plainly what is wrong with it.

    Args:
        given: what it returned.
        count: how many prompts it got.
        who: whose function it is; the errors begin with it.

    Raises:
        ValueError: no list of texts, or not one per prompt.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError(f"{who}: expected a list of texts, not {type(given).__name__}")
    if len(given) != count:
        raise ValueError(f"{who}: {len(given)} texts for {count} prompts")
    for text in given:
        if not isinstance(text, str):
            raise ValueError(f"{who}: expected texts, but one is {type(text).__name__}")
    return list(given)
