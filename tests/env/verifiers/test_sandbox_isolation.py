"""Callers, kernels and users of the sandbox, and its settings."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from maporl_env import sandbox
from maporl_env.sandbox import Job, Limits, Result, Sandbox, SandboxUnavailable, unavailable

from .sandbox_runs import QUICK, RIGHT, TESTS, children, needs_namespaces


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


@pytest.mark.thorough
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
    }
    results = weak.run_many([Job(source, "f", TESTS) for source in programs])
    assert [r.outcome for r in results] == list(programs.values())
    # Root's child is waited for; the limit of processes forbids an ordinary user the fork itself.
    forks = "import os, time\nif os.fork() == 0: os.setsid(); time.sleep(9)\nos._exit(0)"
    assert weak.run(Job(forks, "f", TESTS)).outcome in ("timeout", "failed")


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
        for module in ("sandbox.py", "declared.py", "similar_names.py"):
            shutil.copy(source / module, folder)
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
