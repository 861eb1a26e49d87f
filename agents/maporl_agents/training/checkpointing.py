"""Save and load checkpoints of training: weights, optimiser state, schedule, controls.

A checkpoint is read back as soon as it is written, and examined before it is used.
`records.checkpoint_folder` keeps its files whole through a kill; that what they hold makes sense is
checked here alone, in `_examined`, so that a checkpoint of which a part is wrong changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from maporl_agents import distributed
from maporl_agents.models.sources.weight_files import WeightPair, fingerprint
from maporl_agents.models.team import Team
from maporl_agents.records import checkpoint_folder
from maporl_agents.records.checkpoint_folder import CheckpointError
from maporl_agents.records.optimizer_state import require_fitting
from maporl_agents.training.first_folder import from_first
from maporl_agents.update.optimiser import PolicyLearner

MOST_STEPS = 2**31
"""Bound of what a saved schedule may have counted."""

REMEDY = "Restore it from a copy, or move it away to use an earlier one."


def save_checkpoint(folder: Path, step: int, learner: PolicyLearner) -> Path:
    """Write everything a resumed run needs (random streams are named by step: no state).

    The first rank writes; the others wait until the checkpoint is whole.

    Raises:
        CheckpointError: it could not be written, or what was written cannot be read back.
    """

    def write(target: Path) -> None:
        team = learner.team
        team.save(target)
        try:
            weights = team.read(target)
        except (CheckpointError, ValueError) as error:
            raise _unreadable(error) from error
        tensors, state = checkpoint_folder.optimizer_state(
            learner.optimizer, learner.parameter_names()
        )
        checkpoint_folder.save_tensors(target / "optimizer.safetensors", tensors)
        checkpoint_folder.save_json(
            target / "optimizer.json",
            {
                "optimizer": state,
                "schedule": learner.schedule.state_dict(),
                "controls": learner.controls(),
                "weights": fingerprint(own for own, _ in weights),
            },
        )
        try:
            _examined(target, learner, weights)
        except (CheckpointError, ValueError) as error:
            raise _unreadable(error) from error

    return distributed.first(lambda: checkpoint_folder.save(folder / "checkpoints", step, write))


def load_checkpoint(folder: Path, learner: PolicyLearner) -> int:
    """Read the newest checkpoint of a run into a learner; return its step.

    The learner keeps the settings it was made with (rates, momenta, schedule); weights, moments and
    the place in the schedule are the checkpoint's.

    Raises:
        CheckpointError: it is damaged, or holds what no run saves. The learner is unchanged.
        ValueError: it is of other settings than the learner. The learner is unchanged.
    """
    with from_first(lambda: checkpoint_folder.latest(folder / "checkpoints")) as newest:
        if newest is None:
            return 0
        try:
            saved = _examined(newest, learner, learner.team.read(newest))
            _take_over(saved, learner)
        except CheckpointError as error:
            problem = str(error).removesuffix(".")
            raise CheckpointError(f"Checkpoint {newest} is damaged: {problem}. {REMEDY}") from error
        return checkpoint_folder.step_of(newest)


def load_weights(checkpoint_folder: Path, team: Team) -> None:
    """Read the weights of one checkpoint into a team.

    Raises:
        CheckpointError: they are damaged. The team is unchanged.
    """
    with from_first(lambda: checkpoint_folder) as here:
        assert here is not None
        try:
            team.take_over(team.read(here))
        except CheckpointError as error:
            problem = str(error).removesuffix(".")
            raise CheckpointError(
                f"Checkpoint {checkpoint_folder} is damaged: {problem}. {REMEDY}"
            ) from error


@dataclass(frozen=True)
class _Saved:
    """The contents of a checkpoint, after every check.

    Attributes:
        weights: those of the team with the saved ones.
        tensors: the optimiser's.
        optimizer: the rest of its state.
        place: updates that the schedule has counted.
        controls: for `PolicyLearner.restore`; None in checkpoints of an earlier version.
    """

    weights: Sequence[WeightPair]
    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    place: int
    controls: dict[str, Any] | None


def _unreadable(error: Exception) -> CheckpointError:
    return CheckpointError(f"what was written cannot be read back: {error}")


def _examined(folder: Path, learner: PolicyLearner, weights: Sequence[WeightPair]) -> _Saved:
    """Read a checkpoint, whose weights were read, for a learner, which is not changed.

    Raises:
        CheckpointError: it holds what no run saves.
        ValueError: it is of other settings than the learner.
    """
    state = checkpoint_folder.load_json(folder / "optimizer.json")
    if not isinstance(state, dict) or not {"optimizer", "schedule"} <= state.keys():
        raise CheckpointError("optimizer.json is not an object with optimizer and schedule")
    if "weights" in state and state["weights"] != fingerprint(saved for _, saved in weights):
        raise CheckpointError("its weights are not those that were saved with its optimizer.json")
    tensors = checkpoint_folder.load_tensors(folder / "optimizer.safetensors")
    require_fitting(learner.optimizer, learner.parameter_names(), tensors, state["optimizer"])
    controls = state.get("controls")
    if "controls" in state and not _alike(controls, learner.controls()):
        raise CheckpointError(f"controls in optimizer.json are {_short(controls)}")
    return _Saved(weights, tensors, state["optimizer"], _place(state["schedule"]), controls)


def _place(schedule: Any) -> int:
    """Return the number of updates that a saved schedule has counted."""
    place = schedule.get("last_epoch") if isinstance(schedule, dict) else None
    if type(place) is not int or not 0 <= place <= MOST_STEPS:
        raise CheckpointError(f"the schedule in optimizer.json has counted {_short(place)} updates")
    return place


def _alike(given: Any, own: Any) -> bool:
    """Whether saved controls have the names of a learner's, and numbers where those have some."""
    if isinstance(own, dict):
        return (
            isinstance(given, dict)
            and given.keys() == own.keys()
            and all(_alike(given[name], value) for name, value in own.items())
        )
    if type(own) is float:
        return type(given) in (int, float) and math.isfinite(given)
    return type(given) is type(own)


def _short(value: Any) -> str:
    return repr(value)[:80]


def _take_over(saved: _Saved, learner: PolicyLearner) -> None:
    """Give a learner what a checkpoint holds."""
    if saved.controls is not None:
        learner.restore(saved.controls)
    learner.team.take_over(saved.weights)
    groups, schedule = learner.optimizer.param_groups, learner.schedule
    settings = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    checkpoint_folder.load_optimizer_state(
        learner.optimizer, learner.parameter_names(), saved.tensors, saved.optimizer
    )
    for group, kept, peak, factor in zip(
        groups, settings, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group.update(kept, lr=peak * factor(saved.place))
    schedule.load_state_dict(
        schedule.state_dict()
        | {
            "last_epoch": saved.place,
            "_step_count": saved.place + 1,
            "_last_lr": [group["lr"] for group in groups],
        }
    )
