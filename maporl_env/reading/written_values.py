"""Values in what users write, as in `KEY=VALUE`."""

from __future__ import annotations

_WORDS = {"true": True, "false": False, "none": None}


def value_of(text: str) -> bool | int | float | str | None:
    """Return the truth value, nothing or number that a text names, in any case; else the text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
