"""Verdicts on programs: outcomes, counts, values and output."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maporl_env import sandbox
from maporl_env.jail import frames
from maporl_env.sandbox import Job, Limits, Sandbox

from .sandbox_runs import PATIENT, RIGHT, TESTS, needs_namespaces


@needs_namespaces
@pytest.mark.parametrize(
    ("source", "outcome", "detail"),
    [
        (RIGHT, "passed", ""),
        (RIGHT + "import os\nx = os.fork if 0 else 1\n", "passed", ""),
        (RIGHT.replace("1, 1", "1, 2"), "failed", "AssertionError"),
        ("def f(n): return 89", "failed", "AssertionError"),
        ("def f(n): return 1 / 0", "failed", "ZeroDivisionError: division by zero"),
        ("def f(n: return n", "failed", "SyntaxError"),
        ("g = 1", "failed", "NameError: the program defines no 'f'"),
        ("import os; os._exit(0)", "died", "the program ended itself"),
        ("while True: pass", "timeout", ""),
    ],
)
def test_outcomes(source: str, outcome: str, detail: str) -> None:
    result = Sandbox(Limits(seconds=0.7)).run(Job(source, "f", TESTS))
    assert result.outcome == outcome
    assert detail in result.detail


@needs_namespaces
def test_assertions_are_counted_one_by_one() -> None:
    tests = (
        "assert True\nassert f(1) == 1\nassert f(2) == 9\nfor n in (3, 4):\n    assert f(n) == n\n"
    )
    result = Sandbox().run(Job("def f(n): return n", "f", tests))
    assert (result.outcome, result.passed, result.total) == ("failed", 2, 3)
    assert result.share == pytest.approx(2 / 3)
    # The error stands outside an assertion: the third is never reached, and counts all the same.
    tests = "assert f(1) == 1\nf('x').upper.nothing\nassert f(2) == 2\n"
    result = Sandbox().run(Job("def f(n): return n", "f", tests))
    assert (result.outcome, result.passed, result.total) == ("failed", 1, 2)


LOOPS = """
def same(got, want):
    assert got == want
for n in (1, 2, 3, 4):
    assert f(n) == n
same(f(5), 5)
same(f(6), 0)
"""


@needs_namespaces
def test_an_assertion_counts_once_for_each_place_it_is_asked_from() -> None:
    result = Sandbox().run(Job("def f(n): return n if n < 4 else 5", "f", LOOPS))
    assert (result.outcome, result.passed, result.total) == ("failed", 1, 3)
    assert result.share == pytest.approx((3 / 4 + 1 + 0) / 3)


MANY = """
def walk(value):
    for item in value:
        assert isinstance(item, (int, list))
        if isinstance(item, list):
            walk(item)
for item in f(3):
    assert isinstance(item, int)
walk(f(4))
assert f(3) == [1, 2, 3]
assert f(2) == [1, 2]
"""


@needs_namespaces
@pytest.mark.parametrize("value", ["[1] * 5_000", "[[[1] * 9] * 9] * 9", "[]"])
def test_a_long_list_adds_nothing_to_the_count(value: str) -> None:
    result = Sandbox(PATIENT).run(Job(f"def f(n): return {value}", "f", MANY))
    assert result.outcome == "failed"
    assert result.total in (4, 5, 6)  # the walk is asked from one place more for each depth
    assert result.share <= (result.total - 2) / result.total


ENDING = {
    "all(map)": "assert all(map(lambda p: f(p[0]) == p[1], [(1, 2), (2, 4)]))",
    "map alone": "assert list(map(f, [1, 2])) in ([], [2, 4])",
    "zip": "for got, want in zip(map(f, [1, 2, 3]), [2, 4, 6]):\n    assert got == want\n"
    "assert len([1]) == 1",
    "next with a default": "assert next(map(f, [1]), 2) == 2",
    "for": "for got in map(f, [1, 2]):\n    assert got\nassert len([1]) == 1",
    "filter": "assert list(filter(f, [1])) == []",
    "iter with a sentinel": "assert list(iter(lambda: f(1), 2)) == []",
    "any": "assert not any(map(f, [1]))",
    "sum": "assert sum(map(f, [])) + sum(map(f, [1])) in (0, 2)",
    "sorted": "assert sorted([2, 1], key=f) == [1, 2]",
    "comprehension": "assert [f(n) for n in [1]] == [2]",
    "generator": "assert all(f(n) == 2 * n for n in [1, 2])",
    "starred": "assert len([*map(f, [1, 2])]) in (0, 2)",
    "in": "assert 3 not in map(f, [1])",
    "unpacking": "first, *rest = [0, *map(f, [1])]\nassert rest in ([], [2])",
    "own iterator": "class A:\n    __iter__ = lambda s: s\n    __next__ = lambda s: f(1)\n"
    "for n in A():\n    break\nassert len([1]) == 1",
    "async": "class A:\n    __aiter__ = lambda s: s\n    async def __anext__(s): return f(1)\n"
    "async def main():\n    async for n in A():\n        break\n"
    "try:\n    main().send(None)\nexcept StopIteration: pass\nassert len([1]) == 1",
}
EXCEPTIONS = (
    "StopIteration",
    "StopIteration(2)",
    "StopAsyncIteration",
    "GeneratorExit",
    "KeyboardInterrupt",
    "SystemExit(0)",
    "type('StopIteration', (StopIteration,), {})()",
    "type('Own', (StopIteration,), {})",
    "type('Own', (BaseException,), {})",
    "__import__('asyncio').CancelledError",
    "AssertionError",
    "RecursionError",
)


@needs_namespaces
@pytest.mark.parametrize("raised", EXCEPTIONS)
def test_no_exception_of_a_program_ends_its_tests(raised: str) -> None:
    source = f"def f(n):\n    raise {raised}\n"
    jobs = [Job(source, "f", tests) for tests in ENDING.values()]
    results = Sandbox(Limits(seconds=5)).run_many(jobs)
    passed = [n for n, result in zip(ENDING, results, strict=True) if result.outcome == "passed"]
    assert passed == []


@needs_namespaces
def test_those_tests_hold_for_the_right_program() -> None:
    jobs = [Job("def f(n): return 2 * n", "f", tests) for tests in ENDING.values()]
    results = Sandbox(PATIENT).run_many(jobs)
    wrong = {n: r.detail for n, r in zip(ENDING, results, strict=True) if r.outcome != "passed"}
    assert set(wrong) <= {"filter", "any"}  # which ask what no right program does


@needs_namespaces
def test_tests_may_hold_a_stub_and_helpers_and_catch_errors() -> None:
    tests = (
        "def half(n):\n    return n / 2\n"
        "def f(n):\n    'the stub'\n"
        "try:\n    f(-1)\nexcept ValueError as error:\n    caught = str(error)\n"
        "assert caught == 'too small'\n"
        "assert half(f(n=4)) == 4\n"
    )
    source = "def f(n):\n    if n < 0: raise ValueError('too small')\n    return 2 * n\n"
    assert Sandbox().run(Job(source, "f", tests)).outcome == "passed"


@needs_namespaces
@pytest.mark.parametrize("tests", ["", "assert True", "x = 1", "assert f(", "\0"])
def test_tests_that_test_nothing_are_no_verdict(tests: str) -> None:
    assert Sandbox().run(Job(RIGHT, "f", tests)).outcome == "invalid"


@needs_namespaces
def test_integers_of_any_length_cross_the_pipes() -> None:
    source = "def f(n, sign=1):\n    r = sign\n    for i in range(2, n + 1): r *= i\n    return r\n"
    tests = (
        "import math\nassert f(5) == 120\nassert f(2000) == math.factorial(2000)\n"
        "assert f(1, 10**6000) == 10**6000\nassert f(1, -3 * 10**9000) == -3 * 10**9000\n"
        "assert f(2000) != math.factorial(2000) + 1\n"
    )
    result = Sandbox(PATIENT).run(Job(source, "f", tests))
    assert (result.outcome, result.detail) == ("passed", "")
    huge = Sandbox(PATIENT).run(Job("def f(): return [1 << 13_000_000]", "f"))
    assert huge.outcome == "failed"
    assert "an integer of 13000001 bits is too long to be sent" in huge.detail
    assert Sandbox().run(Job("def f(n): return (n,)", "f", arguments=(7**9999,))).value == (
        7**9999,
    )


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.frozensets(st.integers(), max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_plain_data_cross_the_pipe_unchanged(value: object) -> None:
    back = frames.unpack(frames.loads(frames.dumps(frames.pack(value))))
    assert back == value
    assert type(back) is type(value)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["tuple", "set", "dict", "bytes", "complex", "x"]), x, max_size=2), max_leaves=8))  # fmt: skip  # noqa: E501
@settings(max_examples=200)
def test_whatever_a_worker_sends_is_a_value_or_a_value_error(data: object) -> None:
    try:
        value = frames.unpack(data)
    except ValueError:
        return
    frames.pack(value)


@needs_namespaces
def test_values_come_back_as_plain_data() -> None:
    source = (
        "from collections import Counter, namedtuple\nP = namedtuple('P', 'x y')\n"
        "def f(n, s): return [Counter(s), P(1, 2.5), {1, 2}, b'b', 1j, None, True, n, '\\ud800']\n"
    )
    result = Sandbox().run(Job(source, "f", arguments=(10**40, "aab")))
    assert result.outcome == "passed"
    expected = [{"a": 2, "b": 1}, (1, 2.5), {1, 2}, b"b", 1j, None, True, 10**40, "\ud800"]
    assert result.value == expected
    assert [type(v) for v in result.value] == [type(v) for v in expected]


@needs_namespaces
def test_what_is_printed_without_flushing_is_kept() -> None:
    """Also by the last call, whose answer ends the process; on a busy machine, too."""
    job = Job("print('top')\ndef f(n): print('call', n)\n", "f", "f(1)\nassert f(2) is None")
    with ThreadPoolExecutor(6) as threads:
        printed = {result.output for result in threads.map(Sandbox().run, [job] * 30)}
    assert printed == {"top\ncall 1\ncall 2\n"}


@needs_namespaces
def test_output_is_kept_up_to_its_limit() -> None:
    source = "import sys\nprint('out', flush=True)\nprint('err', file=sys.stderr)\ndef f(): pass\n"
    assert Sandbox().run(Job(source, "f")).output == "out\nerr\n"
    source = "def f(): print('x' * 10**6, flush=True)\n"
    assert Sandbox(Limits(output_chars=10)).run(Job(source, "f")).output == "x" * 10


@needs_namespaces
def test_the_same_program_always_says_the_same() -> None:
    job = Job("def f(): return [hash('a'), list({'a', 'b', 'c', 'd'})]", "f")
    assert Sandbox().run(job).value == Sandbox().run(job).value


@needs_namespaces
def test_nothing_of_one_program_reaches_the_next() -> None:
    leave = "import sys, math\nmath.pi = 3\nopen('left', 'w').write('x')\ndef f(): return 1\n"
    look = "import os, math\ndef f(): return [math.pi > 3.1, os.listdir('.')]\n"
    results = Sandbox(workers=1).run_many([Job(leave, "f"), Job(look, "f")])
    assert [r.value for r in results] == [1, [True, []]]


@needs_namespaces
def test_many_jobs_keep_their_order_whatever_happens_between() -> None:
    wild = ["import os; os._exit(3)", "def f(n): return open('/etc/passwd')", "x" * 300_000]
    jobs = []
    for n in range(12):
        jobs.append(Job("def f(n): return n", "f", arguments=(n,)))
        jobs.append(Job(wild[n % 3], "f", arguments=(n,)))
    results = Sandbox(workers=3).run_many(jobs)
    assert [r.value for r in results[::2]] == list(range(12))
    assert all(r.outcome in ("failed", "died") for r in results[1::2])
    assert Sandbox().run_many([]) == []


@pytest.mark.parametrize(("cores", "processes", "workers"), [(16, 1, 8), (16, 4, 4), (2, 8, 1)])
def test_processes_of_a_run_share_the_processors(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert sandbox._usual_workers() == workers
