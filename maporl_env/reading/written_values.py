"""Values in what users write, as in `KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Collection

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


def parts_behind(written: str, known: Collection[str], what: str) -> tuple[str, dict[str, str]]:
    """Return the address and the parts of ``URL,NAME=VALUE,...``, the parts without spaces around.

    Args:
        written: the address, and parts behind commas.
        known: names of parts.
        what: for messages, such as "an endpoint".

    Raises:
        ValueError: a part without a value, of an unknown name, or given twice.
    """
    url, *others = written.split(",")
    parts: dict[str, str] = {}
    for text in others:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value or name not in known or name in parts:
            raise ValueError(
                f"behind the address of {what} stand {', '.join(known)} as KEY=VALUE, each once, "
                f"not {text!r}"
            )
        parts[name] = value
    return url, parts
