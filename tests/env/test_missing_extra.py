"""The error text for a missing optional dependency."""

from __future__ import annotations

from pathlib import Path

import pytest

from maporl_env.missing_extra import is_installed, missing_extra

ROOT = Path(__file__).parents[2]


def test_it_says_what_is_missing_for_what_and_how_to_get_it() -> None:
    assert missing_extra("drawing", "pillow", "render") == (
        "drawing needs pillow, which is not installed: pip install 'maporl[render]'"
    )
    assert missing_extra("--log-to wandb", "wandb", None, instead="or leave it out") == (
        "--log-to wandb needs wandb, which is not installed: pip install wandb, or leave it out"
    )


def test_a_package_without_a_name_is_not_called_none() -> None:
    assert "None" not in missing_extra("serving", None, "serve")


def test_whether_a_package_is_installed() -> None:
    assert is_installed("numpy")
    assert not is_installed("no_such_package_of_anybody")


@pytest.mark.parametrize("folder", ["maporl_env", "agents/maporl_agents"])
def test_no_other_module_words_an_error_about_a_missing_extra(folder: str) -> None:
    writers = {
        path.name
        for path in (ROOT / folder).rglob("*.py")
        if "pip install 'maporl[" in path.read_text(encoding="utf-8").split('"""', 2)[-1]
    }
    assert writers - {"missing_extra.py"} == set()
