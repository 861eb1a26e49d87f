"""Reading answers under attack: generated non-answers, random and hostile text, time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_env import answers
from maporl_env.answers import KINDS, extract_answer, last_line_answer, parse_answer
from maporl_env.reading import code_blocks

MEGABYTE = 1_000_000


WORDS = "apples or and to dozen million percent dollars then minus"
NO_NUMBERS = (
    "{a},{b}0000 ¦ {a} {b} ¦ {a}-{b} ¦ {a}.5-{b} ¦ {a} {word} ¦ {word} {a} ¦ {a} {word} {b}"
    r" ¦ {a}+{b} ¦ {a}/0 ¦ {a}.{b}.{a} ¦ --{a} ¦ ({a}) ¦ {a}\frac{{1}}{{{b}}} ¦ \text{{{a}}}{b}"
    " ¦ {a};{b} ¦ {a}:{b} ¦ {a}e{b}0000 ¦ {a}/{b}/{a} ¦ {a}, {b} ¦ 0{a},000 ¦ $$-{a}"
)
NO_LABELS = (
    "not {one} ¦ {one} or {two} ¦ {one}, {two} ¦ {one}{a} ¦ non-{one} ¦ either {one} ¦ {word} {two}"
    " ¦ {one}s ¦ neither {one} nor {two} ¦ {one} {one} ¦ label {a} ¦ {a}"
)
MESSAGES = {
    "number": r"{a} + {b} is \boxed{{{bad}}} ¦ First \boxed{{{a}}}, no: \boxed {{ {bad} }} {word}"
    r" ¦ {a} {word} {b}. {a} ¦ {b} {word}: A: {a} ¦ {word} {b} #### {a} ¦ {b} {word} \boxed{{{a}"
    r" ¦ \boxed  {{{a}}} {word} {b} ¦ {word} {{{a}}} {b}",
    "nli": r"{two}: \boxed{{{one}}} {a} \boxed{{{bad}}} ¦ {b} {word}: it is {one}, {bad}. {a}",
}


def random_non_answer(rng: random.Random) -> tuple[str, str]:
    """(kind, message) that marks no answer, though numbers or labels stand in it."""

    def fill(forms: str, **more: str) -> str:
        return rng.choice(forms.split(" ¦ ")).format(**parts, **more)

    a, b = rng.choices(range(1, 10_000), k=2)
    one, two = rng.sample(answers.NLI_LABELS, 2)
    parts = {"a": a, "b": b, "one": one, "two": two, "word": rng.choice(WORDS.split())}
    kind = rng.choice(["number", "nli"])
    return kind, fill(MESSAGES[kind], bad=fill(NO_NUMBERS if kind == "number" else NO_LABELS))


def test_ten_thousand_generated_non_answers_give_no_answer():
    rng = random.Random(20250218)
    messages = {random_non_answer(rng) for _ in range(10_500)}
    assert len(messages) >= 10_000
    assert [row for row in messages if extract_answer(row[1], row[0]) is not None] == []


@given(value=st.fractions(), decimals=st.decimals(allow_nan=False, allow_infinity=False, places=3))
def test_every_fraction_and_decimal_survives_writing_and_reading(value, decimals):
    for text, number in ((str(value), value), (format(decimals, ",f"), Fraction(decimals))):
        read = extract_answer(rf"so \boxed{{ {text} }}.", "number")
        assert read == number
        assert isinstance(read, int) == (number.denominator == 1)


def naive_last_box(text: str) -> str | None:
    """The same rule one character at a time: a stack of braces, boxes by where they end."""
    stack: list[tuple[int, bool]] = []
    complete: list[tuple[int, int]] = []
    for i, character in enumerate(text):
        if character in "{}" and text[:i].endswith("\\"):
            continue
        if character == "{":
            name = text[: i - 1] if text[:i].endswith((" ", "\n")) else text[:i]
            stack.append((i, name.endswith("\\boxed")))
        elif character == "}" and stack:
            start, is_box = stack.pop()
            if is_box:
                complete.append((start + 1, i))
    return text[slice(*complete[-1])] if complete else None


PIECES = st.sampled_from(
    ["\\boxed{", "\\boxed {", "\\boxed", "{", "}", "}}", "\\{", "\\}", "é", " "]
)


@given(st.lists(PIECES, max_size=24).map("".join))
def test_the_last_box_is_that_of_a_stack_of_braces(text):
    assert answers.last_box(text) == naive_last_box(text)


@given(st.text(alphabet=st.characters(codec=None), max_size=60), st.sampled_from(sorted(KINDS)))
def test_no_text_raises(text, kind):
    for message in (text, rf"\boxed{{{text}}}", f"```\n{text}\n```", f"A: {text}"):
        extract_answer(message, kind)
        parse_answer(message, kind)
        last_line_answer(message)


# --- Time ----------------------------------------------------------------------------------------

OPEN_BOXES = {
    "boxes": "\\boxed{" * (MEGABYTE // 7),
    "spaced boxes": "\\boxed { " * (MEGABYTE // 9),
    "boxes with numbers": "\\boxed{34 " * (MEGABYTE // 10),
}
MEGABYTES = {
    "braces": "\\boxed" + "{" * MEGABYTE,
    "closing braces": "\\boxed{" + "}" * MEGABYTE,
    "pairs": "\\boxed{" + "{}" * (MEGABYTE // 2),
    "complete boxes": "\\boxed{}" * (MEGABYTE // 8),
    "nested boxes": "\\boxed{" * (MEGABYTE // 8) + "}" * (MEGABYTE // 8),
    "digits": "\\boxed{" + "1" * MEGABYTE + "}",
    "spaces": "\\boxed{" + " " * MEGABYTE + "}",
    "blanks before the brace": "\\boxed" + " " * MEGABYTE + "{1}",
    "fractions": "\\boxed{" + "\\frac{1}" * (MEGABYTE // 8) + "}",
    "backslashes": "\\boxed{" + "\\" * MEGABYTE + "}",
    "NUL": "\\boxed{" + "\0" * MEGABYTE + "}",
    "surrogates": "\\boxed{{" + "\ud800" * MEGABYTE + "}}",
    "backticks": "`" * MEGABYTE,
    "fences": "```\n" * (MEGABYTE // 4),
    "fences that never close": "```x\n" * (MEGABYTE // 5),
    "code blocks": "```python\nx\n```\n" * (MEGABYTE // 16),
    "newlines": "```\n" + "\n" * MEGABYTE,
    "tildes": "~~~\n" * (MEGABYTE // 4),
    "wrapped words": "\\boxed{" + "\\text{" * (MEGABYTE // 7) + "}" * (MEGABYTE // 7) + "}",
    "dollars": "\\boxed{" + "$" * MEGABYTE + "}",
    "thousands": "\\boxed{" + "1\\,234" * (MEGABYTE // 6) + "}",
    "thin spaces": "\\boxed{a" + "\\, " * (MEGABYTE // 3) + "}",
    "switches": "\\boxed{" + "\\bf " * (MEGABYTE // 4) + "}",
    "colours": "\\boxed{" + "\\textcolor{red}" * (MEGABYTE // 15) + "}",
    "escapes": "\\boxed{" + "\\_" * (MEGABYTE // 2) + "}",
}


FENCE = "```\nx\n```\n"
LONGEST = code_blocks.MAX_CHARS - len(FENCE)


def filled(line: str) -> str:
    """As much of a line as is read at all, behind a fence."""
    return FENCE + (line * (LONGEST // len(line)))


MARKDOWN = {
    "paragraphs": filled("x\n"),
    "blank lines": filled("\n"),
    "open fence": filled("\n")[:-3] + "```",
    "fences": filled("```\n"),
    "lists": filled("- a\n"),
    "lists in lists": filled("- " * 15 + "x\n"),
    "quotes": filled("> " * 20 + "a\n"),
    "lines that lean on a quote": FENCE + "> " * 20 + "a\n" + "b\n" * (LONGEST // 2 - 25),
    "quotes and lists": filled("> - " * 10 + "x\n"),
    "headings": filled("=\n"),
    "tabs": filled("\t"),
    "blanks": filled("- " + " " * 998),
    "ticks": filled("`"),
}


def takes_longer_than(seconds: float, call: Callable[[], object], tries: int = 3) -> bool:
    """In processor time, every time out of a few: other load on the machine only ever adds."""
    for _ in range(tries):
        start = time.process_time()
        call()
        if time.process_time() - start <= seconds:
            return False
    return True


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_megabyte_of_anything_is_read_in_time(kind):
    def slow(texts: dict[str, str], seconds: float) -> list[str]:
        return [
            name
            for name, text in texts.items()
            if takes_longer_than(seconds, lambda text=text: extract_answer(text, kind))
        ]

    assert slow(OPEN_BOXES, seconds=0.1) == []
    assert slow(MEGABYTES, seconds=0.25) == []


@pytest.mark.parametrize("name", MARKDOWN)
def test_the_longest_markdown_is_read_in_time(name):
    text = MARKDOWN[name]
    assert len(text) <= code_blocks.MAX_CHARS
    assert not takes_longer_than(0.25, lambda: extract_answer(text, "code"))


def test_a_long_program_is_read():
    program = "def f(x):\n" + "    x += 1\n" * 13_000 + "    return x"
    assert len(program) > 140_000
    assert extract_answer(f"So:\n```python\n{program}\n```\n", "code") == program
    assert extract_answer(f"So:\n```python\n{program * 2}\n```\n", "code") is None


def test_the_program_is_the_block_that_defines_what_is_asked_for():
    text = "```python\ndef f(x): return x\n```\n```python\ndef test(): assert f(1) == 1\n```"
    assert answers.extract_program(text, "f") == "def f(x): return x"
    assert answers.extract_program(text, "test") == "def test(): assert f(1) == 1"
    assert answers.extract_program(text, "g") == answers.extract_program(text)
    assert answers.extract_program("```\nf: int = g\n```\n```\nf == 1\n```", "f") == "f: int = g"


PROGRAMS = {
    "try": "try:\n    def f(x): return x\nexcept NameError:\n    pass",
    "tuple": "f, (g, *h) = make()",
    "renamed import": "from operator import neg as f",
    "condition": "if True:\n    class f: pass\nelse:\n    f = None",
    "with": "with make() as f: pass",
    "annotation": "try:\n    f: int = 3\nfinally: pass",
}
OTHERS = (
    "def other(): return f(1)",
    "def other():\n    f, g = 1, 2",
    "class Other:\n    def f(self): return [f for f in self]",
    "def broken(:\n    f, g = 1, 2",
    "def other(): return f\n\0",
)


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("other", OTHERS)
def test_the_block_that_binds_the_name_in_any_way_is_taken(program, other):
    for blocks in ((program, other), (other, program)):
        text = "".join(f"```python\n{block}\n```\n" for block in blocks)
        assert answers.extract_program(text, "f") == program


@pytest.mark.parametrize("kind", ["def f(x): return x", PROGRAMS["try"]])
def test_a_test_that_imports_the_program_is_not_taken_for_it(kind):
    text = f"```python\n{kind}\n```\n```\nfrom solution import f\ndef test(): f(1)\n```"
    assert answers.extract_program(text, "f") == kind


@pytest.mark.parametrize("mark", ["tool_code", "solution.py", "src/a.py", "python_code", "CPython"])
def test_other_marks_of_python(mark):
    text = f"```{mark}\nprint(1)\n```\n```\n1\n```"
    assert answers.extract_program(text) == "print(1)"
    assert answers.extract_program("```happy\nprint(1)\n```") is None


@pytest.mark.parametrize(
    "line", ["g;" * 4900, "g(1)[1](1)\n" * 900, "[{}]\n" * 1990, "f" + "-f" * 999]
)
def test_programs_that_do_not_plainly_bind_a_name_are_read_in_time(line):
    block = f"```\nf;{line}\n```\n"
    text = block * (code_blocks.MAX_CHARS // len(block))
    assert not takes_longer_than(0.25, lambda: answers.extract_program(text, "f"))


LONG_NUMBERS = {
    "blanks": "-" + " " * 998 + "x",
    "digits": "1" * 999 + "x",
    "commas": "1," * 500,
    "wrappers": "\\text{" * 142 + "}" * 142,
    "braces": "{" * 500 + "}" * 500,
    "fractions": "\\frac" * 200,
    "exponents": "1e" * 500,
    "a large exponent": "9" * 996 + "e999",
    "slashes": "1/" * 500,
    "braced commas": "1{,}111" + "{,}111" * 165,
    "braced groups": "1" + "{\\,000}" * 124,
    "switches": "\\bf " * 250,
}


@pytest.mark.parametrize("text", LONG_NUMBERS.values(), ids=LONG_NUMBERS)
def test_the_longest_numbers_are_read_in_time(text):
    assert len(text) <= answers.MAX_CHARS
    assert not takes_longer_than(0.05, lambda: parse_answer(text, "number"))
