"""Which settings of a run change a measurement of a team that is not trained any further."""

from __future__ import annotations

from collections.abc import Sequence

from maporl_agents.config import RunConfig, TeamConfig
from maporl_agents.config.effects import leaves, why_idle
from maporl_agents.config.never import CREDIT

MEASURED = ("game.", "sampling.", "eval.")
"""Groups of settings that a measurement reads."""
ONLY_TRAINING = (
    "game.train_split",
    *(f"eval.{name}" for name in ("questions_before", "validation_questions", "every", "patience")),
)
"""Settings in these groups that act in training only."""
PLACING = tuple(
    f"team.{name}"
    for name in ("prompts", "device", "devices", "device_map", "attention", "template", "thoughts")
)
"""Settings by which the models of a run are placed and spoken to."""
LOADING = (
    *PLACING,
    *(f"team.{name}" for name in ("model", "dtype", "quantization", "double_quant", "start_from")),
)
"""Settings by which models are loaded that are not trained."""


UNTRAINED = RunConfig(team=TeamConfig(tuning="none"))
"""The settings of a measurement where there is no run."""


def refuse_idle(config: RunConfig, start: RunConfig, more: Sequence[str], *, of_run: bool) -> None:
    """Refuse settings that change nothing about a measurement.

    Args:
        config: with the settings that were given.
        start: without them.
        more: further ones that act, beside those of the groups `MEASURED`.
        of_run: the team is that of a run.

    Raises:
        ValueError: names the first such setting.
    """
    usual = dict(leaves(start))
    if config.team.start_from and not of_run:
        more = (*more, "team.tuning", "team.sharing")  # by which adapters are found
    for name, value in leaves(config):
        if name in usual and value == usual[name]:
            continue
        paid = any(f"{name}.".startswith(f"{credit}.") for credit in CREDIT)
        idle = paid or name in ONLY_TRAINING or not name.startswith(MEASURED)
        idle = idle or (not of_run and name == "eval.use")  # models have no checkpoints
        if idle and name not in more:
            raise ValueError(
                f"{name} would do nothing here: evaluate trains nothing"
                + (", and the run has its models" if of_run else "")
                + ": leave it out"
            )
        if why := why_idle(config, name):
            raise ValueError(f"{name}={value!r} would do nothing here: {why}")
