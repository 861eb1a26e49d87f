"""Slow functions with a faster version each, for the task `optimise`. Written for this project.

A version is Python text in which `CONSTANT` stands for a number that is drawn for each question.
The slow one is what agents are shown; the fast one makes the expected results, and is what scripted
agents of examples and tests hand in. Arguments are expressions, so that a question stays short.
Sizes are such that the slow version takes roughly 30 to 100 ms.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """A slow function and what its questions are made of.

    Attributes:
        slow: the source of the function, as shown.
        fast: a version that returns the same, with a better algorithm.
        cases: draws the calls that are checked and timed: the arguments of each as Python text,
            none twice, or a rewrite that keeps results would look faster than it is.
        constants: from which `CONSTANT` is drawn; () if the source has none.
    """

    slow: str
    fast: str
    cases: Callable[[random.Random], list[str]]
    constants: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.slow.split("def ")[1].split("(")[0]


def _list(rng: random.Random, size: int, high: int) -> str:
    """Return an expression for `size` numbers below `high`, in an irregular order."""
    start, step = rng.randrange(10_000), rng.randrange(1000, 9000)
    return f"[((i * {step} + {start}) ** 3 // 97) % {high} for i in range({size})]"


def _lists(count: int, size: int, high: int) -> Callable[[random.Random], list[str]]:
    return lambda rng: [_list(rng, size + n, high) for n in range(count)]


def _numbers(count: int, low: int, high: int) -> Callable[[random.Random], list[str]]:
    return lambda rng: [str(number) for number in rng.sample(range(low, high), count)]


def _words(count: int, size: int, letters: str) -> Callable[[random.Random], list[str]]:
    def word(rng: random.Random, length: int) -> str:
        return f"''.join({letters!r}[n] for n in {_list(rng, length, len(letters))})"

    return lambda rng: [f"{word(rng, size + n)}, {word(rng, size - n)}" for n in range(count)]


def _ranges(rng: random.Random) -> list[str]:
    starts, stops = _list(rng, 160, 200), _list(rng, 160, 300)
    pairs = f"[(one, 900 + two) for one, two in zip({starts}, {stops})]"
    return [f"{_list(rng, 1200, 100)}, {pairs}" for _ in range(3)]


def _powers(rng: random.Random) -> list[str]:
    return [
        f"{rng.randrange(2, 1000)}, [1500 + n for n in {_list(rng, 100, 1000)}]" for _ in range(4)
    ]


COUNT_PAIRS = Family(
    """
def count_pairs(numbers):
    found = 0
    for i in range(len(numbers)):
        for j in range(i + 1, len(numbers)):
            if numbers[i] + numbers[j] == CONSTANT:
                found += 1
    return found
""",
    """
def count_pairs(numbers):
    seen, found = {}, 0
    for number in numbers:
        found += seen.get(CONSTANT - number, 0)
        seen[number] = seen.get(number, 0) + 1
    return found
""",
    _lists(4, 550, 400),
    tuple(range(200, 600)),
)
UNIQUE = Family(
    """
def count_unique(numbers):
    kept = []
    for number in numbers:
        if number not in kept:
            kept.append(number)
    return len(kept)
""",
    """
def count_unique(numbers):
    return len(set(numbers))
""",
    _lists(4, 1600, 5000),
)
SEQUENCE = Family(
    """
def term(n):
    if n < 2:
        return n
    return (term(n - 1) + CONSTANT * term(n - 2)) % 1000003
""",
    """
def term(n):
    before, now = 0, 1
    for _ in range(n):
        before, now = now, (now + CONSTANT * before) % 1000003
    return before
""",
    _numbers(4, 20, 25),
    tuple(range(1, 50)),
)
PRIMES = Family(
    """
def count_primes(limit):
    count = 0
    for number in range(2, limit):
        prime = True
        for divisor in range(2, number):
            if number % divisor == 0:
                prime = False
                break
        if prime:
            count += 1
    return count
""",
    """
def count_primes(limit):
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\\0\\0"[:limit]
    for number in range(2, int(limit ** 0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
    return sum(sieve)
""",
    _numbers(3, 1600, 2200),
)
DISTANCE = Family(
    """
def distance(one, two):
    if not one or not two:
        return len(one) + len(two)
    if one[0] == two[0]:
        return distance(one[1:], two[1:])
    return 1 + min(distance(one[1:], two), distance(one, two[1:]))
""",
    """
def distance(one, two):
    row = list(range(len(two) + 1))
    for i, left in enumerate(one, start=1):
        before, row = row, [i]
        for j, right in enumerate(two, start=1):
            row.append(before[j - 1] if left == right else 1 + min(before[j], row[-1]))
    return row[-1]
""",
    _words(5, 11, "abcdef"),
)
RANGE_SUMS = Family(
    """
def range_sums(numbers, ranges):
    sums = []
    for start, stop in ranges:
        total = 0
        for place in range(start, stop):
            total += numbers[place]
        sums.append(total)
    return sums
""",
    """
def range_sums(numbers, ranges):
    total, upto = 0, [0]
    for number in numbers:
        total += number
        upto.append(total)
    return [upto[stop] - upto[start] if stop > start else 0 for start, stop in ranges]
""",
    _ranges,
)
BEST_RUN = Family(
    """
def best_run(numbers):
    best = 0
    for start in range(len(numbers)):
        total = 0
        for stop in range(start, len(numbers)):
            total += numbers[stop] - CONSTANT
            if total > best:
                best = total
    return best
""",
    """
def best_run(numbers):
    best = total = 0
    for number in numbers:
        total = max(0, total + number - CONSTANT)
        best = max(best, total)
    return best
""",
    _lists(4, 600, 100),
    tuple(range(40, 60)),
)
COMMON = Family(
    """
def most_common(text, other):
    best = ""
    for letter in text + other:
        if best == "" or (text + other).count(letter) > (text + other).count(best):
            best = letter
    return best
""",
    """
def most_common(text, other):
    both = text + other
    return max(dict.fromkeys(both), key=both.count, default="")
""",
    _words(4, 1500, "abcdefghijklmnop"),
)
DIVISOR = Family(
    """
def divisors(number):
    found = []
    for candidate in range(1, number + 1):
        if number % candidate == 0:
            found.append(candidate)
    return found
""",
    """
def divisors(number):
    small = [n for n in range(1, int(number ** 0.5) + 1) if number % n == 0]
    return small + [number // n for n in reversed(small) if n * n != number]
""",
    _numbers(6, 200_000, 300_000),
)
POWER = Family(
    """
def power_sum(base, exponents):
    total = 0
    for exponent in exponents:
        product = 1
        for _ in range(exponent):
            product = product * base % CONSTANT
        total += product
    return total
""",
    """
def power_sum(base, exponents):
    return sum(pow(base, exponent, CONSTANT) for exponent in exponents)
""",
    _powers,
    (1_000_003, 999_983, 1_000_033, 998_244_353),
)
WINDOWS = Family(
    """
def best_window(numbers):
    best = 0
    for start in range(len(numbers) - CONSTANT + 1):
        best = max(best, sum(numbers[start + place] for place in range(CONSTANT)))
    return best
""",
    """
def best_window(numbers):
    best = total = sum(numbers[:CONSTANT])
    for place in range(CONSTANT, len(numbers)):
        total += numbers[place] - numbers[place - CONSTANT]
        best = max(best, total)
    return best
""",
    _lists(4, 1600, 1000),
    tuple(range(120, 180)),
)
FAMILIES = (
    COUNT_PAIRS,
    UNIQUE,
    SEQUENCE,
    PRIMES,
    DISTANCE,
    RANGE_SUMS,
    BEST_RUN,
    COMMON,
    DIVISOR,
    POWER,
    WINDOWS,
)
