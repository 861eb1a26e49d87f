"""Do the fast tests bite? Puts one-line defects into the arithmetic and counts those they catch.

    .venv/bin/python scripts/mutants.py              # all; exit code 1 if under 95 % are killed
    .venv/bin/python scripts/mutants.py losses.py    # only those whose file has this in its name

A defect ("mutant") replaces a text that stands exactly once in its file: a sign, a horizon, a mask,
a shift, an index; the package `defects` lists them by room. It is put into a copy of the packages,
never into the working tree, and the fast tests of that file run there until one fails.
"""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from defects import MUTANTS, TESTS, Mutant

REPOSITORY = Path(__file__).resolve().parents[1]
COPIED = ("maporl_env", "agents", "tests", "docs", "pyproject.toml")
REQUIRED = 0.95
TIMEOUT_SECONDS = 120
"""Of processor time: a test that a mutant keeps from ending has caught it, a busy machine not."""
LONGEST_SECONDS = 10 * TIMEOUT_SECONDS
"""On the clock, for a test that waits without working."""

SLOW_IMPORTS = (
    "pytest",
    "hypothesis.strategies",
    "pettingzoo",
    "gymnasium",
    "torch",
    "safetensors.torch",
    "tokenizers",
    "peft",
    "transformers.models.llama.modeling_llama",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.auto.modeling_auto",
)


def main(argv: Sequence[str]) -> int:
    """Run the mutants whose file's name contains an argument, or all; return the exit code."""
    chosen = [m for m in MUTANTS if not argv or any(word in m.file for word in argv)]
    if outdated := stale(chosen):
        for mutant in outdated:
            print(f"{mutant.file} does not hold exactly once: {mutant.old}", file=sys.stderr)
        return 2
    _import_what_is_slow()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            _copy(REPOSITORY / name, copy / name)
        for tests in {TESTS[mutant.file] for mutant in chosen}:
            if not passes(copy, tests):
                print(f"{' '.join(tests)} fail without a mutant: mend them first", file=sys.stderr)
                return 2
        return report(_judged(copy, chosen))


def stale(mutants: Sequence[Mutant]) -> list[Mutant]:
    """Return the mutants whose text does not stand exactly once in its file any more."""
    return [m for m in mutants if (REPOSITORY / m.file).read_text().count(m.old) != 1]


def _judged(copy: Path, mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, bool, float]]:
    """Yield each mutant, whether a test failed, and the seconds that took."""
    for mutant in mutants:
        begun = time.monotonic()
        with planted(copy / mutant.file, mutant):
            killed = not passes(copy, TESTS[mutant.file])
        yield mutant, killed, time.monotonic() - begun


def report(judged: Iterator[tuple[Mutant, bool, float]]) -> int:
    """Print a line per mutant, then the score; return 1 if it is too low."""
    killed, survivors = 0, []
    for mutant, dead, seconds in judged:
        killed += dead
        survivors += [] if dead else [mutant]
        word = "killed" if dead else "SURVIVED"
        print(
            f"{word:8}  {seconds:5.1f} s  {mutant.file}: {mutant.old}  ->  {mutant.new}", flush=True
        )
    total = killed + len(survivors)
    share = killed / total if total else 1.0
    print(f"\n{killed} of {total} killed ({share:.1%}); at least {REQUIRED:.0%} are asked for")
    return 0 if share >= REQUIRED else 1


@contextmanager
def planted(path: Path, mutant: Mutant) -> Iterator[None]:
    """Change the copy of a file for the time of the block."""
    sound = path.read_text()
    changed = sound.replace(mutant.old, mutant.new)
    compile(changed, path, "exec")  # a defect that cannot be run would be caught by any test
    path.write_text(changed)
    try:
        yield
    finally:
        path.write_text(sound)


def passes(copy: Path, tests: Sequence[str]) -> bool:
    """Run tests in a fork of this process, which has the slow imports behind it."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT_SECONDS, TIMEOUT_SECONDS + 1))
        os._exit(_run_tests(copy, tests))
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run_tests(copy: Path, tests: Sequence[str]) -> int:
    """Run pytest on the copy, silently, until a test fails; return its exit code."""
    import pytest

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir(copy)
    sys.path[:0] = [str(copy), str(copy / "agents")]
    options = ["-x", "-q", "-m", "not thorough and not slow and not gpu", "-p", "no:cacheprovider"]
    return int(pytest.main([*options, *tests]))


def _import_what_is_slow() -> None:
    """Load the libraries once, before any fork; none of our own modules."""
    sys.dont_write_bytecode = True
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
