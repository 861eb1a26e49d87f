"""A user's own function by its name, as command lines and settings give it: ``module:function``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
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
