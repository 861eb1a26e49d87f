"""Run notebooks from top to bottom and save them with what they print and draw.

    .venv/bin/python scripts/run_notebooks.py                        # all of examples/notebooks
    .venv/bin/python scripts/run_notebooks.py examples/notebooks/1_what_a_debate_is.ipynb

The second notebook trains for minutes. No times and no names of this machine are saved.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "examples" / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MAX_SECONDS = 3600  # of one cell


def run(path: Path) -> None:
    """Run one notebook in an empty folder and save it; it stays as it was if a cell fails."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=MAX_SECONDS,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    notebook.metadata = METADATA
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    print(f"saved {path}")


if __name__ == "__main__":
    for given in sys.argv[1:] or sorted(map(str, NOTEBOOKS.glob("*.ipynb"))):
        run(Path(given))
