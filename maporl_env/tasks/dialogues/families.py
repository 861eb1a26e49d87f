"""The functions that users of the task `backend` want: a rule each, with drawn numbers.

A family has its rule twice: as text, the reference that the user reads, and as the function that
gives the expected values of the hidden tests. A test runs the one against the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Numbers = Mapping[str, int]


@dataclass(frozen=True)
class Family:
    """A rule with numbers.

    Attributes:
        signature: name and arguments of the function.
        purpose: completes "which ..." in the prompt, without any detail.
        ranges: of each number, (first, last, step).
        body: the reference, a format string over the numbers. A comment is a fact: its topics,
            and the sentence that the scripted user says about them.
        value: `value(numbers, *inputs)` is what the function returns.
        draw_inputs: `draw_inputs(rng, numbers)` draws arguments of a test.
    """

    signature: str
    purpose: str
    ranges: Mapping[str, tuple[int, int, int]]
    body: str
    value: Callable[..., Any]
    draw_inputs: Callable[[random.Random, Numbers], tuple[Any, ...]]

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.signature.partition("(")[0]

    def draw_numbers(self, rng: random.Random) -> dict[str, int]:
        """Return numbers, drawn uniformly from their ranges."""
        return {n: rng.randrange(a, b + 1, step) for n, (a, b, step) in self.ranges.items()}

    def reference(self, numbers: Numbers) -> str:
        """Return the function as the user reads it."""
        return f"def {self.signature}:\n{self.body.format(**numbers)}".rstrip()


def _parking(n: Numbers, minutes: int) -> int:
    hours = -(-max(0, minutes - n["free"]) // 60)
    return min(hours * n["price"], n["most"])


def _parcel(n: Numbers, weight: int, express: bool) -> int:
    price = n["base"] + max(0, weight - n["first"]) * n["more"]
    return price + n["extra"] if express else price


def _late(n: Numbers, days: int) -> int:
    return min(max(0, days - n["grace"]) * n["fee"], n["most"])


def _ticket(n: Numbers, age: int, weekend: bool) -> int:
    price = n["child"] if age < n["young"] else n["senior"] if age >= n["old"] else n["full"]
    return price + n["weekend"] if weekend else price


def _points(n: Numbers, amount: int, member: bool) -> int:
    points = amount // n["unit"]
    return min(points * n["times"] if member else points, n["most"])


def _grade(n: Numbers, points: int) -> str:
    return "A" if points >= n["top"] else "B" if points >= n["pass_"] else "C"


def _order(n: Numbers, stock: int) -> int:
    return -(-(n["full"] - stock) // n["pack"]) * n["pack"] if stock < n["low"] else 0


def _name_ok(n: Numbers, name: str) -> bool:
    long_enough = n["least"] <= len(name) <= n["most"]
    digits = sum(letter.isdigit() for letter in name)
    return long_enough and digits >= n["digits"]


FAMILIES = (
    Family(
        "parking_fee(minutes)",
        "returns what it costs to park for so many minutes",
        {"free": (10, 40, 5), "price": (2, 9, 1), "most": (20, 40, 2)},
        "    # free, first, begin: The first {free} minutes are free.\n"
        "    # price, hour, cost, rate: Every hour after that, also one begun, costs {price}.\n"
        "    # most, maximum, day, limit, cap: It never costs more than {most}.\n"
        "    hours = -(-max(0, minutes - {free}) // 60)\n"
        "    return min(hours * {price}, {most})\n",
        _parking,
        lambda rng, n: (rng.randrange(0, 900),),
    ),
    Family(
        "parcel_price(weight, express)",
        "returns the price of a parcel of a whole number of kilograms, sent as express or not",
        {"base": (3, 9, 1), "first": (1, 5, 1), "more": (1, 4, 1), "extra": (4, 12, 1)},
        "    # base, first, basic, price: The first {first} kilograms cost {base} together.\n"
        "    # more, further, weight, heavy: Every further kilogram costs {more}.\n"
        "    # express, fast, extra: Express costs {extra} more.\n"
        "    price = {base} + max(0, weight - {first}) * {more}\n"
        "    return price + {extra} if express else price\n",
        _parcel,
        lambda rng, n: (rng.randrange(1, 20), rng.random() < 0.5),
    ),
    Family(
        "late_fee(days)",
        "returns the fee for a book that comes back so many days late",
        {"grace": (1, 9, 1), "fee": (1, 6, 1), "most": (15, 40, 5)},
        "    # grace, free, first: The first {grace} days are free.\n"
        "    # fee, day, price, cost: Every day after that costs {fee}.\n"
        "    # most, maximum, limit, cap: The fee is {most} at most.\n"
        "    return min(max(0, days - {grace}) * {fee}, {most})\n",
        _late,
        lambda rng, n: (rng.randrange(0, 40),),
    ),
    Family(
        "ticket_price(age, weekend)",
        "returns the price of a ticket for a person of that age, at a weekend or not",
        {
            "young": (6, 16, 2),
            "old": (60, 70, 5),
            "full": (10, 16, 2),
            "child": (3, 6, 1),
            "senior": (6, 9, 1),
            "weekend": (1, 4, 1),
        },
        "    # child, children, young: Below {young} years it costs {child}.\n"
        "    # senior, seniors, old: From {old} years on it costs {senior}.\n"
        "    # full, adult, normal, price: Otherwise it costs {full}.\n"
        "    # weekend, weekends, surcharge: At a weekend every ticket costs {weekend} more.\n"
        "    price = {child} if age < {young} else {senior} if age >= {old} else {full}\n"
        "    return price + {weekend} if weekend else price\n",
        _ticket,
        lambda rng, n: (
            rng.choice([n["young"], n["old"], rng.randrange(1, 90)]),
            rng.random() < 0.5,
        ),
    ),
    Family(
        "loyalty_points(amount, member)",
        "returns the points for a purchase, of a member of the club or not",
        {"unit": (2, 10, 1), "times": (2, 4, 1), "most": (30, 90, 10)},
        "    # points, unit, amount, rate: There is one point for every full {unit} spent.\n"
        "    # member, members, club: Members get {times} times as many points.\n"
        "    # most, maximum, limit, cap: Nobody gets more than {most} points.\n"
        "    points = amount // {unit}\n"
        "    return min(points * {times} if member else points, {most})\n",
        _points,
        lambda rng, n: (rng.randrange(0, 300), rng.random() < 0.5),
    ),
    Family(
        "grade(points)",
        "returns the grade for so many points, as one letter",
        {"top": (70, 95, 1), "pass_": (30, 60, 1)},
        "    # top, best, a, highest: From {top} points on it is an A.\n"
        "    # pass, passed, b, middle: From {pass_} points on it is a B.\n"
        "    # other, else, fail, failed, c, letters: Below that it is a C.\n"
        "    return 'A' if points >= {top} else 'B' if points >= {pass_} else 'C'\n",
        _grade,
        lambda rng, n: (rng.choice([n["top"], n["top"] - 1, n["pass_"], rng.randrange(0, 101)]),),
    ),
    Family(
        "to_order(stock)",
        "returns how many pieces to order when so many are in stock",
        {"low": (10, 30, 1), "full": (40, 80, 5), "pack": (4, 12, 1)},
        "    # when, low, least, threshold: We order when fewer than {low} pieces are left.\n"
        "    # full, target, many, much: We want at least {full} pieces after that.\n"
        "    # pack, packs, size, multiple: We buy whole packs of {pack}, as few as will do.\n"
        "    return -(-({full} - stock) // {pack}) * {pack} if stock < {low} else 0\n",
        _order,
        lambda rng, n: (rng.choice([n["low"], n["low"] - 1, rng.randrange(0, 60)]),),
    ),
    Family(
        "name_ok(name)",
        "tells whether a user may have that name, as True or False",
        {"least": (2, 6, 1), "most": (8, 16, 1), "digits": (0, 3, 1)},
        "    # short, least, length, minimum: A name has at least {least} characters.\n"
        "    # long, most, maximum, limit: A name has at most {most} characters.\n"
        "    # digit, digits, number, numbers: It holds {digits} digits or more.\n"
        "    digits = sum(letter.isdigit() for letter in name)\n"
        "    return {least} <= len(name) <= {most} and digits >= {digits}\n",
        _name_ok,
        lambda rng, n: (
            "".join(rng.choice("abcxyz127") for _ in range(rng.randrange(1, n["most"] + 3))),
        ),
    ),
)
