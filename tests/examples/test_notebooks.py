"""The notebooks: what is saved with them is what they print, and they run from top to bottom."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra dev is not installed: no nbformat")
nbclient = pytest.importorskip("nbclient", reason="the extra dev is not installed: no nbclient")
pytest.importorskip("ipykernel", reason="the extra dev is not installed: no ipykernel")

from maporl_agents.recipes import recipe  # noqa: E402  (dev is asked for first)

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / "examples" / "notebooks").glob("*.ipynb"))
DEBATE, TEAM, REAL = NOTEBOOKS
MAX_BYTES = 400_000
PNG = "image/png"

Notebook = Any
"""nbformat's, which is not typed."""


def read(path: Path) -> Notebook:
    return nbformat.read(path, as_version=4)


def execute(path: Path, folder: Path, seconds: float) -> Notebook:
    """Run a notebook in a new kernel with one thread; an exception in a cell is raised."""
    notebook = read(path)
    client = nbclient.NotebookClient(
        notebook,
        timeout=seconds,  # of one cell
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    return notebook


def code_of(notebook: Notebook) -> Iterator[Any]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def printed(notebook: Notebook) -> list[str]:
    """Return what each code cell printed."""
    return [
        "".join(out.text for out in cell.outputs if out.output_type == "stream")
        for cell in code_of(notebook)
    ]


def pictures(notebook: Notebook) -> list[int]:
    """Return how many pictures each code cell drew."""
    return [sum(PNG in out.get("data", {}) for out in cell.outputs) for cell in code_of(notebook)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestSaved:
    def test_it_was_run_once_from_top_to_bottom(self, path: Path) -> None:
        cells = list(code_of(read(path)))
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        kinds = {out.output_type for cell in cells for out in cell.outputs}
        assert kinds <= {"stream", "display_data"}
        assert not any(out.get("name") == "stderr" for cell in cells for out in cell.outputs)
        assert sum(pictures(read(path))) >= 4

    def test_it_is_small_and_holds_no_paths_of_a_machine(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert len(text.encode()) < MAX_BYTES
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            for out in cell.get("outputs", []):
                out.get("data", {}).pop(PNG, None)
        plain = json.dumps(notebook)
        for name in (str(REPOSITORY), str(Path.home()), "/tmp/", "/home/"):
            assert name not in plain

    def test_its_form_is_valid(self, path: Path) -> None:
        nbformat.validate(read(path))
        assert set(read(path).metadata) == {"kernelspec", "language_info"}


@pytest.mark.thorough
def test_what_a_debate_is_prints_what_is_saved(tmp_path: Path) -> None:
    """Everything in it is exact: the saved text is what this version prints."""
    now, saved = execute(DEBATE, tmp_path, 60), read(DEBATE)
    assert printed(now) == printed(saved)
    assert pictures(now) == pictures(saved)
    text = "".join(printed(now))
    # (0 + .3 * .5 + .09) / 1.39, then right twice.
    assert "rewards of agent_0: [0.173 1.    1.   ], their sum: 2.173" in text
    assert "collaborate with probability [0.0, 0.5, 1.0]" in text  # Observation 1


@pytest.mark.slow
def test_training_a_team_runs_in_the_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPORL_NOTEBOOK", "small")
    now, saved = execute(TEAM, tmp_path, 300), read(TEAM)
    assert pictures(now) == pictures(saved)
    text = "".join(printed(now))
    assert "2 steps of 8 questions, measured on 30 held-out questions" in text
    # Two agents answer 30 questions; every cell of knowledge is counted once.
    for line in ("of {} first answers", "of {} last answers"):
        found = re.findall(line.format(r"(\d+)"), text)
        assert sum(map(int, found)) % 60 == 0
        assert found
    last = re.findall(r"^(\w[\w, ]+?) +last turn (\S+) ±", text, re.MULTILINE)
    assert [name for name, _ in last] == [
        "before training",
        "after training",
        "after, peers shuffled",
        "after, alone",
    ]
    assert all(0 <= float(score) <= 1 for _, score in last)


@pytest.mark.real
@pytest.mark.timeout(900)  # on a machine that others use too
def test_a_real_model_runs_in_the_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("MAPORL_NOTEBOOK", "small")
    now, saved = execute(REAL, tmp_path, 800), read(REAL)
    assert pictures(now) == pictures(saved)
    assert "1 steps of 2 debates, 4 held-out questions" in "".join(printed(now))


def test_the_real_model_was_trained_as_its_notebook_tells() -> None:
    """By the whole recipe; it rose, and fell back with the peers of other questions."""
    text = "".join(printed(read(REAL)))
    assert "THE SMALL RUN" not in text
    config = recipe("smollm2-notes")
    how = f"{config.steps} steps of {config.questions_per_step} debates, 24 held-out questions"
    assert how in text
    votes = dict(re.findall(r"^(before|after|after, peers of other questions): (\S+)$", text, re.M))
    before, after, swapped = (float(vote) for vote in votes.values())
    assert before < 0.4
    assert after > 0.75
    assert swapped < before


def whole(notebook: Notebook) -> str:
    """Return what a notebook printed, if that was after the whole training."""
    text = "".join(printed(notebook))
    how = f"run scripts/run_notebooks.py {TEAM.name} without MAPORL_NOTEBOOK"
    assert "THE SMALL RUN" not in text, f"saved after the small run: {how}"
    return text


def test_a_notebook_saved_after_the_small_run_is_refused() -> None:
    """The words are those that the notebook prints in the small."""
    notebook = read(TEAM)
    assert any("THE SMALL RUN" in cell.source for cell in code_of(notebook))
    first = next(cell for cell in code_of(notebook) if cell.outputs)
    first.outputs = [nbformat.v4.new_output("stream", text="THE SMALL RUN: 2 steps")]
    with pytest.raises(AssertionError, match="saved after the small run"):
        whole(notebook)


@pytest.fixture
def whole_run() -> str:
    """What the saved notebook printed; the small run of the tests is none to save."""
    return whole(read(TEAM))


class TestTrainingATeamAsSaved:
    """What is told about the saved run is true of the saved run."""

    def test_it_was_trained_as_it_says(self, whole_run: str) -> None:
        assert "50 steps of 64 questions, measured on 500 held-out" in whole_run

    def test_the_rise_came_from_the_other(self, whole_run: str) -> None:
        last = dict(re.findall(r"^(\w[\w, ]+?) +last turn (\S+) ±", whole_run, re.MULTILINE))
        score = {name: float(value) for name, value in last.items()}
        assert score["after training"] > score["before training"] + 0.3
        assert score["after, peers shuffled"] < score["before training"] + 0.1
        assert score["after, alone"] < score["before training"] + 0.1

    def test_figures_of_the_studies_are_those_of_their_page(self) -> None:
        told = "\n".join(c.source for c in read(TEAM).cells if c.cell_type == "markdown")
        quoted = re.findall(r"\d\.\d{3} ± \d\.\d{3}", told)
        folder = REPOSITORY / "docs" / "explanation" / "results"
        page = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.md"))
        assert len(quoted) >= 5
        assert [figure for figure in quoted if figure not in page] == []
