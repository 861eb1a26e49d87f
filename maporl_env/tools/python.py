"""Python as a tool: a program runs in the sandbox, and what it prints comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from maporl_env.sandbox import Job, Limits, Result, Sandbox, SandboxUnavailable

LONGEST_PROGRAM = 10_000
"""Characters; each may take twelve bytes on its way to the sandbox."""
RUNNER = r"""
def run(source):
    import ast
    tree = ast.parse(source, "<program>")
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<program>", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "<program>", "eval"), names)
        if value is not None:
            print(repr(value))
"""
"""Runs in the sandbox, and with it the parser, whose input is hostile too."""


@dataclass(frozen=True)
class Python:
    """Runs each input as a program of its own: nothing is kept from one call to the next.

    A call returns what was printed, the value of a last line that is an expression, and the error
    that ended the program. Its time is wall-clock time, so a result near the limit may differ from
    run to run.

    Attributes:
        seconds: limit of one program.
        output_chars: the most printed characters that are read.
        sandbox: runs the programs; None for one of these limits.

    Raises:
        SandboxUnavailable: this machine cannot run untrusted programs.
    """

    seconds: float = 5.0
    output_chars: int = 4000
    sandbox: Sandbox | None = None
    name = "python"
    use = "a Python program; you get what it prints. Nothing is kept between calls."

    def __post_init__(self) -> None:
        _ = self._sandbox  # which says at once where there is none

    @cached_property
    def _sandbox(self) -> Sandbox:
        if self.sandbox is not None:
            return self.sandbox
        return Sandbox(Limits(seconds=self.seconds, output_chars=self.output_chars))

    def run(self, inputs: Sequence[str]) -> list[str]:
        """Return what each program printed, and how it failed if it did."""
        jobs = [Job(RUNNER, "run", arguments=(_dedented(one),)) for one in inputs]
        try:
            results = self._sandbox.run_many(jobs)
        except (SandboxUnavailable, OSError) as error:
            return [f"error: no program can run now ({error})"] * len(inputs)
        return [self._told(result) for result in results]

    def _told(self, result: Result) -> str:
        """Return a result in words."""
        ended = {
            "passed": "",
            "failed": f"error: {result.detail}",
            "timeout": f"error: the program took longer than {self._sandbox.limits.seconds:g} s",
            "died": f"error: the program was ended ({result.detail})",
        }
        why = ended.get(result.outcome, f"error: the sandbox gave no answer ({result.detail})")
        output = result.output
        if output and why and not output.endswith("\n"):
            output += "\n"
        return output + why


def _dedented(program: str) -> str:
    """Return a program without white space around it; one that is too long as its refusal."""
    if len(program) > LONGEST_PROGRAM:
        return f"raise ValueError('a program may have {LONGEST_PROGRAM} characters')"
    return program.strip()
