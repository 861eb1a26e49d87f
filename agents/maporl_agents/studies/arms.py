"""Arms that several studies have: a trained team with its controls, baselines, variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from maporl_agents.config import TrainConfig, turns_of
from maporl_agents.recipes import recipe
from maporl_agents.studies.incentives import CASES, CEILING, learns, reward_topic
from maporl_agents.studies.jobs import Recipe
from maporl_agents.studies.plan import ArmPlan, StudyPlan
from maporl_agents.studies.results import Claim, Role

QUESTIONS = 400
"""Held-out questions of every measurement."""


def settings_of(name: str) -> TrainConfig:
    """Return a recipe for MAPoRL, measured on `QUESTIONS` held-out questions."""
    config = recipe(name)
    if not isinstance(config, TrainConfig):
        raise ValueError(f"the recipe {name!r} is none for MAPoRL, which the studies train")
    return replace(config, eval=replace(config.eval, questions=QUESTIONS))


SHOPPING, SHARING, COINS = map(settings_of, ("shopping", "sharing", "coins"))
TRAINED = {
    "alone": "trained, each asked alone",
    "self_refinement": "trained, each debating with itself",
    "peers_shuffled": "trained, peers' messages from other questions",
}
"""Controls of a trained team whose members read each other."""
WITH_VERDICTS = {**TRAINED, "verdicts_shuffled": "trained, verdicts shuffled"}
"""The same where verdicts are shown."""
THREE_OR_MORE = (
    "The base model was pre-trained on debates of one or two authors, so before its training it "
    "never saw three or more debaters."
)
"""A note of studies with three or more agents."""


NO_ROOM = (
    f"Where more than {CEILING} of the outcomes are right without bonus there is no room to see an "
    "incentive in. Of changes that are not rewarded, one in twenty moves beyond the spread by "
    "chance."
)
"""A note of studies of incentives."""
BONUSES: dict[str, dict[str, tuple[float, float]]] = {
    "none": {},
    "alpha0": {"alpha": (2.0, 0.0)},
    "alpha1": {"alpha": (0.0, 2.0)},
    "beta0": {"beta": (2.0, 0.0)},
    "beta1": {"beta": (0.0, 2.0)},
}


def together(name: str, label: str, config: TrainConfig, **arm: Any) -> ArmPlan:
    """Return a method: a team trained together by MAPoRL."""
    return ArmPlan(name, label, "method", Recipe("ppo", config), **arm)


def with_controls(
    method: ArmPlan, kinds: Mapping[str, str], *, before: Mapping[str, str] | None = None
) -> tuple[ArmPlan, ...]:
    """Return a method with its controls.

    Args:
        method: the row to control.
        kinds: what is measured of its trained team, with a label each.
        before: what is measured of its untrained team, with a label each.
    """
    untrained = replace(method.recipe, method="none")
    return (
        method,
        *(
            ArmPlan(
                name=f"{method.name}-{kind}",
                label=label,
                role="control",
                recipe=recipe,
                measure=replace(method.measure, kind=kind),  # type: ignore[arg-type]
                of=method.name,
            )
            for recipe, labels in ((method.recipe, kinds), (untrained, before or {}))
            for kind, label in labels.items()
        ),
    )


def claims_of_a_debate(*shuffled: str) -> tuple[Claim, ...]:
    """Return the claims of study 1 on its method "maporl", with the given shuffling controls."""
    return (
        Claim("Off the shelf, a debate does not improve over its turns.", on("off-the-shelf")),
        Claim("After MAPoRL, a debate improves over its turns.", on("turns", "training")),
        Claim(
            "The rise needs what the others say of the same question.",
            on(*(f"maporl-{kind}" for kind in shuffled)),
        ),
        Claim(
            "Asked alone, or each debating with itself, the members are worse.",
            on("maporl-alone", "maporl-self_refinement"),
        ),
        Claim(
            "The trained debate beats as much sampling without training or debate.",
            on("maporl-best_of_n", "maporl-self_consistency"),
        ),
    )


def incentive_study(
    name: str, title: str, config: TrainConfig, notes: tuple[str, ...]
) -> StudyPlan:
    """Return study 3: a team without bonus, and one for each of alpha and beta.

    Args:
        name: of the study.
        title: for people.
        config: the settings without bonus, of three agents.
        notes: what a reader must know.
    """
    trained = [
        turn + 1 for turn in sorted(turns_of(config.team.train_turns, config.game.num_turns))
    ]
    return StudyPlan(
        name=name,
        title=title,
        claim=(
            "A bonus of 2 for alpha0, alpha1, beta0 or beta1 moves the transitions that Tables 1 "
            "and 2 of the paper reward."
        ),
        arms=tuple(
            ArmPlan(
                weight,
                "no bonus" if weight == "none" else f"{weight} = 2",
                "method" if weight == "none" else "variant",
                Recipe("ppo", with_game(config, **bonus)),
                settings={"incentive": weight, "trained_turns": trained},
            )
            for weight, bonus in BONUSES.items()
        ),
        notes=notes,
        claims=tuple(
            Claim(
                f"{weight} moves every change that it rewards.",
                tuple(
                    f"{weight}/{reward_topic(case, turn)}"
                    for turn in range(config.game.num_turns - 1)
                    for case in CASES
                    if case.weight == weight and learns(trained, case, turn)
                ),
            )
            for weight in BONUSES
            if weight != "none"
        ),
    )


def on(*topics: str, method: str = "maporl") -> tuple[str, ...]:
    """Return the names of sentences about one method."""
    return tuple(f"{method}/{topic}" for topic in topics)


def refining(name: str, label: str, config: TrainConfig) -> ArmPlan:
    """Return the baseline of one agent that debates with itself, A = 1, in training and test.

    It gives one answer a turn, so it is trained on A times the questions: equal answers.
    """
    lone = with_team(with_game(config, num_agents=1), sharing="agent")
    lone = replace(lone, questions_per_step=config.game.num_agents * config.questions_per_step)
    return ArmPlan(name, label, "baseline", Recipe("ppo", lone))


def variant(
    label: str, config: TrainConfig, settings: dict[str, Any], *, name: str = "", **arm: Any
) -> ArmPlan:
    """Return a row of the survey; the settings of the study `sharing` are the reference."""
    if not name:
        name = "-".join(map(str, next(iter(settings.items()))))
    usual = config == SHARING and "measure" not in arm
    role: Role = "method" if usual else "variant"
    return ArmPlan(name, label, role, Recipe("ppo", config), settings=settings, **arm)


def with_team(config: TrainConfig, **changes: Any) -> TrainConfig:
    """Return settings with another team."""
    return replace(config, team=replace(config.team, **changes))


def with_game(config: TrainConfig, **changes: Any) -> TrainConfig:
    """Return settings with another game."""
    return replace(config, game=replace(config.game, **changes))
