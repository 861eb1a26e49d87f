"""``maporl export``: a trained run as plain models that need nothing of this package.

    adapters        PeftModel.from_pretrained(base, DIR/<policy>)
    whole models    AutoModelForCausalLM.from_pretrained(DIR/<policy>)

Each folder holds its tokenizer too.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from maporl_agents.commands.push import push, require_bases_on_hub, require_repo, write_card
from maporl_agents.records.storage import new_folder, require_new
from maporl_agents.terminal import console, terminated_as_interrupt

if TYPE_CHECKING:
    from maporl_agents.config import Use

_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Export:
    """Write a run's trained policies as plain adapters or models, for peft or transformers alone.

    Example: maporl export runs/NAME --to models, then load models/agent_0. With --push OWNER/NAME
    they go to the hub, with a model card.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    to: Path
    """A new folder; each policy becomes a sub-folder of its name."""
    merge: bool = False
    """Merge each adapter into its base model: whole models for transformers."""
    checkpoint: Literal["", "best", "last"] = ""
    """The "best" checkpoint on the run's validation slice or the "last"; empty for what the run's
    settings (eval.use) say."""
    push: Annotated[str, tyro.conf.arg(metavar="OWNER/NAME")] = ""
    """Upload it as this model of the Hugging Face hub (or that of HF_ENDPOINT), with a model card
    written from the run: task, held-out figures, limits, licence, settings."""
    license: str = ""
    """Identifier of the licence for the card, such as apache-2.0; empty for mit where only built-in
    models were trained, else "other"."""
    private: bool = False
    """Make the model on the hub private, if it is new."""
    dry_run: bool = False
    """With --push: write the folder and the card, and upload nothing."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        terminal = console()
        if self.push:
            require_repo(self.push)
        elif self.dry_run or self.private or self.license:
            raise ValueError("--dry-run, --private and --license belong to --push OWNER/NAME")
        with terminated_as_interrupt():
            made = export(self.run, self.to, merge=self.merge, use=self.checkpoint)
        for folder in made:
            terminal.print(f"wrote {folder}")
        if self.push:
            require_bases_on_hub(self.to)
            terminal.print(f"wrote {write_card(self.run, self.to, self.push, self.license)}")
            if self.dry_run:
                terminal.print(f"dry run: nothing was uploaded to {self.push}")
            else:
                with terminated_as_interrupt():
                    terminal.print(f"pushed {push(self.to, self.push, private=self.private)}")
        return 0


def export(run: Path, to: Path, *, merge: bool = False, use: Use | Literal[""] = "") -> list[Path]:
    """Write every trained policy of a run's best or last checkpoint into a folder of its own.

    Args:
        run: folder of the run.
        to: a new or empty folder; made whole or not at all.
        merge: add each adapter to its base model, so that it is a whole model. Policies whose
            weights were all trained are whole models anyway.
        use: which checkpoint; empty for what the run's settings say.

    Returns:
        The folders, `to/<policy>`.

    Raises:
        ValueError: `to` holds something, or the run trained nothing or saved no checkpoint, or the
            base model of a merge cannot be read.
        FileNotFoundError: `run` is no run.
        CheckpointError: all checkpoints are damaged.
    """
    from maporl_agents.training.saved_run import read_config
    from maporl_agents.training.validation import chosen_checkpoint

    require_new(to, "--to")
    config = read_config(run)
    if config.team.tuning == "none":
        raise ValueError(f"{run} trained no weights (team.tuning is none): there is nothing new")
    chosen = chosen_checkpoint(run, use or config.eval.use)
    if chosen is None:
        raise ValueError(f"{run} has no checkpoint yet: let it train until it has saved one")
    with new_folder(to, "--to") as ready:
        for policy in sorted((chosen / "policies").iterdir()):
            if merge and (policy / _ADAPTER).exists():
                _merge(policy, ready / policy.name, config.team.dtype)
            else:
                copy_model(policy, ready / policy.name)
    return sorted(to.iterdir())


def copy_model(policy: Path, to: Path) -> None:
    """Copy a saved policy, without what only training reads."""
    from maporl_agents.models.sources.weight_files import TRAINED

    shutil.copytree(policy, to, ignore=shutil.ignore_patterns(TRAINED))


def _merge(adapter: Path, to: Path, dtype: str) -> None:
    """Write base + adapter as one model, in the precision it was trained in, and its tokenizer."""
    import torch
    from peft import PeftConfig, PeftModel

    from maporl_agents.models.gradient_checkpointing import without_notice
    from maporl_agents.models.loading import read_weights
    from maporl_agents.models.mixed_precision import dtype_of
    from maporl_agents.models.sources.weight_files import write_model

    base = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    model = read_weights(str(base), dtype=dtype_of(dtype))
    with torch.no_grad(), without_notice():
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    write_model(merged, to)
    for file in adapter.iterdir():
        if not file.name.startswith(("adapter_", "README")):
            shutil.copy2(file, to / file.name)
