"""A value of another kind than a setting takes is refused in a sentence that names the setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_type_hints

import pytest

import maporl_agents.config as config
from maporl_env.declared import Checked
from maporl_env.sandbox import Limits

ODD = (object(), "nonsense", float("nan"), ())
DECLARED = ("Annotated", "Literal")


def settings() -> Iterator[tuple[type[Checked], str]]:
    """Yield the classes of settings, and their fields whose annotations say what they take."""
    classes = [one for one in vars(config).values() if isinstance(one, type)]
    for cls in sorted({*classes, Limits}, key=lambda one: one.__name__):
        if issubclass(cls, Checked) and cls is not Checked:
            hints = get_type_hints(cls, include_extras=True)
            for name, hint in hints.items():
                if type(hint).__name__.strip("_").startswith(DECLARED):
                    yield cls, name


@pytest.mark.parametrize(("cls", "name"), list(settings()))
def test_a_value_of_another_kind_is_refused_by_name(cls: type[Checked], name: str) -> None:
    for odd in ODD:
        with pytest.raises(ValueError, match=name):
            cls(**{name: odd})
