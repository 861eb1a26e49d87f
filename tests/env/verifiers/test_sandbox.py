"""Untrusted programs: what passes, what cannot, and that nothing is left of them."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maporl_env import sandbox
from maporl_env.jail import frames
from maporl_env.sandbox import Job, Limits, Result, Sandbox, SandboxUnavailable, unavailable

from .hostile_attempts import ATTEMPTS
from .hostile_programs import KINDS, MEMORY_SCAN

TESTS = "assert f(20) == 10946\nassert f(10) == 89\n"
RIGHT = "def f(n):\n    a, b = 1, 1\n    for _ in range(n): a, b = b, a + b\n    return a\n"
QUICK = Limits(seconds=0.5, memory_mb=256, processes=4)
SUBREAPER = 36

needs_namespaces = pytest.mark.skipif(
    unavailable() is not None, reason=f"no namespaces: {unavailable()}"
)


def children() -> set[int]:
    """Children of this process, by any of its threads."""
    found = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in found for pid in file.read_text().split()}


@pytest.fixture
def no_orphans() -> Iterator[None]:
    """Adopt what a sandbox leaves behind, and find nothing."""
    libc = ctypes.CDLL(None)
    libc.prctl(SUBREAPER, 1, 0, 0, 0)
    before = children()
    try:
        yield
        deadline = time.monotonic() + 20  # on a busy machine
        while children() - before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert children() <= before
    finally:
        libc.prctl(SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "secret"
    path.write_text("canary-of-the-file")
    path.chmod(0o644)
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def source_of(program: str, secret: Path, port: int) -> str:
    if "{" not in program:
        return program
    filled = {
        "{secret!r}": repr(str(secret)),
        "{port}": str(port),
        "{pid}": str(os.getpid()),
        "{packages!r}": repr(str(Path(np.__file__).parents[1])),
        "{repository!r}": repr(str(Path(sandbox.__file__).parents[1])),
    }
    for name, text in filled.items():
        program = program.replace(name, text)
    return program.replace("{{", "{").replace("}}", "}")


def timed(source: str) -> tuple[Result, float]:
    """Run a program in a sandbox of its own; return the result, and the seconds that took us."""
    start = time.perf_counter()
    result = Sandbox(QUICK, workers=1).run(Job(source, "f", TESTS))
    return result, time.perf_counter() - start


@pytest.fixture
def library() -> Iterator[None]:
    """The standard library is as it was: nothing changed, nothing planted."""
    folder = Path(os.__file__).parent
    before = Path(os.__file__).read_bytes(), sorted(os.listdir(folder))
    yield
    assert (Path(os.__file__).read_bytes(), sorted(os.listdir(folder))) == before


@needs_namespaces
@pytest.mark.parametrize("kind", ATTEMPTS)
def test_the_harmless_twin_of_every_attempt_succeeds(
    kind: str, secret: Path, server: socket.socket, no_orphans: None
) -> None:
    """The control: what is missing below when a program is held is there when it is not."""
    port = server.getsockname()[1]
    attempts = ATTEMPTS[kind].values()
    jobs = [Job(source_of(a.program(a.harmless), secret, port), "f", TESTS) for a in attempts]
    results = Sandbox(Limits(seconds=5, memory_mb=256, processes=4), workers=2).run_many(jobs)
    for name, result in zip(ATTEMPTS[kind], results, strict=True):
        assert "FOUND" in result.output, (name, result)


@needs_namespaces
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_programs_fail_in_time_and_leave_nothing(
    kind: str,
    secret: Path,
    server: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    no_orphans: None,
    library: None,
) -> None:
    monkeypatch.setenv("CANARY", "canary-of-the-environment")
    port = server.getsockname()[1]
    sources = [source_of(program, secret, port) for program in KINDS[kind].values()]
    descriptors = len(os.listdir("/proc/self/fd"))
    dumps = json.dumps
    # On the caller's clock, from the call to its return: start, killing and reaping are in it. How
    # long a start takes is up to the machine; an empty program says so in the same moment.
    empty = timed("")[1]
    with ThreadPoolExecutor(2) as two_at_a_time:
        runs = list(two_at_a_time.map(timed, sources))
    empty = max(empty, timed("")[1])
    for name, (result, took) in zip(KINDS[kind], runs, strict=True):
        assert result.outcome in ("failed", "died", "timeout"), name
        assert result.passed == 0, name
        assert took <= 1 + 3 * (QUICK.seconds + empty), name
        assert not any(word in result.output for word in ("canary", "FOUND")), name
        assert "canary" not in result.detail, name
        assert len(result.output) <= QUICK.output_chars, name
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert json.dumps is dumps
    with pytest.raises(BlockingIOError):
        server.accept()


@needs_namespaces
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("runs", [60, pytest.param(5_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_number_of_runs(runs: int) -> None:
    """Failure R11: less than 5 MB, whatever the programs do."""
    sources = [RIGHT, "import os; os._exit(0)", "print('x' * 10**6)", "def f(", "1 / 0"]
    box = Sandbox(QUICK, workers=2)

    def resident(count: int) -> int:
        for _ in range(count // 20):
            box.run_many([Job(source, "f", TESTS) for source in sources * 4])
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    before = resident(40)
    assert resident(runs) - before < 5 * 10**6


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the memory of such a process")
def test_no_worker_ever_holds_the_tests() -> None:
    weak = Sandbox(isolation="none", workers=1)
    results = weak.run_many([Job(MEMORY_SCAN, "f", TESTS)] * 3)
    # The control: the scan does find what is there. Later jobs have the same tests.
    assert [r.output.splitlines()[0] for r in results] == ["['own']"] * 3


def test_there_are_enough_hostile_programs() -> None:
    assert sum(map(len, KINDS.values())) >= 60


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


PATIENT = Limits(seconds=60.0)  # what is asked is the verdict, not the time
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


@needs_namespaces
def test_threads_may_share_a_sandbox(no_orphans: None) -> None:
    shared = Sandbox(workers=2)
    found: dict[int, list[object]] = {}

    def ask(thread: int) -> None:
        jobs = [Job("def f(n): return n", "f", arguments=(10 * thread + n,)) for n in range(5)]
        found[thread] = [result.value for result in shared.run_many(jobs)]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {t: [10 * t + n for n in range(5)] for t in range(6)}


@needs_namespaces
def test_a_killed_caller_leaves_nothing(no_orphans: None) -> None:
    script = (
        "from maporl_env.sandbox import *\n"
        "print('go', flush=True)\n"
        "Sandbox(Limits(seconds=60)).run(Job('while True: pass', 'f'))\n"
    )
    before = children()
    caller = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert caller.stdout is not None
    caller.stdout.readline()
    time.sleep(1.0)  # the program is under way
    caller.kill()
    caller.wait()
    caller.stdout.close()
    deadline = time.monotonic() + 20  # on a busy machine
    while (left := children() - before) and time.monotonic() < deadline:
        for pid in left:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


@pytest.mark.skipif(unavailable("none") is not None, reason=f"{unavailable('none')}")
def test_the_weak_sandbox_keeps_its_limits_from_root_too() -> None:
    """Root may raise its limits, and the kernel does not count its processes."""
    weak = Sandbox(Limits(seconds=2.0, memory_mb=256), isolation="none")
    programs = {
        RIGHT: "passed",
        "import resource as r\nr.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40))\n" + RIGHT: "failed",
        "import resource as r\nr.setrlimit(r.RLIMIT_NPROC, (999, 999))\n" + RIGHT: "failed",
        "import os\nif os.fork() == 0: os._exit(0)\n" + RIGHT: "failed",
        "import threading\nthreading.Thread(target=print).start()\n" + RIGHT: "failed",
        "import subprocess\nsubprocess.run(['true'])\n" + RIGHT: "failed",
    }
    results = weak.run_many([Job(source, "f", TESTS) for source in programs])
    assert [r.outcome for r in results] == list(programs.values())


@pytest.mark.skipif(unavailable("none") is not None, reason=f"{unavailable('none')}")
def test_the_weak_sandbox_must_be_asked_for_and_keeps_limits(no_orphans: None) -> None:
    weak = Sandbox(replace(QUICK, seconds=2), isolation="none")
    programs = {
        RIGHT: "passed",
        "while True: pass": "timeout",
        "import os\nos.kill(-1, 9)": "failed",
        "import os\nos.kill(os.getppid(), 9)": "failed",
        "import socket\nsocket.socket()": "failed",
        "x = bytearray(1 << 30)": "failed",
        "import os, time\nif os.fork() == 0: os.setsid(); time.sleep(9)\nos._exit(0)": "timeout",
    }
    results = weak.run_many([Job(source, "f", TESTS) for source in programs])
    assert [r.outcome for r in results] == list(programs.values())


def test_a_kernel_without_namespaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    unavailable.cache_clear()
    monkeypatch.setattr(sandbox, "_map_users", lambda pid: (_ for _ in ()).throw(OSError("no map")))
    try:
        with pytest.raises(SandboxUnavailable, match=r"no map.*choose isolation='none'"):
            Sandbox()
        assert Sandbox(isolation="none").run(Job("def f(): return 1", "f")).value == 1
    finally:
        unavailable.cache_clear()


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    unavailable.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    try:
        for isolation in ("namespaces", "none"):
            with pytest.raises(SandboxUnavailable, match="needs Linux, this is darwin"):
                Sandbox(isolation=isolation)  # type: ignore[arg-type]
    finally:
        unavailable.cache_clear()


AS_USER = """
import ctypes, os, sys, types
os.setgroups([]); os.setresgid(54321, 54321, 54321); os.setresuid(54321, 54321, 54321)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # a program started by this user could be looked into
package = types.ModuleType("maporl_env")
package.__path__ = [sys.argv[1]]  # without what the package itself imports
sys.modules["maporl_env"] = package
from maporl_env.sandbox import Job, Limits, Sandbox
jobs = [Job(source, "f") for source in (
    "import os\\ndef f(): return [os.getpid(), os.getuid(), os.path.exists('/home')]",
    "import os\\ndef f(): os.kill(-1, 9)",
    "import os\\ndef f(): os.killpg(0, 9)",  # reaches no supervisor, although it is the same user's
    "import os\\ndef f(): return open(os.__file__, 'a')",
    "def f():\\n    while True: pass",
)]
results = Sandbox(Limits(seconds=0.5), workers=1).run_many(jobs)
assert results[0].value == [1, 1000, False], results[0]
print([r.outcome for r in results])
"""


@needs_namespaces
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_may_run_it(tmp_path: Path) -> None:
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("no Python that every user may run at /usr/bin/python3")
    with tempfile.TemporaryDirectory() as name:  # readable for others, unlike tmp_path
        folder = Path(name)
        folder.chmod(0o755)
        source = Path(sandbox.__file__).parent
        shutil.copytree(source / "jail", folder / "jail")
        shutil.copy(source / "sandbox.py", folder)
        done = subprocess.run(
            [python, "-c", AS_USER, folder], capture_output=True, text=True, timeout=60
        )
    if "SandboxUnavailable" in done.stderr:
        pytest.skip(f"refused to an ordinary user: {done.stderr.splitlines()[-1]}")
    assert done.stdout == "['passed', 'failed', 'passed', 'failed', 'timeout']\n", done.stderr


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one of namespaces, none"):
        Sandbox(isolation="docker")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers must be at least 1"):
        Sandbox(workers=0)
    for limits in ({"seconds": 0}, {"seconds": float("nan")}, {"memory_mb": 1}, {"processes": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(limits))} must be"):
            Limits(**limits)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not plain data"):
        Job("", "f", arguments=(object(),))
    with pytest.raises(ValueError, match="without tests"):
        Job("", "f", tests="assert f()", arguments=(1,))


@needs_namespaces
def test_a_sandbox_is_copied_by_its_settings() -> None:
    box = Sandbox(Limits(seconds=3), workers=2)
    assert pickle.loads(pickle.dumps(box)) == box


def test_result_defaults_claim_nothing() -> None:
    assert Result("died") == Result("died", None, 0, 0, "", "", 0.0)


@needs_namespaces
def test_the_page_about_it_is_true() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "sandbox.md"
    snippets = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec", dont_inherit=True), {"__name__": "snippet"})
