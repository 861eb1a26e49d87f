"""A user's own code by its name, ``module:name`` or ``file.py:name``, and the texts that it gives.

`object_named` is the one look-up behind verifiers, tasks, protocols, schemes, feedback and agents.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from maporl_env.similar_names import did_you_mean

FORMS = "module:name or file.py:name"
"""The two ways to name a user's own code, for error messages."""
PYTHON = "python"
"""The "module" of objects that this process was given (`name_object`), and that no file holds."""

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_GIVEN: dict[str, object] = {}


def is_own_name(name: str) -> bool:
    """Return whether a text has the form of `FORMS`; the object need not exist."""
    place, _, attribute = name.rpartition(":")
    held = place.endswith(".py") or _MODULE.fullmatch(place) is not None
    return held and _MODULE.fullmatch(attribute) is not None


def whole_name(name: str) -> str:
    """Return a name that is found from any folder: a file's path is made absolute."""
    place, _, attribute = name.rpartition(":")
    if not (is_own_name(name) and place.endswith(".py")):
        return name
    return f"{Path(place).expanduser().resolve()}:{attribute}"


def object_named(name: str) -> Any:
    """Return the object of that name in a user's module or file; a file runs once per process.

    Modules are also looked for in the current folder, and those that a file imports beside it.

    Raises:
        ValueError: there is no such module, file or name, or running it raised; one sentence.
    """
    place, _, attribute = name.rpartition(":")
    if name in _GIVEN:
        return _GIVEN[name]
    if place == PYTHON:
        raise ValueError(
            f"{name!r} was an object of the Python program that started the run, and is in no "
            f"file: pass it from Python again, or name one as {FORMS}"
        )
    found: Any = _module(name, place)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, dir(found))
            said = f"{place} has no attribute {part!r}" + (f"; {near}" if near else "")
            raise ValueError(f"{name!r} cannot be found ({said})")
        found = getattr(found, part)
    return found


def function_named(name: str) -> Callable[..., Any]:
    """Return `object_named`, which must be callable.

    Raises:
        ValueError: there is no such thing, or it cannot be called.
    """
    found = object_named(name)
    if not callable(found):
        raise ValueError(f"{name!r} is not a function")
    function: Callable[..., Any] = found
    return function


def name_object(given: object, hint: str) -> str:
    """Return a name under which `object_named` finds an object.

    A function or class that a module or script holds has a name that other processes understand
    too; anything else is known to this process alone, as ``python:hint_...``.
    """
    attribute = getattr(given, "__qualname__", "")
    module = sys.modules.get(getattr(given, "__module__", None) or "")
    if module is not None and attribute and getattr(module, attribute, None) is given:
        if module.__name__ != "__main__":
            return f"{module.__name__}:{attribute}"
        file = getattr(module, "__file__", None)
        if file and file.endswith(".py"):
            name = whole_name(f"{file}:{attribute}")
            _GIVEN[name] = given  # the script that runs is not run again
            return name
    first = name = f"{PYTHON}:{hint}_{_digest_of(given)}"
    number = 1
    while _GIVEN.get(name, given) is not given:
        number += 1
        name = f"{first}_{number}"
    _GIVEN[name] = given
    return name


def _digest_of(given: object) -> str:
    """Return a short hash of a function's code, or of a class's name: alike in all processes.

    So another object that another program hands over is not taken for this one.
    """
    code = getattr(given, "__code__", None)
    kind = given if hasattr(given, "__qualname__") else type(given)
    whole = f"{kind.__module__}:{kind.__qualname__}".encode() + _bytes_of(code)
    return hashlib.sha256(whole).hexdigest()[:8]


def _bytes_of(code: CodeType | None) -> bytes:
    """Return the bytes of a function's code, with that of the functions inside it."""
    if code is None:
        return b""
    inner = [one for one in code.co_consts if isinstance(one, CodeType)]
    plain = [repr(one) for one in code.co_consts if isinstance(one, (bool, int, float, str, bytes))]
    own = code.co_code + "\0".join([*code.co_names, *plain]).encode("utf-8", "backslashreplace")
    return own + b"".join(map(_bytes_of, inner))


def name_as(name: str, given: object) -> None:
    """Register an object under a name, or under the path of a file, in this process."""
    _GIVEN[name] = given


def given_as(name: str) -> Any:
    """Return the object registered under a name or path in this process, or None."""
    return _GIVEN.get(name)


def _module(name: str, place: str) -> ModuleType:
    """Return the module or file that a name begins with, run if it was not yet."""
    is_file = place.endswith(".py")
    if is_file and not Path(place).expanduser().is_file():
        raise ValueError(f"{name!r} cannot be found: there is no file {place}")
    if not is_file and not _MODULE.fullmatch(place):
        raise ValueError(f"{name!r} is not a name: give {FORMS}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        if is_file:
            return _module_of_file(Path(place).expanduser().resolve())
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if not is_file and error.name and f"{place}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{name!r} cannot be found ({error}): give {FORMS} of a module that can be "
                "imported from here, or of a file"
            ) from error
        raise _failed(name, error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's file may do anything, exit included
        raise _failed(name, error) from error


def _module_of_file(path: Path) -> ModuleType:
    """Import a file: under its own name where that is free, so that its functions can be pickled.

    Its folder comes last on the path, so that what lies there hides no other module.
    """
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    if _file_of_module(path.stem) == path:
        return importlib.import_module(path.stem)
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # for a .py file there always is one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _file_of_module(name: str) -> Path | None:
    """Return the file that ``import name`` would run; None where it would run none."""
    try:
        spec = importlib.util.find_spec(name) if _MODULE.fullmatch(name) else None
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).resolve() if spec is not None and spec.origin else None


def _failed(name: str, error: BaseException) -> ValueError:
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({Path(place[0].filename).name}, line {place[0].lineno})" if place else ""
    if isinstance(error, SyntaxError):
        where = ""  # its words have the place
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return ValueError(f"{name!r} cannot be imported: it raised {what}{where}")


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
    """Return the texts of a function `prompts -> texts`; raise one clear error for a wrong result.

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
