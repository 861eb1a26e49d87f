"""Reading answers: a corpus by kind, gold answers, equality, and real text."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from maporl_env.answers import (
    KINDS,
    AnswerKind,
    answers_equal,
    extract_answer,
    gold,
    last_line_answer,
    parse_answer,
    read_gold,
)

# --- The corpus: "value = spelling ¦ spelling ...", a space on either side of each mark ----------

NUMBERS = r"""
34 = 34 ¦ +34 ¦ 034 ¦ 34. ¦ 34.0 ¦ 34.00 ¦ $34 ¦ $ 34 ¦ $34.00 ¦ +$34 ¦ $+34 ¦ 34$ ¦ 34 $
34 = 34% ¦ 34 % ¦ 34\% ¦ 34 \% ¦ \$34 ¦ \$ 34 ¦ \$34.00 ¦ $34$ ¦ $\$34$ ¦ €34 ¦ £34 ¦ 34€ ¦ 34 £
34 = {34} ¦ {{34}} ¦ \text{34} ¦ \text{ 34 } ¦ \textbf{34} ¦ \mathbf{34} ¦ \mathrm{34} ¦ \mbox{34}
34 = \text{\textbf{34}} ¦ \boxed{34} ¦ $\text{34}$ ¦ \text{$34} ¦ \text{34\%} ¦ 34\, ¦ \;34 ¦ ~34
34 = 34\!
34 = 68/2 ¦ 68 / 2 ¦ -68/-2 ¦ 102/3 ¦ 3.4/.1 ¦ \frac{68}{2} ¦ \dfrac{ 68 }{ 2 } ¦ 3.4e1 ¦ 340e-1
34 = 3.4E+1
-34 = -34 ¦ - 34 ¦ -34.0 ¦ -$34 ¦ $-34 ¦ - $ 34 ¦ −34 ¦ −34.0 ¦ -34% ¦ -\$34 ¦ \$-34 ¦ -68/2
-34 = 68/-2
-34 = -\frac{68}{2} ¦ \frac{-68}{2} ¦ \frac{68}{-2} ¦ \text{-34} ¦ $-34$ ¦ {-34} ¦ -3.4e1
0 = 0 ¦ 00 ¦ 0.0 ¦ -0 ¦ +0 ¦ .0 ¦ 0. ¦ 0% ¦ $0 ¦ 0/5 ¦ \frac{0}{7} ¦ 0e9 ¦ 0e-999 ¦ $0.00
50 = 50% ¦ 50\% ¦ 50.0% ¦ $50\%$ ¦ +50 % ¦ 100/2% ¦ 50 ¦ \text{50%}
1234 = 1234 ¦ 1,234 ¦ $1,234 ¦ 1,234.00 ¦ 1{,}234 ¦ 1,\!234 ¦ \$1,234.0 ¦ 1234.0 ¦ 1,234\%
1234 = 2,468/2 ¦ 1\,234 ¦ 1\;234 ¦ 1\:234 ¦ 1\ 234 ¦ 1~234 ¦ 1{\,}234 ¦ \$1\,234 ¦ 1\,234.0
1234 = \text{1\,234} ¦ 1\u2009234 ¦ 1\u202f234 ¦ 1\u00a0234 ¦ 2\,468/2 ¦ \frac{2\,468}{2}
1234567 = 1234567 ¦ 1,234,567 ¦ $1,234,567 ¦ 1{,}234{,}567 ¦ +1,234,567.000 ¦ 1.234567e6
1234567 = 1\,234\,567 ¦ 1\u202f234\u202f567 ¦ $1~234~567$
1000000 = 1,000,000 ¦ 1000000 ¦ 1e6 ¦ 1E6 ¦ 1.0e+6 ¦ 1e+06 ¦ 1e006 ¦ 10,000e2
1/2 = 1/2 ¦ 0.5 ¦ .5 ¦ .50 ¦ 0.5% ¦ $0.50 ¦ $.5 ¦ \frac{1}{2} ¦ \frac12 ¦ \frac 1 2 ¦ \dfrac{1}{2}
1/2 = \tfrac{1}{2} ¦ \cfrac{1}{2} ¦ \dfrac12 ¦ 2/4 ¦ 1 / 2 ¦ $\frac{1}{2}$ ¦ 5e-1 ¦ \text{1/2}
1/2 = +1/2 ¦ 500/1,000
-1/2 = -1/2 ¦ 1/-2 ¦ -0.5 ¦ -.5 ¦ −.5 ¦ -\frac{1}{2} ¦ -\frac12 ¦ \frac{-1}{2} ¦ -5e-1
1/3 = 1/3 ¦ 2/6 ¦ \frac{1}{3} ¦ \frac{2}{6} ¦ \frac13
5/4 = 1.25 ¦ 5/4 ¦ $1.25 ¦ 1.250 ¦ 01.25 ¦ 125e-2 ¦ \frac{5}{4} ¦ \frac54
2469/2 = 1,234.5 ¦ 1234.5 ¦ $1,234.50 ¦ 1{,}234.5
1/10 = 0.1 ¦ .1 ¦ 1e-1 ¦ 1/10 ¦ $0.10
"""

NO_NUMBERS = r"""
1,2 ¦ 1, 2 ¦ 1 2 ¦ 34 35 ¦ 3 4 ¦ 1;2 ¦ 34 or 35 ¦ 34 and 35 ¦ 34\ 35 ¦ 34\,35 ¦ 34~35 ¦ 3,4,5
(1,2) ¦ [34] ¦ 12 000 ¦ 1 234 567 ¦ 1\,2345 ¦ 1234\,567 ¦ 12\,34 ¦ 1\,234\,56 ¦ 1\,234,567
1,234\,567 ¦ 1\,234~567 ¦ 0\,123 ¦ 3.141\,592 ¦ 34~35~000 ¦ 1\,\,234 ¦ 12\u2009 000
12,34 ¦ 1,23 ¦ 1234,567 ¦ 1,2345 ¦ 1,234,56 ¦ 0,123 ¦ ,123 ¦ 1,,234 ¦ 1,234, ¦ 1,234,5 ¦ 1 , 234
1, 234 ¦ 34,
3-4 ¦ 3 - 4 ¦ 3--4 ¦ 3 to 4 ¦ 3–4 ¦ 3..4 ¦ between 3 and 4 ¦ 3~4 ¦ 3:4 ¦ 10-15% ¦ $3-$4
3 - 4 apples ¦ <34 ¦ >34
34 apples ¦ 34 dollars ¦ 34\text{ dollars} ¦ 34\text{ cm} ¦ 2 million ¦ 1.8 billion ¦ 3 dozen ¦ 5k
34th ¦ x34 ¦ 34x ¦ USD 34
thirty-four ¦ four ¦ none ¦ None ¦ null ¦ nan ¦ NaN ¦ inf ¦ -inf ¦ Infinity ¦ ? ¦ ... ¦ N/A
unknown ¦ \infty ¦ True
x=34 ¦ x = 34 ¦ =34 ¦ 30+4 ¦ 30 + 4 ¦ 2*17 ¦ 2\times17 ¦ 2 \cdot 17 ¦ 68÷2 ¦ 2^5 ¦ 10^3 ¦ 10^{3}
30+4=34 ¦ \sqrt{4} ¦ \pi
1/0 ¦ 0/0 ¦ 1/0.0 ¦ 1/-0 ¦ \frac{1}{0} ¦ \frac10 ¦ \frac{0}{0} ¦ 5/0e9
1/2/3 ¦ /2 ¦ 1/ ¦ 1//2 ¦ \frac{1}{} ¦ \frac{}{2} ¦ \frac{1} ¦ \frac{1+1}{2} ¦ \frac{1}{2}3
3\frac{1}{2} ¦ 3 1/2 ¦ \frac123
\frac{1/2}{3} ¦ \frac{a}{b} ¦ \frac{\frac{1}{2}}{3} ¦ 1\frac12 ¦ 2\dfrac{1}{2} ¦ \frac ¦ \frac1
12/3/2024 ¦ -\frac{-1}{2}
--34 ¦ +-34 ¦ -+34 ¦ ++34 ¦ -$-34 ¦ 34- ¦ - ¦ + ¦ $ ¦ % ¦ , ¦ . ¦ -. ¦ / ¦ $$ ¦ %34 ¦ 34%% ¦ $34$%
$$34 ¦ {} ¦ {34 ¦ (34)
1.2.3 ¦ 1..2 ¦ 3 . 4 ¦ 1.234.567 ¦ 1.234,5 ¦ 12:30 ¦ 34° ¦ 34! ¦ #34 ¦ 3_4 ¦ 1_000 ¦ 0x22 ¦ 0b10
1e ¦ e5 ¦ 1e5.5 ¦ 1e-
1e1000 ¦ 1e999999999 ¦ 1e-999999999 ¦ 9e99999 ¦ 1e+1000 ¦ 1 e5 ¦ 1e 5 ¦ 1j ¦ 3i ¦ 3+4i
٣٤ ¦ ３４ ¦ ३४ ¦ ½ ¦ ² ¦ 3² ¦ Ⅳ ¦ 一 ¦ 1٫5 ¦ 1⁄2 ¦ 𝟑𝟒 ¦ ３4 ¦ ①
\text{34}5 ¦ \text{3}\text{4} ¦ {3}4{5} ¦ {3}{4} ¦ $3$ or $4$ ¦ 3{4} ¦ \textbf{34 apples}
\foo{34} ¦ **34** ¦ `34` ¦ "34"
"""

LABELS = r"""
entailment = entailment ¦ Entailment ¦ ENTAILMENT ¦ entailment. ¦ "entailment" ¦ 'Entailment'
entailment = \text{entailment}
entailment = \text{ Entailment } ¦ **entailment** ¦ `entailment` ¦ (entailment)
entailment = $\text{entailment}$ ¦ entailment!
neutral = neutral ¦ Neutral ¦ NEUTRAL ¦ neutral. ¦ \textbf{neutral} ¦ \mathrm{Neutral} ¦ {neutral}
neutral = _neutral_ ¦ neutral;
contradiction = contradiction ¦ Contradiction ¦ \textit{contradiction} ¦ contradiction,
contradiction = "Contradiction." ¦ \boxed{contradiction}
"""

NO_LABELS = r"""
not entailment ¦ no entailment ¦ non-entailment ¦ Not neutral ¦ not a contradiction
isn't neutral ¦ never contradiction
entailment or neutral ¦ entailment, neutral ¦ entailment/contradiction ¦ neutral neutral
entailment and entailment
entailment, neutral, contradiction ¦ entailmentneutral ¦ entailments ¦ entail ¦ entailed
neutrality ¦ contradictory
the label is neutral ¦ label: neutral ¦ neutral? maybe ¦ 0 ¦ 1 ¦ 2 ¦ true ¦ yes ¦ e ¦ ? ¦ ... ¦ ""
\text{} ¦ {} ¦ unknown
е́ntailment ¦ ｎｅｕｔｒａｌ ¦ neutrаl ¦ ne utral ¦ neu\tral ¦ \text{not} neutral
\text{neutral} \text{entailment}
"""

MESSAGES: list[tuple[str, int | Fraction | None]] = [  # whole messages, read as numbers
    ("", None),
    (" ", None),
    ("\n\n", None),
    ("34", None),
    ("The answer is 34.", None),
    ("She had 3 apples and bought 4 more.", None),
    ("#### 34", None),
    ("A: 34", None),
    ("boxed{34}", None),
    ("\\box{34}", None),
    ("\\fbox{34}", None),
    ("\\Boxed{34}", None),
    ("\\boxed 34", None),
    ("\\boxed(34)", None),
    ("\\boxed", None),
    ("\\boxed{", None),
    ("\\boxed}", None),
    ("\\boxed{}", None),
    ("\\boxed{ }", None),
    ("\\boxed{34", None),
    ("\\boxed}34{", None),
    ("\\boxed{{34}", None),
    ("\\boxed  {34}", None),
    ("\\boxed{\\}34}", None),
    ("\\boxed{34\\}", None),
    ("\\boxed{34}", 34),
    ("\\boxed {34}", 34),
    ("\\boxed\n{34}", 34),
    ("\\boxed{ 34 }", 34),
    ("\\boxed{\n34\n}", 34),
    ("\\boxed{\t34\r\n}", 34),
    ("\\boxed { 34 }", 34),
    ("\\boxed{ - 34 }", -34),
    ("\\boxed{ 1 / 2 }", Fraction(1, 2)),
    ("\\\\boxed{34}", 34),
    ("$\\boxed{34}$", 34),
    ("\\[\\boxed{34}\\]", 34),
    ("\\boxed{34}.", 34),
    ("\\boxed{34}%", 34),
    ("x\\boxed{34}y", 34),
    ("12\\boxed{34}56", 34),
    ("**\\boxed{34}**", 34),
    ("3 * 6 = 18 , 2 * 8 = 16 , 18 + 16 = 34 \\boxed{ 34 }", 34),
    ("\\boxed{1} and \\boxed{2}", 2),
    ("\\boxed{2}\\boxed{1}", 1),
    ("\\boxed{1} then \\boxed{two}", None),  # the last complete box is not readable
    ("\\boxed{1} then \\boxed{}", None),
    ("\\boxed{1} then \\boxed{1,2}", None),
    ("\\boxed{1} then \\boxed{2", 1),  # truncated: ignored
    ("\\boxed{1} then \\boxed", 1),
    ("\\boxed{1} then \\boxed{\\frac{1}{2}", 1),
    ("\\boxed{1 then \\boxed{2}", 2),  # the outer one never closes
    ("\\boxed{1 then \\boxed{2} and {3", 2),
    ("\\boxed{\\boxed{34}}", 34),
    ("\\boxed{\\boxed{\\boxed{34}}}", 34),
    ("\\boxed{30 + \\boxed{4}}", None),  # the outermost counts
    ("\\boxed{\\boxed{3} \\boxed{4}}", None),
    ("\\boxed{5} \\boxed{6 \\boxed{7}}", None),
    ("\\boxed{6 \\boxed{7}} \\boxed{5}", 5),
    ("{\\boxed{34}}", 34),
    ("}}} \\boxed{34} {{{", 34),
    ("{{{ \\boxed{34}", 34),
    ("\\boxed{\\frac{1}{2}}", Fraction(1, 2)),
    ("\\boxed{-\\frac{3}{4}}", Fraction(-3, 4)),
    ("\\boxed{\\text{34}} so {done}", 34),
    ("\\boxed{34} \\text{dollars}", 34),
    ("\\boxed{34} { \\boxed{35 }", 35),
    (
        "Agent 1 wrote:\n```\n\\boxed{7}\n```\nI disagree: \\boxed{8}",
        8,
    ),  # a quote, then the own box
    ("\\boxed{8}\nAgent 1 wrote:\n```\n\\boxed{7}\n```", 7),  # ends on the quote: adopted
    ("Agent 1 wrote:\n```\n\\boxed{7}\n```", 7),
    ("\\boxed{" + "1" * 1_000 + "}", int("1" * 1_000)),
    ("\\boxed{" + "1" * 1_001 + "}", None),
    ("\\boxed{" + " " * 5_000 + "34}", 34),
    ("\\boxed{1e999}", 10**999),
    ("\\boxed{3\x004}", None),
    ("\x00\\boxed{34}\x00", 34),
    ("\\boxed{\ud83434}", None),
    ("\ud800 \\boxed{34} \udfff", 34),
    ("\u202e\\boxed{34}\u202c", 34),
    ("\\boxed{\u202e34}", None),
    ("\\boxed{3\u200b4}", None),
    ("\U0001f600 é 漢字 \\boxed{34} {\U0001f600}", 34),
    ("\\boxed{1} \U0001f600 é 漢字 \\boxed{34} {x}", 34),
]

CODE: list[tuple[str, str | None]] = [  # whole messages
    ("```python\nx = 1\n```", "x = 1"),
    ("```\nx = 1\n```", "x = 1"),
    ("```py\nx = 1\n```", "x = 1"),
    ("```Python3\r\nx = 1\r\n```\r\n", "x = 1"),
    ("Code:\n\n  ```python\n  x = 1\n  ```\nDone.", "x = 1"),
    ("```python\n    x = 1\n    y = 2\n```", "    x = 1\n    y = 2"),
    ("```python\n\n\nx = 1\n\n```", "x = 1"),
    ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''"),
    ("```python\na\n```\n```python\nb\n```", "b"),
    ("```python\na\n```\n```bash\nls\n```", "a"),
    ("```python\na\n```\n```python\nb", "a"),  # the last one never closes
    ("```python\na\n```python\nb\n```", "a\n```python\nb"),  # only a bare fence closes
    ("```python\na\n```\n```python\n```", None),  # the last complete one is empty
    ("```python\na", None),
    ("```bash\nls\n```", None),
    ("```bash\nls\n```\n\\boxed{x}", None),  # a fence line, so the box does not count
    ("```python\n{\n```\n\\boxed{x}", "{"),
    ("Use ```x``` inline, \\boxed{y = {}}", "y = {}"),
    ("\\boxed{ return x }", " return x"),
    ("x = 1", None),
    ("`x = 1`", None),
    ("", None),
    ("```", None),
]

F = "def f(x):\n    return x"
CODE += [  # blocks as chat models write them; the program is `def f`
    (f"```python\n{F}\n```\nThis prints:\n```\n4\n```\n", F),
    (f"```python\n{F}\n```\n```text\n4\n```\n```sh\npython f.py\n```", F),
    (f"```python\n{F}\n```\nFor example:\n```python\nprint(f(3))\n```", F),
    (f"```python\ndef f(x): pass\n```\nBetter:\n```\n{F}\n```", F),
    (f"```\n{F}\n```\n```\n4\n```", F),
    ("```python\nx = 1\n```\n```\n1\n```", "x = 1"),
    ("```python\nf = lambda x: x\n```\n```python\nf(3)\n```", "f = lambda x: x"),
    (f"```python title='f.py' linenos\n{F}\n```", F),
    (f"``` python\n{F}\n```", F),
    (f"```python3.11\n{F}\n```", F),
    (f"```Python:f.py\n{F}\n```", F),
    (f"```{{.python .numberLines}}\n{F}\n```", F),
    ("```python-repl\n>>> 1\n```", None),
    (f"~~~python\n{F}\n~~~", F),
    (f"~~~~\n{F}\n~~~\n~~~~~", f"{F}\n~~~"),
    ("~~~python\nx = '''\n```\n'''\n~~~", "x = '''\n```\n'''"),
    ("1. So:\n\n   ```python\n   def f(x):\n       return x\n   ```\n2. Done.", F),
    ("- a\n  - b\n    ```py\n    def f(x):\n        return x\n    ```", F),
    ("> ```python\n> def f(x):\n>     return x\n> ```", F),
    ("> - So\n>   ```\n>   def f(x):\n>       return x\n>   ```", F),
    ("   ```python\n   def f(x):\n       return x\n   ```", F),
    ("    ```python\n    x = 1\n    ```\n\\boxed{y}", "y"),  # indented by four: not a fence
    (f"<think>\nhm\n</think>\n```python\n{F}\n```", F),
    (f"Text before\n```python\n{F}\n```", F),
    (f"```python\n{F}\n```\nand\n```python\ndef f(x): ret", F),  # cut off
    ("- ```python\nx = 1\n```", None),  # the list, and with it the block, ends unclosed
    ("```python\nx = 1\n    ```", None),
    ("```python\nx = 1\n```\x0b", None),
]

TEXTS: list[tuple[str, str | None]] = [
    ("\\boxed{red}", "red"),
    ("\\boxed{ Red apple }", "Red apple"),
    ("\\boxed{a {b} c}", "a {b} c"),
    ("\\boxed{\\text{red}}", "red"),
    ("\\boxed{$\\mathrm{\\textbf{ New York }}$}", "New York"),
    ("\\boxed{\\(\\text{red}\\)}", "red"),
    ("\\boxed{\\text{a} \\text{b}}", "\\text{a} \\text{b}"),
    ("\\boxed{{a} or {b}}", "{a} or {b}"),
    ("\\boxed{$a$ or $b$}", "$a$ or $b$"),
    ("\\boxed{\\text{}}", None),
    ("\\boxed{f(\\{1\\})}", "f(\\{1\\})"),
    ("\\boxed{34}", "34"),
    ("\\boxed{red} \\boxed{ }", None),
    ("\\boxed{\n}", None),
    ("red", None),
    ("", None),
]


def typeset(table: str) -> str:
    """The spaces of typesetting are written as escapes, to be seen."""
    for code in ("2009", "202f", "00a0"):
        table = table.replace(f"\\u{code}", chr(int(code, 16)))
    return table


def rows(table: str) -> Iterator[tuple[str, str]]:
    """(value, spelling) of a table of readable answers."""
    for line in typeset(table).strip().split("\n"):
        value, _, spellings = line.partition(" = ")
        yield from ((value, spelling) for spelling in spellings.split(" ¦ "))


def spellings(table: str) -> list[str]:
    return [
        spelling for line in typeset(table).strip().split("\n") for spelling in line.split(" ¦ ")
    ]


def corpus() -> list[tuple[str, str, str | int | Fraction | None]]:
    """(kind, message, expected) of every string above, bare ones boxed."""
    box = "so \\boxed{{{}}} it is".format
    numbers = [("number", box(text), Fraction(value)) for value, text in rows(NUMBERS)]
    return [
        *numbers,
        *(("number", box(text), None) for text in spellings(NO_NUMBERS)),
        *(("nli", box(text), label) for label, text in rows(LABELS)),
        *(("nli", box(text), None) for text in spellings(NO_LABELS)),
        *(("number", *row) for row in MESSAGES),
        *(("code", *row) for row in CODE),
        *(("text", *row) for row in TEXTS),
    ]


def test_the_corpus_is_read_as_specified():
    table = corpus()
    assert len({row[:2] for row in table}) == len(table) >= 400
    misread = {
        (kind, text): read
        for kind, text, expected in table
        if (read := extract_answer(text, kind)) != expected
    }
    assert misread == {}


def test_bare_answers_are_read_by_the_same_rules():
    bare = [("number", text, Fraction(value)) for value, text in rows(NUMBERS)]
    bare += [("number", text, None) for text in spellings(NO_NUMBERS)]
    bare += [("nli", text, label) for label, text in rows(LABELS)]
    bare += [("nli", text, None) for text in spellings(NO_LABELS)]
    assert [row for row in bare if parse_answer(row[1], row[0]) != row[2]] == []


def test_whole_numbers_are_ints_and_others_exact_fractions():
    assert type(extract_answer(r"\boxed{68/2}", "number")) is int
    assert type(extract_answer(r"\boxed{34.0}", "number")) is int
    tenth = extract_answer(r"\boxed{0.1}", "number")
    assert type(tenth) is Fraction
    assert tenth != 0.1  # the float is off by 5.6e-18


# --- Kinds, gold answers, equality, last lines ---------------------------------------------------


def test_an_unknown_kind_is_refused_with_the_valid_ones():
    for call in (extract_answer, parse_answer, read_gold):
        with pytest.raises(ValueError, match=r"'numbr'.*number, nli, text, code"):
            call("34", "numbr")


def test_a_kind_of_ones_own_is_read_from_the_box(monkeypatch):
    def letter(text: str) -> str | None:
        return text if text in "ABCD" else None

    monkeypatch.setitem(KINDS, "letter", AnswerKind(letter))
    assert extract_answer(r"\boxed{E} \boxed{B}", "letter") == "B"
    assert extract_answer(r"\boxed{B} \boxed{E}", "letter") is None
    assert read_gold("C", "letter") == "C"


def test_readable_gold_answers():
    assert read_gold("1,080", "number") == 1080
    assert read_gold(18, "number") == 18
    assert read_gold(0.5, "number") == read_gold(Fraction(1, 2), "number") == Fraction(1, 2)
    assert read_gold("Neutral", "nli") == "neutral"
    assert read_gold("    return x\n", "code") == "    return x"


@pytest.mark.parametrize(
    "gold", ["", " ", "34 apples", "1,2", None, True, float("nan"), "x" * 9999]
)
def test_a_gold_answer_that_cannot_be_read_is_refused(gold):
    with pytest.raises(ValueError, match=r"gold answer .* is not readable as 'number'") as refusal:
        read_gold(gold, "number")
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("gold", [None, True])
def test_what_is_no_answer_is_not_spelled_out_as_text(gold):
    with pytest.raises(ValueError, match=r"is not readable as 'text'"):
        read_gold(gold, "text")


def test_equality_needs_two_answers_of_one_type():
    assert answers_equal(34, Fraction(68, 2))
    assert answers_equal("neutral", "neutral")
    assert not answers_equal(1, 21)
    assert not answers_equal("1", 1)
    assert not answers_equal("1", "21")
    assert not answers_equal(None, None)  # an unreadable answer never equals an unreadable key
    assert not answers_equal(0, None)
    assert not answers_equal(None, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + 2 = 4\nA: 4", 4),
        ("A: 1\nA: 2\n\n \n", 2),
        ("  A:-1,200.50  \r\n", Fraction(-2401, 2)),
        ("A: 4\nThat is all.", None),
        ("so A: 4", None),
        ("A: -1.8 billion", None),
        ("A: 4 5", None),
        ("A:", None),
        ("4", None),
        ("", None),
    ],
)
def test_the_number_of_the_last_line(text, expected):
    assert last_line_answer(text) == expected


def test_another_marker_of_the_last_line():
    assert last_line_answer("x\n#### 7", marker="####") == 7
    assert last_line_answer("x\nA: 7", marker="####") is None
    assert last_line_answer("7%", marker="%") is None  # the marker must open the line


# --- Real text -----------------------------------------------------------------------------------


def gsm8k_lines(data_dir: Path, name: str) -> list[dict]:
    path = data_dir / "gsm8k" / name
    if not path.is_file():
        pytest.skip(f"no real data: {path} is not a file")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_3600_real_solutions_agree_with_their_published_marks(data_dir):
    table = gsm8k_lines(data_dir, "example_model_solutions.jsonl")
    solutions = [
        (last_line_answer(row["ground_truth"]), solution["solution"], solution["is_correct"])
        for row in table
        for solution in row.values()
        if isinstance(solution, dict)
    ]
    assert len(solutions) == 3_600

    def boxed(text: str) -> str:
        head, marker, number = text.rstrip().rpartition("\nA: ")
        return rf"{head}\boxed{{{number}}}" if marker else text

    for read in (last_line_answer, lambda text: extract_answer(boxed(text), "number")):
        agree = [answers_equal(read(text), gold) == mark for gold, text, mark in solutions]
        assert sum(agree) == 3_600


@pytest.mark.parametrize(("name", "count"), [("train.jsonl", 7_473), ("test.jsonl", 1_319)])
def test_every_real_gold_answer_is_a_whole_number(data_dir, name, count):
    golds = [row["answer"].rpartition("####")[2] for row in gsm8k_lines(data_dir, name)]
    assert [type(read_gold(gold, "number")) for gold in golds] == [int] * count


@pytest.mark.parametrize(
    ("computed", "right"),
    [
        (0.1 + 0.2, "0.3"),
        (100 / 3, r"\frac{100}{3}"),
        (80 / 9, "80/9"),  # 15 digits
        (-1.1 - 2.2, "-3.3"),
        (sum([0.1] * 10), "1"),
        (0.1 * 3e-5, "3e-6"),
        (4.35 * 100, "435"),
    ],
)
def test_a_float_with_rounding_errors_is_the_number_it_stands_for(
    computed: float, right: str
) -> None:
    gold = read_gold(str(computed), "number")
    assert str(computed) not in (right, "-3.3")  # there is such an error
    assert extract_answer(rf"\boxed{{{right}}}", "number") == gold
    assert extract_answer(rf"\boxed{{{computed}}}", "number") == gold


@pytest.mark.parametrize(
    "text",
    [
        "3.141592653589793",
        "0.30000000000000005",
        "0.1234567890123456",
        "1.00000000000001",
        "9007199254740.992",
    ],
)
def test_a_number_that_is_near_no_plain_one_stays_exact(text: str) -> None:
    assert read_gold(text, "number") == Fraction(text)


def test_long_gold_answers_are_not_kept_in_memory() -> None:
    """Clients of a service choose them: what is remembered of them has to stay small."""
    tracemalloc.start()
    try:
        for number in range(300):
            text = f"{number}-" + "x" * 100_000
            assert gold(text, "text") == text
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
    finally:
        tracemalloc.stop()
    assert gold("34", "number") == gold("34.0", "number") == 34
