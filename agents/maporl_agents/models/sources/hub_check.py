"""Checks that a model of the Hugging Face hub is in the local cache or can be downloaded."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from maporl_env.tasks.hub import hub_answers

_HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)


class _Reach:
    """Holds whether this module, not the user, set the hub's library to offline mode."""

    cut_off = False


def require_found(name: str) -> None:
    """Raise ValueError at once for a model that is neither a folder, nor cached, nor on the hub.

    Where the hub cannot be reached, its library is set to offline mode: it then reads the local
    cache instead of repeating requests for minutes. The mode ends as soon as the hub answers again.
    """
    if Path(name).is_dir():
        return
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(f"cannot load the model {name!r}: there is no such folder")
    by_user = constants.HF_HUB_OFFLINE and not _Reach.cut_off
    if not by_user:
        _Reach.cut_off = not hub_answers(constants.ENDPOINT)
        constants.HF_HUB_OFFLINE = _Reach.cut_off
    known = isinstance(try_to_load_from_cache(name, "config.json"), str)
    if constants.HF_HUB_OFFLINE and not known:
        why = "HF_HUB_OFFLINE is set" if by_user else f"the hub ({constants.ENDPOINT}) is silent"
        raise ValueError(
            f"cannot load the model {name!r}: there is no such folder, none of that name was "
            f"downloaded, and {why}"
        )
