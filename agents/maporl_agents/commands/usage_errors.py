"""What is wrong with a command line, in one sentence, with the option or command that is alike."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence

from maporl_env.similar_names import alike

BESIDE = ("warmup.", "self-play.")
"""Groups whose options are named last: the training on debates is meant first."""


def sentence(
    box: str, given: Sequence[str], program: str, parse: Callable[[list[str]], object]
) -> str:
    """Return what tyro draws a box around as one sentence.

    Args:
        box: what tyro printed on standard error.
        given: the words of the command line.
        program: what is typed before them.
        parse: reads a command line; here words that end with --help, whose page it prints.
    """
    parts = _parts(box)
    said = parts[0] if parts else "the command line cannot be read"
    verbs, page = _asked(given, parse)
    program = " ".join([program, *verbs])
    if said.startswith("Unrecognized options: "):
        said = _unknown(said.partition(": ")[2].split(", "), given[len(verbs) :], page)
    said = _about_value(said).rstrip(".")
    first, rest = said[:1], said[1:]
    if not rest[:1].isupper():  # a word, not a name in capitals
        first = first.lower()
    return f"{first}{rest}; see {program} --help"


def _about_value(said: str) -> str:
    """Return what tyro says about the value of an option in our own words."""
    if found := re.match(
        r"Error parsing (\S+): (invalid literal|could not convert).*?: (.*)", said
    ):
        wanted = "a whole number" if found[2] == "invalid literal" else "a number"
        return f"{found[1]} must be {wanted}, not {found[3]}"
    if found := re.match(
        r"(invalid choice '(.*)' for argument '.*')\. Expected one of (\(.*\))", said, re.IGNORECASE
    ):
        known = re.findall(r"'([^']*)'", found[3])
        return f"{found[1]}{_meant(alike(found[2], known))}: choose one of {', '.join(known)}"
    if found := re.match(r"Missing value for argument '([^']*)'\. Expected 1 values", said):
        return f"the value of {found[1]} is missing"
    if found := re.match(r"Missing from [^:]*: (.*)", said):  # NAME what it is (required) NAME ...
        names = [one.split()[0] for one in found[1].split("(required)") if one.strip()]
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
    if found := re.match(r"Error parsing config(?:\.(\S*))?: ", said):  # refused by the settings
        return (f"{found[1]}: " if found[1] else "") + said[found.end() :]
    return said


def _parts(box: str) -> list[str]:
    """Return the paragraphs in a box, without its border and title, each in one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│|╭╮╰╯ ") for line in plain.splitlines()]
    whole = "\n".join(lines).replace("─", "-")
    parts = [" ".join(part.split()) for part in re.split(r"^.*-{5,}.*$", whole, flags=re.MULTILINE)]
    title = whole.partition("\n")[0].strip("- ")  # in the border, or above it without Unicode
    return [part for part in parts if part and part != title]


def _asked(given: Sequence[str], parse: Callable[[list[str]], object]) -> tuple[list[str], str]:
    """Return the commands at the start of a command line, and the help page of the last."""
    verbs: list[str] = []
    page = _page(parse, verbs)
    for word in given:
        if word not in _commands(page):
            break
        verbs.append(word)
        page = _page(parse, verbs)
    return verbs, page


def _page(parse: Callable[[list[str]], object], verbs: list[str]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        parse([*verbs, "--help"])
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())


def _commands(page: str) -> list[str]:
    """Return the commands that the usage of a help page lists in braces."""
    usage = page.partition("\n\n")[0]
    listed = re.search(r"\[-h\] \{([^}]*)\}", " ".join(usage.split()))
    return [word.strip() for word in listed[1].split(",")] if listed else []


def _unknown(words: list[str], given: Sequence[str], page: str) -> str:
    """Return a sentence about words that are neither options nor commands, the first of a kind."""
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not options:
        commands = _commands(page)
        if commands and given[:1] == words[:1]:
            near = _meant(alike(words[0], commands)) or f": choose one of {', '.join(commands)}"
            return f"unknown command {words[0]!r}{near}"
        return f"unexpected {' '.join(map(repr, words))}"
    known = re.findall(r"^[│| ]*(?:-\w, )?--([\w.-]+)", page, re.MULTILINE)
    return ", ".join(
        f"unknown option {word}{_meant([f'--{one}' for one in near_options(word, known)])}"
        for word in options
    )


def near_options(written: str, known: Sequence[str]) -> list[str]:
    """Return the options that a wrong one is likely to mean: at most three, none if none is alike.

    Those whose last part is what was written, whatever their groups (`verifier` is
    `game.verifier`); else those whose whole name, or last part, is alike.

    Args:
        written: the wrong option, with dashes or without.
        known: all options, without dashes before them.
    """
    name = written.lstrip("-").replace("_", "-")
    if same := [one for one in known if one.endswith(f".{name}")]:
        return sorted(same, key=lambda one: one.startswith(BESIDE))[:3]
    last = name.rpartition(".")[2]
    return (
        alike(name, known)
        or [
            one
            for tail in alike(last, [one.rpartition(".")[2] for one in known])
            for one in known
            if one.rpartition(".")[2] == tail
        ][:3]
    )


def _meant(near: Sequence[str]) -> str:
    return f" (did you mean {' or '.join(near)}?)" if near else ""
