"""The error text for a missing optional dependency: what needs it, and the command `pip install`.

The extras of the package (`maporl[train]`, `maporl[render]` ...) are listed in `pyproject.toml`.
"""

from __future__ import annotations

import importlib.util


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, by its import name; it is not imported."""
    return importlib.util.find_spec(package) is not None


def missing_extra(what: str, package: str | None, extra: str | None, *, instead: str = "") -> str:
    """Return the text of the error that is raised where an optional dependency is missing.

    >>> missing_extra("reading a GGUF file", "gguf", "gguf")
    "reading a GGUF file needs gguf, which is not installed: pip install 'maporl[gguf]'"

    Args:
        what: what was asked for and cannot be done.
        package: the missing package; None, as `ImportError.name` may be, if it is not known.
        extra: the extra of this package that brings it; None if none does.
        instead: what else can be done, e.g. "or leave this logger out".
    """
    command = f"pip install 'maporl[{extra}]'" if extra else f"pip install {package}"
    missing = package or "a package"
    return f"{what} needs {missing}, which is not installed: {command}" + (
        f", {instead}" if instead else ""
    )
