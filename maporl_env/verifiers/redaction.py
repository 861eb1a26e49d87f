"""Error texts of verifiers without what agents must not read: references, private texts, tests.

A verifier reads all of a question, and its exceptions may quote any of it: word for word, as JSON
or `repr` (in which line breaks are escaped), or cut off in the middle. Error texts go to logs and
warnings, so what is quoted is looked for in whatever form. (API keys are kept out by `api_keys`.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from maporl_env.types import LONG_REFERENCE, Question

LEFT_OUT = "(left out)"
ALL_LEFT_OUT = "(its message quotes what agents must not read, and is left out)"
MAX_READ = 20_000
"""Characters of a message that are looked at; the rest is dropped."""
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_BETWEEN = re.compile(r"\\[nrtfv]|[\s\\\"']+")


def without_secrets(words: str, questions: Sequence[Question]) -> str:
    """Return the message of an exception without the secrets that its verifier read.

    A message that quotes a stretch of `LONG_REFERENCE` characters is left out as a whole; shorter
    secrets are taken out of it.

    Args:
        words: the message.
        questions: that the verifier was called with.
    """
    words = words[:MAX_READ]
    secrets = set(_secrets(questions))
    quoted = _stretches(words)
    if any(not quoted.isdisjoint(_stretches(secret)) for secret in secrets):
        return ALL_LEFT_OUT
    for secret in sorted(secrets, key=len, reverse=True):
        words = words.replace(secret, LEFT_OUT)
    return words


def _secrets(questions: Iterable[Question]) -> Iterable[str]:
    """Yield references, private texts, and answers that are the tests of programs."""
    for question in questions:
        tests = (question.answer,) if question.kind == "code" else ()
        yield from filter(None, (*question.private, question.hidden, *tests))


def _stretches(text: str) -> set[str]:
    """Return all stretches of a text, as long as a quote has to be, white space and escapes out."""
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    plain = _BETWEEN.sub("", text)
    return {plain[i : i + LONG_REFERENCE] for i in range(len(plain) - LONG_REFERENCE + 1)}
