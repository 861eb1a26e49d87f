"""Spellings of answers by kind, each with the value that it must be read as."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

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
34 = \boldsymbol{34} ¦ \bm{34} ¦ \mathnormal{34} ¦ \textcolor{red}{34}
34 = {\color{red}34} ¦ \fbox{34}
34 = {\bf 34} ¦ \displaystyle 34 ¦ \displaystyle\frac{68}2 ¦ \frac{68}{2}\quad ¦ \text{34}.
34 = \hbox{34}
12000 = 12\thinspace 000 ¦ 12\thinspace{}000 ¦ 12\,\!000 ¦ 12{\,000} ¦ 12\medspace 000
12000 = {\bf 12\,000}
1000000 = 1{,}000\,000 ¦ 1\,000{,}000 ¦ 1\thinspace 000\thinspace 000 ¦ 1{\,000}{\,000}
1/2 = \frac{1}2 ¦ \frac1{2} ¦ \dfrac{ 1 } 2
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
12\quad 000 ¦ 1{,}000~000 ¦ 1{,}00\,000 ¦ 12{ 000} ¦ 12\thinspace 00 ¦ 12\thinspacex000 ¦ \bfx 34
1{,}234\,56 ¦ 12\thinspace\medspace 000 ¦ \bf 3 4 ¦ \textcolor{red}{3}{4}
\textcolor{34} ¦ \frac{1}23 ¦ 3\frac{1}2 ¦ \text{34}, ¦ \text{3}.5 ¦ {3}.
\foo{34} ¦ **34** ¦ `34` ¦ "34"
"""


LABELS = r"""
entailment = entailment ¦ Entailment ¦ ENTAILMENT ¦ entailment. ¦ "entailment" ¦ 'Entailment'
entailment = \text{entailment}
entailment = \text{ Entailment } ¦ **entailment** ¦ `entailment` ¦ (entailment)
entailment = $\text{entailment}$ ¦ entailment!
neutral = neutral ¦ Neutral ¦ NEUTRAL ¦ neutral. ¦ \textbf{neutral} ¦ \mathrm{Neutral} ¦ {neutral}
neutral = _neutral_ ¦ neutral; ¦ \textsc{neutral} ¦ \hbox{neutral}
neutral = \text{neutral}\! ¦ \text{neutral}.
neutral = \text{neutral}\thinspace ¦ {\bf neutral} ¦ \,\textcolor{red}{neutral}\,
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
\text{neutral} \text{entailment} ¦ \text{not}\text{ neutral} ¦ \bfneutral
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
    *((rf"\boxed{{\{box}{{red}}}}", "red") for box in ("textsc", "hbox", "mbox", "textrm", "bm")),
    ("\\boxed{\\text{red}.}", "red"),
    ("\\boxed{\\text{red.}}", "red."),
    ("\\boxed{red.}", "red."),
    ("\\boxed{\\,\\textrm{red}\\, }", "red"),
    ("\\boxed{\\text{red}\\text{ blue}}", "red blue"),
    ("\\boxed{\\textbf{red}\\ \\text{blue}.}", "\\textbf{red}\\ \\text{blue}."),
    ("\\boxed{\\textbf{red}\\ \\text{blue}}", "red blue"),
    ("\\boxed{{\\bf red}}", "red"),
    ("\\boxed{a\\_b}", "a_b"),
    ("\\boxed{\\text{R\\&D}}", "R&D"),
    ("\\boxed{\\text{a\\_b}\\text{c}}", "\\text{a_b}\\text{c}"),
    ("\\boxed{~}", "~"),
    ("\\boxed{\\,}", None),
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
