"""``maporl export --push``: an exported run with its model card to the hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

from maporl_agents.commands.model_card import model_card
from maporl_env.tasks.hub import hub_address

CARD = "README.md"
_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


def require_repo(repo: str) -> None:
    """Raise ValueError if a text is no name of a model on the hub."""
    if not _REPO.fullmatch(repo):
        raise ValueError(f"--push takes the name of a model on the hub, OWNER/NAME, not {repo!r}")


def write_card(run: Path, exported: Path, repo: str, licence: str) -> Path:
    """Write the model card into an exported folder and return its path."""
    path = exported / CARD
    path.write_text(model_card(run, exported, repo, licence), encoding="utf-8")
    return path


def require_bases_on_hub(exported: Path) -> None:
    """Raise ValueError for adapters whose base model is a folder of this machine."""
    for file in sorted(exported.glob("*/adapter_config.json")):
        base = str(json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path"))
        if Path(base).is_absolute() or Path(base).exists():
            raise ValueError(
                f"the adapter {file.parent.name} belongs to a base model in a folder of this "
                "machine, where others cannot load it: add --merge, which makes whole models"
            )


def push(exported: Path, repo: str, *, private: bool) -> str:
    """Upload a folder to a model of the hub, which is made if it is not there; return its address.

    What the model holds already stays in its history. The token is that of `hf auth login`, or
    HF_TOKEN.

    Raises:
        ValueError: the hub cannot be reached or refuses; what was exported stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi(endpoint=hub_address())
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=exported, commit_message="Upload an export of maporl"
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError, ValueError) as error:
        words = " ".join(str(error).split())[:300]
        raise ValueError(
            f"the hub ({api.endpoint}) did not take {repo}: {type(error).__name__}: {words}. The "
            f"export is in {exported}; mend the cause (token: `hf auth login`), then `hf upload "
            f"{repo} {exported}`"
        ) from error
    return f"{api.endpoint}/{repo}"
