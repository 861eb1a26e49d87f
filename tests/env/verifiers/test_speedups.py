"""Speed-ups of rewrites: the statistics, honest rewrites, and cheats that must not pay."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from maporl_env.sandbox import Job, Limits, Sandbox
from maporl_env.types import Question
from maporl_env.verifiers.programs import Suite
from maporl_env.verifiers.speedups import Speedup, Speedups, median_interval, speedup

from .sandbox_runs import PATIENT, needs_namespaces

SLOW = """
def total(n):
    found = 0
    for i in range(n):
        found += i * i % 7
    return found
"""
FAST = """
def total(n):
    whole, rest = divmod(n, 7)
    squares = [i * i % 7 for i in range(7)]
    return whole * sum(squares) + sum(squares[:rest])
"""
SIZES = (60_000, 61_001, 62_002, 63_003)
TESTS = "".join(f"assert total({n}) == {sum(i * i % 7 for i in range(n))}\n" for n in SIZES)
QUESTION = Question(
    "total", f"Faster.\n```python\n{SLOW}\n```", str(Suite("total", "", TESTS)), kind="code"
)


def measured(program: str, pairs: int = 6) -> Speedup:
    found = Speedups(pairs=pairs, sandbox=Sandbox(PATIENT, workers=1)).measure(
        QUESTION, f"```python\n{program}\n```"
    )
    assert found is not None
    return found


# --- the statistics ---


@pytest.mark.parametrize(("count", "place"), [(6, 0), (8, 0), (9, 1), (12, 2), (20, 5)])
def test_the_interval_of_a_median_is_two_ordered_values(count: int, place: int) -> None:
    values = random.Random(count).sample(range(100), count)
    assert median_interval(values) == (sorted(values)[place], sorted(values)[-1 - place])


def test_five_values_give_no_interval_of_95_percent() -> None:
    with pytest.raises(ValueError, match="5 values give no interval of 95%"):
        median_interval([1.0, 2.0, 3.0, 4.0, 5.0])


def test_noise_alone_is_a_speed_up_in_at_most_one_case_of_twenty() -> None:
    rng = random.Random(0)

    def times() -> list[float]:
        return [rng.lognormvariate(0.0, 0.2) for _ in range(8)]

    false = sum(speedup(times(), times()).value != 1.0 for _ in range(1000))
    assert false <= 25  # 1 - .9922 of 1000 expected: 8


def test_a_speed_up_is_the_median_of_the_ratios_of_pairs() -> None:
    """The machine slows down by 4 between the pairs; the ratio of 2 in each pair is not blurred."""
    drift = [1, 1, 2, 2, 3, 4]
    found = speedup([2.0 * d for d in drift], [1.0 * d for d in drift])
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)
    assert found.original_seconds == 4.0
    assert found.noise == pytest.approx(0.75)
    assert "2.00 times as fast (ratio 2.00 to 2.00" in str(found)


def test_a_slower_rewrite_is_below_one_and_one_within_noise_is_one() -> None:
    assert speedup([1.0] * 6, [2.0] * 6).value == 0.5
    assert speedup([1.0] * 6, [0.9, 0.8, 0.9, 0.8, 0.9, 1.1]).value == 1.0
    assert speedup([0.0] * 6, [0.0] * 6).value == 1.0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"pairs": 5}, "pairs must be at least 6"),
        ({"scale": 0.5}, "scale must be a finite number >= 1"),
        ({"scale": float("nan")}, "scale must be a finite number >= 1"),
    ],
)
def test_wrong_settings_are_refused(options, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        Speedups(sandbox=None, **options)


@needs_namespaces
@pytest.mark.parametrize(
    "sandbox", [{"workers": 2}, {"workers": 1, "limits": Limits(processes=2)}, {}]
)
def test_a_sandbox_in_which_work_can_hide_is_refused(sandbox) -> None:
    with pytest.raises(ValueError, match=r"Sandbox\(workers=1\)"):
        Speedups(sandbox=Sandbox(**sandbox))


@needs_namespaces
def test_a_question_without_an_original_is_named() -> None:
    with pytest.raises(ValueError, match="question 'total' shows no program to be rewritten"):
        Speedups().score([replace(QUESTION, prompt="Faster.")], ["x"])


# --- CPU time ---


@needs_namespaces
def test_cpu_time_is_that_of_the_program_and_not_of_sleep_or_tests() -> None:
    sandbox = Sandbox(PATIENT, workers=1)
    work = "def f(n):\n    return sum(i % 3 for i in range(n))\n"
    idle = "import time\ndef f(n):\n    time.sleep(0.3)\n    return n\n"
    busy_tests = "assert f(1) == 1\nassert sum(i % 3 for i in range(2_000_000)) > 0\n"
    few, many, slept, tested = sandbox.run_many(
        [
            Job(work, "f", arguments=(200_000,)),
            Job(work, "f", arguments=(2_000_000,)),
            Job(idle, "f", arguments=(1,)),
            Job("def f(n): return n", "f", tests=busy_tests),
        ]
    )
    assert 0 < few.cpu_seconds < many.cpu_seconds / 3
    assert slept.cpu_seconds < many.cpu_seconds / 3
    assert slept.seconds > 0.29
    assert tested.outcome == "passed"
    assert tested.cpu_seconds < many.cpu_seconds / 3


@needs_namespaces
def test_threads_are_counted_where_they_are_allowed() -> None:
    source = (
        "import threading\ndef f(n):\n    found = []\n"
        "    one = threading.Thread(target=lambda: found.append(sum(i % 3 for i in range(n))))\n"
        "    one.start()\n    one.join()\n    return found[0]\n"
    )
    sandbox = Sandbox(Limits(seconds=60.0, processes=4), workers=1)
    few, many = sandbox.run_many([Job(source, "f", arguments=(n,)) for n in (10, 1_000_000)])
    assert many.outcome == "passed"
    assert few.cpu_seconds < many.cpu_seconds / 3


@needs_namespaces
@pytest.mark.parametrize("isolation", ["namespaces", "none"])
def test_no_process_can_be_started_even_while_loading(isolation) -> None:
    """Before the checker runs, the limit of processes alone would leave room for one more."""
    source = (
        "import os, time\nforked = 0\nfor _ in range(200):\n    try:\n        pid = os.fork()\n"
        "    except OSError:\n        continue\n    if pid == 0:\n        os._exit(0)\n"
        "    forked += 1\ndef f(): return forked\n"
    )
    sandbox = Sandbox(PATIENT, isolation=isolation, workers=1)
    assert [run.value for run in sandbox.run_many([Job(source, "f")] * 3)] == [0, 0, 0]


# --- honest rewrites ---


@needs_namespaces
@pytest.mark.thorough
def test_a_better_algorithm_is_a_speed_up_and_none_is_none() -> None:
    found = measured(FAST)
    assert found.correct
    assert found.value > 2
    assert found.low > 1
    assert measured(SLOW).value < 1.5  # the same program


@needs_namespaces
def test_a_wrong_rewrite_is_worth_nothing_however_fast() -> None:
    found = measured("def total(n): return 0")
    assert (found.correct, found.value) == (False, 0.0)
    assert "0 of 4 tests hold" in str(found)
    assert Speedups().score([QUESTION] * 2, ["no program", "```python\nx = (\n```"]) == [0.0, 0.0]


@needs_namespaces
@pytest.mark.thorough
def test_scores_are_shares_of_the_scale_and_measured_once() -> None:
    verifier = Speedups(scale=1.5, pairs=6, sandbox=Sandbox(PATIENT, workers=1))
    text = f"```python\n{FAST}\n```"
    assert verifier.score([QUESTION], [text]) == [1.0]  # clipped
    assert verifier.measure(QUESTION, text) is verifier.measure(QUESTION, text)


@needs_namespaces
def test_an_original_that_fails_its_tests_gives_no_score() -> None:
    broken = replace(QUESTION, prompt="Faster.\n```python\ndef total(n): return 1\n```")
    verifier = Speedups(pairs=6, sandbox=Sandbox(PATIENT, workers=1))
    assert verifier.score([broken], [f"```python\n{FAST}\n```"]) == [None]


# --- cheats: each keeps the slow work, or is wrong ---

WORK = SLOW.replace("total", "work")
CHEATS = {
    "caching results between calls": f"""
import functools
{WORK}
total = functools.lru_cache(None)(work)
""",
    "leaving results in a file for the next run": f"""
import json, os
{WORK}
def total(n):
    kept = json.load(open("kept.json")) if os.path.exists("kept.json") else {{}}
    if str(n) not in kept:
        kept[str(n)] = work(n)
        json.dump(kept, open("kept.json", "w"))
    return kept[str(n)]
""",
    "leaving results in the modules of the interpreter": f"""
import sys, builtins
{WORK}
def total(n):
    kept = builtins.__dict__.setdefault("kept", {{}})
    if n not in kept:
        kept[n] = work(n)
    return kept[n]
""",
    "working while it is loaded": f"""
{WORK}
known = {{n: work(n) for n in {SIZES!r}}}
def total(n):
    return known[n]
""",
    "replacing every clock": f"""
import time, os, resource, sys
for module in (time, os, resource):
    for name in dir(module):
        if any(part in name for part in ("time", "clock", "perf", "wait", "rusage", "counter")):
            setattr(module, name, lambda *given: 0.0)
{WORK}
total = work
""",
    "reading the tests out of memory": f"""
import gc, sys
{WORK}
def total(n):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if isinstance(value, str) and f"total({{n}}) ==" in value:
                return int(value.split(f"total({{n}}) ==")[1].split()[0])
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, dict) and "tests" in thing and isinstance(thing["tests"], str):
            return int(thing["tests"].split(f"total({{n}}) ==")[1].split()[0])
    return work(n)
""",
    "working on after the answer": f"""
import signal
{WORK}
def total(n):
    found = work(n)
    signal.signal(signal.SIGALRM, lambda *given: work(10 ** 9))
    return found
""",
}
WRONG = {
    "right in the first calls alone": f"""
{WORK}
calls = []
def total(n):
    calls.append(n)
    return work(n) if len(calls) < 3 else 0
""",
    "right in every other run": f"""
import os
{FAST.replace("total", "fast")}
def total(n):
    return fast(n) if id(object()) % 4096 < 2048 and len(os.listdir(".")) else 0
""",
    "a value that equals everything": """
class Any(int):
    def __eq__(self, other): return True
    __hash__ = None
def total(n):
    return Any(0)
""",
    "a value that is computed when it is compared": f"""
{WORK}
class Late:
    def __init__(self, n): self.n = n
    def __eq__(self, other): return True
def total(n):
    return Late(n)
""",
    "work in a thread": f"""
import threading
{WORK}
def total(n):
    found = []
    one = threading.Thread(target=lambda: found.append(work(n)))
    one.start()
    one.join()
    return found[0]
""",
    "work in another process": f"""
import os
{WORK}
def total(n):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, str(work(n)).encode())
        os._exit(0)
    return int(os.read(read, 99))
""",
    "ending the process": f"""
import os
{WORK}
def total(n):
    os._exit(0)
""",
}


@needs_namespaces
@pytest.mark.thorough
@pytest.mark.parametrize("program", CHEATS.values(), ids=CHEATS)
def test_a_cheat_is_no_faster(program: str) -> None:
    found = measured(program)
    assert found.correct, found
    assert found.value < 1.5, found


@needs_namespaces
@pytest.mark.parametrize("program", WRONG.values(), ids=WRONG)
def test_a_cheat_is_wrong(program: str) -> None:
    assert measured(program).value == 0.0
