"""The Python in the docstrings of modules runs, with stand-ins for what the reader would bring."""

from __future__ import annotations

import ast
import importlib
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from maporl_env import declared
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig
from maporl_env.sandbox import SandboxUnavailable
from maporl_env.types import Question

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"maporl_env": ROOT, "maporl_agents": ROOT / "agents"}
BLOCK = re.compile(r"(?:^\n|\A)((?:^ {4}.*\n|^\n)+)", re.MULTILINE)
QUESTIONS = [Question(f"q{n}", f"{n} + 1 ?", str(n + 1), "number") for n in range(64)]


def answers(prompts: list[Any]) -> list[str]:
    """A model that always gives the same answer."""
    return [r"\boxed{3}"] * len(prompts)


def is_code(block: str) -> bool:
    """Whether a block is Python that calls or imports something."""
    try:
        tree = ast.parse(block)
    except SyntaxError:
        return False
    return any(isinstance(node, (ast.Call, ast.Import, ast.ImportFrom)) for node in ast.walk(tree))


def snippets() -> dict[str, str]:
    """The Python of each module's docstring, by the module's name."""
    found = {}
    for package, room in ROOMS.items():
        for path in sorted((room / package).rglob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            blocks = [textwrap.dedent(block) for block in BLOCK.findall(text + "\n")]
            name = ".".join(path.relative_to(room).with_suffix("").parts)
            if code := "\n".join(filter(is_code, blocks)):
                found[name.removesuffix(".__init__")] = code
    return found


def third_turn() -> dict[str, Any]:
    """What an agent reads after two turns."""
    batch = BatchedDebate(DebateConfig(task="sharing", num_agents=2), batch_size=1)
    batch.reset(batch.game.task.split("test")[:1])
    batch.step([r"\boxed{1}", r"\boxed{2}"])
    return {
        "prompt": batch.prompts()[0],
        "template": batch.game.task.template,
        "first": r"\boxed{1}",
    }


def one_debate() -> dict[str, Any]:
    config = DebateConfig(task=QUESTIONS, num_agents=2)
    return {
        "debate": config.load().debate(),
        "question": QUESTIONS[0],
        "answer": lambda prompt: r"\boxed{1}",
        "verifier": lambda questions, responses: [1.0] * len(responses),
    }


def recorded_file() -> dict[str, Any]:
    said = {"solution": "1 + 1 = 2\nA: 2", "is_correct": True}
    row = {"question": "1 + 1 ?", "ground_truth": "1 + 1 = 2\nA: 2", "175b": said}
    Path("example_model_solutions.jsonl").write_text(json.dumps(row), encoding="utf-8")
    return {"replay": importlib.import_module("maporl_env.replay")}


# What stands in for the reader's own, by module.
GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "maporl_env.batched": lambda: {"questions": QUESTIONS, "generate": answers},
    "maporl_env.bridges.collaboration": lambda: {"gymnasium": gymnasium},
    "maporl_env.bridges.endpoint": lambda: {"gymnasium": gymnasium},
    "maporl_env.bridges.single_agent": lambda: {"gymnasium": gymnasium, "my_model": answers},
    "maporl_env.bridges.tokens": lambda: {"gymnasium": gymnasium, "my_model": answers, "id_": 50},
    "maporl_env.bridges.vector": lambda: {
        "gymnasium": gymnasium,
        "my_model": answers,
        "texts": answers(QUESTIONS),
    },
    "maporl_env.debate": one_debate,
    "maporl_env.declared": lambda: vars(declared).copy(),
    "maporl_env.replay": recorded_file,
    "maporl_env.sandbox": dict,
    "maporl_env.scripted": third_turn,
    "maporl_env.verifiers.latex_equivalence": lambda: {"Question": Question},
    "maporl_agents.phases": dict,
    "maporl_agents.verifier": dict,
}
# Not run here, because it needs a service, another library or minutes; where the same calls run.
ELSEWHERE = {
    "maporl_env.bridges.calls": "tests/env/bridges/test_calls.py",
    "maporl_agents.play.partners": "tests/agents/play/test_partners.py",
    "maporl_agents.mixtures.merged_adapters": "tests/agents/mixtures/test_merged_adapters.py",
    "maporl_env.bridges.openenv": "tests/bridges/test_openenv.py",
    "maporl_env.bridges.overcooked": "tests/bridges/test_overcooked.py",
    "maporl_env.bridges.sb3": "tests/bridges/test_sb3_vec_env.py",
    "maporl_env.bridges.speakers": "tests/bridges/test_speakers.py",
    "maporl_env.bridges.textarena": "tests/bridges/test_textarena.py",
    "maporl_env.bridges.tianshou": "tests/bridges/test_tianshou.py",
    "maporl_env.bridges.trl": "tests/bridges/test_trl.py",
    "maporl_env.protocols.bank_file": "tests/env/debate/test_bank_file.py",
    "maporl_env.revision.teams": "tests/env/revision/test_teams.py",
    "maporl_env.tasks.reasoning": "tests/env/tasks/test_reasoning_gym.py",
    "maporl_env.verifiers.remote": "tests/env/verifiers/test_remote.py",
    "maporl_env.verifiers.judge": "tests/env/verifiers/test_judge.py",
    "maporl_agents": "tests/examples/test_readme.py",
    "maporl_agents.models.grouped_adapters": "tests/agents/models/test_grouped_adapters.py",
    "maporl_agents.play.vllm_engine": "tests/agents/play/test_vllm_engine.py",
    "maporl_agents.play.speak": "tests/agents/play/test_speak.py",
    "maporl_agents.play.vllm_client": "tests/agents/play/test_vllm_engine.py",
    "maporl_agents.bridges.outside": "tests/bridges/test_outside.py",
    "maporl_agents.bridges.sb3_policy": "tests/bridges/test_sb3_policy.py",
}


def told(code: str, line: int) -> Any:
    """The value that the comment at the end of a line tells, or None."""
    comment = code.splitlines()[line - 1].rpartition("  # ")[2]
    try:
        return ast.literal_eval(comment.split(", ")[0])
    except (SyntaxError, ValueError):
        return None


def run(code: str, names: dict[str, Any]) -> None:
    """Run a snippet; what a comment tells of an expression must be its value."""
    for node in ast.parse(code).body:
        if isinstance(node, ast.Expr) and (expected := told(code, node.lineno)) is not None:
            assert eval(ast.unparse(node), names) == expected
        else:
            exec(ast.unparse(node), names)


def test_each_snippet_is_run_or_its_test_is_named() -> None:
    assert set(snippets()) == {*GIVEN, *ELSEWHERE}
    assert [test for test in ELSEWHERE.values() if not (ROOT / test).is_file()] == []


@pytest.mark.thorough
@pytest.mark.parametrize("name", GIVEN)
def test_snippet_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("maporl_agents"):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    try:
        run(snippets()[name], {**vars(module), **GIVEN[name]()})
    except (SandboxUnavailable, ImportError) as error:
        if isinstance(error, ImportError) and "pip install" not in str(error):
            raise
        pytest.skip(str(error))


def test_a_wrong_comment_is_seen() -> None:
    run("f(6)  # 42, an answer", {"f": lambda x: 7 * x})
    with pytest.raises(AssertionError):
        run("f(6)  # 43, an answer", {"f": lambda x: 7 * x})


# What reStructuredText reads as the beginning of emphasis, a substitution or a reference, outside
# of ``literals`` and `roles`; the builder of the site takes one without an end for a fault.
LITERAL = re.compile(r"``.+?``|`[^`]+`_{0,2}|\*\*\S.*?\S\*\*|(?<!\w)\*\w[^*]*\*(?!\w)", re.DOTALL)
UNENDED = re.compile(r"(?:(?<=\s)|(?<=[(\[{'\"])|^)(?:\*{1,2}|\||`{1,2})(?=\w)|`")


def unended_markup(docstring: str) -> list[str]:
    """Return the lines of a docstring in which markup begins that has no end.

    A described argument, such as ``*tensors:``, is none: the site's builder escapes it.
    """
    blocks = BLOCK.sub("\n", docstring + "\n") if "::" in docstring else docstring
    lines = LITERAL.sub("", blocks).splitlines()
    return [line for line in lines if UNENDED.search(re.sub(r"^\s+\*{1,2}(?=\w+:)", "", line))]


def test_markup_in_docstrings_ends() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    faults = {}
    for package, room in ROOMS.items():
        for path in sorted((room / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                text = ast.get_docstring(node) if isinstance(node, kinds) else None
                if text and (lines := unended_markup(text)):
                    faults[f"{path.name}:{getattr(node, 'lineno', 1)}"] = lines
    assert faults == {}


def test_markup_without_end_is_seen() -> None:
    assert unended_markup("Return rows of a tensor (T, *shape).") != []
    assert unended_markup("The `name of a setting.") != []
    assert unended_markup("The norm |x of a vector.") != []
    assert (
        unended_markup("A tensor (T, ``*shape``), *always* whole, a * b, `name`, **bold**.") == []
    )
