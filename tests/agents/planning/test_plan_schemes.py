"""Plans of every shipped scheme: tokens as the real step counts them, and the declared parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from plan_cases import MACHINE

from maporl_agents import config as settings
from maporl_agents.algorithms import scheme_for
from maporl_agents.config import MAGRPOConfig, MAGRPOSettings, MALTConfig, RunConfig
from maporl_agents.planning.page import show_time
from maporl_agents.planning.plan import Plan, plan_of
from maporl_agents.planning.rehearsal import load_random, rehearse
from maporl_agents.planning.stand_ins import first_questions, stage
from maporl_agents.terminal import console
from maporl_agents.training import experiment

TOKENS = 3


def small(config: RunConfig, folder: Path) -> RunConfig:
    """Return a run of two questions a step, on a saved model, with messages of three tokens."""
    return replace(
        config,
        questions_per_step=2,
        team=settings.TeamConfig(model=(str(folder),), device="cpu"),
        sampling=settings.Sampling(max_new_tokens=TOKENS),
    )


def tree(joining: str, turns: int = 1) -> MAGRPOConfig:
    """Return MAGRPO with groups of two."""
    config = MAGRPOConfig()
    return replace(
        config,
        game=replace(config.game, num_turns=turns),
        magrpo=MAGRPOSettings(group_size=2, joining=joining),  # type: ignore[arg-type]
    )


def written(config: RunConfig) -> float:
    """Return the tokens that the scheme's own first step writes, as its metrics count them."""
    team, learner = experiment.build(config, load=load_random)
    questions, _ = first_questions(config, 2, 0, team.bases[0].chat)
    step = scheme_for(config).train_step
    debates = stage(config.game, questions, made_up=False)
    return float(step(learner, debates, questions, config, seed=0)[1]["tokens"])


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(settings.CONFIGS))
def test_every_shipped_scheme_is_planned(checkpoint: Callable[..., Path], name: str) -> None:
    plan = plan_of(small(settings.CONFIGS[name](), checkpoint("llama")), MACHINE)
    if name == "sweet_rl":  # which declares no work: play, and a rehearsal
        assert set(plan.costs) == {"play"}
        return
    assert set(plan.costs) == {"play", "score", "update"}
    assert min(cost.flops for cost in plan.costs.values()) > 0
    assert set(plan.phases) >= {"sampling", "scoring", "update", "optimiser step"}
    assert bool(plan.held["critics"]) == scheme_for(settings.CONFIGS[name]()).critics


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("joining", "turns"), [("aligned", 1), ("cross", 1), ("aligned", 2), ("cross", 2)]
)
def test_the_trees_of_magrpo_are_counted_as_they_grow(
    checkpoint: Callable[..., Path], joining: str, turns: int
) -> None:
    config = small(tree(joining, turns), checkpoint("llama"))
    assert plan_of(config, MACHINE).new_tokens == written(config)


@pytest.mark.thorough
@pytest.mark.parametrize("variant", ["grpo", "remax"])
def test_the_groups_of_grpo_are_counted(checkpoint: Callable[..., Path], variant: str) -> None:
    """All debates of a group; what the plan leaves out, it says."""
    grpo = settings.GRPOSettings(group_size=3, variant=variant)  # type: ignore[arg-type]
    plan = plan_of(small(settings.GRPOConfig(grpo=grpo), checkpoint("llama")), MACHINE)
    assert plan.new_tokens == TOKENS * 2 * 3 * 2 * 3  # questions, debates of each, agents, turns
    assert plan.new_tokens == written(small(settings.GRPOConfig(grpo=grpo), checkpoint("llama")))
    assert ("the greedy debates of the baseline" in plan.note) == (variant == "remax")


@pytest.mark.thorough
def test_the_trees_of_malt_are_counted_as_they_grow(checkpoint: Callable[..., Path]) -> None:
    config = MALTConfig(
        malt=settings.MALTSettings(branching=3, imitation=settings.FitConfig(epochs=1))
    )
    plan = plan_of(small(config, checkpoint("llama")), MACHINE)
    assert plan.new_tokens == TOKENS * 2 * (3 + 9 + 27)
    assert "the mean of the three of a round" in plan.note


@pytest.mark.thorough
def test_more_epochs_and_more_samples_take_more_work(checkpoint: Callable[..., Path]) -> None:
    def update(magrpo: MAGRPOSettings) -> Plan:
        return plan_of(small(MAGRPOConfig(magrpo=magrpo), checkpoint("llama")), MACHINE)

    one = update(MAGRPOSettings(group_size=2))
    twice = update(MAGRPOSettings(group_size=2, ratio=True, epochs=2))
    four = update(MAGRPOSettings(group_size=4))
    assert twice.costs["update"].flops == pytest.approx(2 * one.costs["update"].flops)
    assert twice.costs["play"].flops == one.costs["play"].flops
    assert four.new_tokens == 2 * one.new_tokens
    assert four.costs["play"].flops > one.costs["play"].flops
    assert four.phases["update"] > one.phases["update"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "config",
    [tree("cross"), settings.IACConfig(), settings.GRPOConfig()],
    ids=["magrpo", "iac", "grpo"],
)
def test_steps_of_other_schemes_are_rehearsed(
    checkpoint: Callable[..., Path], config: RunConfig
) -> None:
    config = small(config, checkpoint("llama"))
    rehearsal = rehearse(config, plan_of(config, MACHINE), 60)
    assert rehearsal.timed[2].wall > 0


@pytest.mark.thorough
def test_the_steps_of_malt_differ_so_a_range_is_printed(
    checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(MALTConfig(), checkpoint("llama"))
    plan = plan_of(config, MACHINE)
    with pytest.raises(ValueError, match="steps of a round of malt differ") as why:
        rehearse(config, plan, 60)
    show_time(plan, config, str(why.value), console())
    assert "No rehearsal: the steps of a round of malt differ" in " ".join(
        capsys.readouterr().out.split()
    )
