"""The wheel: exactly two packages, nothing of them left out, and it runs where it is installed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = {"maporl_env": REPOSITORY, "maporl_agents": REPOSITORY / "agents"}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Standard output of a command; a failure shows both of its streams."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree, built without network."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, REPOSITORY)
    (built,) = out.glob("*.whl")
    return built


def files_on_disk(package: str) -> set[str]:
    """Each file of a package but caches, as the path it should have in the wheel."""
    root = PACKAGES[package]
    return {
        path.relative_to(root).as_posix()
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def test_wheel_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    top_level = {name.split("/")[0] for name in names}
    assert top_level == {"maporl_env", "maporl_agents", "maporl-0.1.0.dist-info"}
    assert {"maporl_env/py.typed", "maporl_agents/py.typed"} <= names


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_holds_every_file_of_a_package(wheel: Path, package: str) -> None:
    """Modules and data alike: the shipped weights and tokenizer are found by this too."""
    in_wheel = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith(f"{package}/")}
    assert in_wheel == files_on_disk(package)


@pytest.mark.thorough
def test_installed_wheel_answers_on_the_command_line(wheel: Path, tmp_path: Path) -> None:
    """Installed alone into a new environment that borrows the third-party packages of this one."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    # Only now, or pip would take the editable install of this environment for the wheel.
    installed = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(installed, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    where = "import maporl_env, maporl_agents; print(maporl_env.__file__, maporl_agents.__file__)"
    for file in run(python, "-I", "-c", where).split():
        assert file.startswith(installed)
    text = run(home / "bin" / "maporl", "--help", cwd=tmp_path)
    for verb in ("train", "eval", "play"):
        assert verb in text
