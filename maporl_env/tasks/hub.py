"""Data sets by their name on the Hugging Face hub, through the optional library `datasets`."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from maporl_env.missing_extra import missing_extra
from maporl_env.tasks.splits import Numbered

PROBE_SECONDS = 5.0


def source(task: str, data: str | Path | None, hub_name: str) -> Path | str:
    """Return where a named task's data are: a path, or a name on the hub.

    Without `data` that is the folder `$MAPORL_DATA/<task>` if there is one, else the hub.

    Raises:
        FileNotFoundError: `data` is neither a path that exists nor the hub's name.
    """
    if data is None:
        folder = Path(os.environ.get("MAPORL_DATA", "")) / task
        return folder if os.environ.get("MAPORL_DATA") and folder.is_dir() else hub_name
    if str(data) == hub_name:
        return hub_name
    if Path(data).exists():
        return Path(data)
    raise FileNotFoundError(
        f"no such file or folder: {data} (data for task {task!r} is a .jsonl or .csv file, a "
        f"folder of them, or the hub name {hub_name!r})"
    )


def hub_address() -> str:
    """Return the address of the hub, as its own libraries take it from the environment."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def hub_answers(address: str) -> bool:
    """Return whether a hub can be reached now; asks once, for a few seconds at most.

    The hub's own libraries repeat their requests for minutes where nothing can be reached.
    """
    answers: list[bool] = []
    # In a thread: looking up a name has no limit on time of its own.
    probe = threading.Thread(target=lambda: answers.append(_answers(address)), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return answers == [True]


def _answers(address: str) -> bool:
    try:
        urlopen(Request(address, method="HEAD"), timeout=PROBE_SECONDS).close()
    except HTTPError:
        return True  # it answered, if only to refuse
    except (OSError, ValueError):
        return False
    return True


def read_hub(name: str, config: str | None, split: str) -> list[Numbered]:
    """Return the rows of one split of a data set on the hub.

    Raises:
        ValueError: the library is missing, or the data set cannot be loaded.
    """
    return list(_rows(name, config, split, streaming=False))


def stream_hub(name: str, config: str | None, split: str) -> Iterator[Numbered]:
    """Yield the rows of one split as they arrive; errors as :func:`read_hub`."""
    return _rows(name, config, split, streaming=True)


def _rows(name: str, config: str | None, split: str, streaming: bool) -> Iterator[Numbered]:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        instead = "or give the file or folder as data"
        raise ValueError(
            missing_extra(f"reading {name} from the hub", "datasets", "hub", instead=instead)
        ) from None
    address = hub_address()
    cut_off = not hub_answers(address)
    if cut_off:  # then what was downloaded before is read, or an error comes at once
        vars(importlib.import_module("huggingface_hub.constants"))["HF_HUB_OFFLINE"] = True
        vars(datasets.config)["HF_HUB_OFFLINE"] = True
    more = {"streaming": True} if streaming else {}
    try:
        for index, row in enumerate(datasets.load_dataset(name, config, split=split, **more)):
            yield f"{name} ({split}), row {index}", row
    except Exception as error:
        if cut_off:
            raise ValueError(
                f"the data set {name} is not on this machine, and the hub ({address}) does not "
                "answer: give its file or folder as data, or connect"
            ) from error
        raise ValueError(
            f"cannot load {name} ({split}) from the hub: {type(error).__name__}: {error}"
        ) from error
