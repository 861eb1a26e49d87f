"""Studies of schemes: one machinery for all three, budgets as planned, answers that count."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from maporl_agents.config import (
    EvalConfig,
    IACConfig,
    JointGameConfig,
    MAGRPOConfig,
    MAGRPOSettings,
    MALTConfig,
    MALTSettings,
    RunConfig,
    Sampling,
    TrainConfig,
)
from maporl_agents.measure.debate_stats import turn_stats
from maporl_agents.measure.evaluate import Evaluation
from maporl_agents.measure.vote_of_passes import as_one, paid_for
from maporl_agents.records.run_log import read_metrics
from maporl_agents.studies import catalogue
from maporl_agents.studies.carry_out import assemble
from maporl_agents.studies.controls import Measure
from maporl_agents.studies.jobs import Job, Recipe, carry_out, measure_path, read_measure
from maporl_agents.studies.plan import ArmPlan, StudyPlan, quick_recipe, training_answers
from maporl_agents.studies.results import Arm, Measurement, Study
from maporl_agents.studies.schemes import roles, single, star
from maporl_agents.studies.verdicts import verdicts
from maporl_agents.training import experiment
from maporl_env.protocols import JointAnswer, Pipeline, SimultaneousDebate
from maporl_env.types import Message, Question, Transcript

pytestmark = pytest.mark.thorough  # each builds and runs whole trainings

SHORT = Sampling(max_new_tokens=4)
FEW = EvalConfig(questions=6)
MAPORL = TrainConfig(steps=2, questions_per_step=3, sampling=SHORT, eval=FEW)
MAGRPO = MAGRPOConfig(
    steps=2,
    questions_per_step=2,
    sampling=SHORT,
    eval=FEW,
    game=JointGameConfig(task="shopping", num_turns=2, show_parts=True),
    magrpo=MAGRPOSettings(group_size=2),
)
IAC = IACConfig(steps=2, questions_per_step=4, sampling=SHORT, eval=FEW, game=MAGRPO.game)
MALT = MALTConfig(
    steps=3,
    questions_per_step=2,
    sampling=SHORT,
    eval=FEW,
    malt=MALTSettings(branching=2, thresholds=(0.0,)),
)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


# --- What a team answers as one ---------------------------------------------------------

QUESTION = Question("q", "how much ?", "5")


def said(*turns: tuple[str, ...]) -> Transcript:
    agents = tuple(f"agent_{seat}" for seat in range(len(turns[0])))
    messages = tuple(
        Message(turn, agent, rf"\boxed{{{text}}}", 0.0)
        for turn, texts in enumerate(turns)
        for agent, text in zip(agents, texts, strict=True)
    )
    return Transcript(QUESTION, agents, messages)


def votes(protocol: Any, history: Transcript) -> list[float]:
    played = Evaluation(turn_stats([history]), 1, 0, (history,))
    result = as_one(protocol, played)
    assert result.transcripts == played.transcripts
    return [turn.vote for turn in result.turns]


def test_the_answer_that_counts_by_protocol() -> None:
    """Gold is 5. Turns (5, 5, 1) and (1, 2, 5): a vote is right, then a third of the time."""
    history = said(("5", "5", "1"), ("1", "2", "5"))
    assert votes(SimultaneousDebate(), history) == pytest.approx([1, 1 / 3])
    assert paid_for(SimultaneousDebate(), history) == history
    # The pipeline's last role speaks for all; the last box of the joined text is the joint answer.
    assert votes(Pipeline(), history) == [0, 1]
    assert votes(JointAnswer(), history) == [0, 1]


# --- Recipes and jobs -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "config"),
    [("ppo", MAPORL), ("magrpo", MAGRPO), ("malt", MALT), ("iac", IAC), ("none", MALT)],
)
def test_a_job_of_any_scheme_survives_json(method: Any, config: RunConfig) -> None:
    job = Job(Recipe(method, config), 2, (Measure("team"), Measure("team", passes=3)))
    again = Job.from_json(job.to_json())
    assert again == job
    assert type(again.recipe.config) is type(config)
    assert again.key == job.key


@pytest.mark.parametrize(
    ("method", "config"), [("ppo", MALT), ("magrpo", MAPORL), ("malt", MAGRPO), ("sft", MALT)]
)
def test_a_method_takes_the_settings_of_its_scheme(method: Any, config: RunConfig) -> None:
    with pytest.raises(ValueError, match=f"method '{method}' takes settings of"):
        Recipe(method, config)


def test_an_untrained_team_knows_no_training_of_any_scheme() -> None:
    for config, other in (
        (MAGRPO, replace(MAGRPO, steps=9, magrpo=MAGRPOSettings(group_size=7))),
        (MALT, replace(MALT, steps=9, malt=replace(MALT.malt, beta=0.7))),
    ):
        assert Job(Recipe("none", config), 0, ()).key == Job(Recipe("none", other), 0, ()).key
    trained = [Job(Recipe("malt", c), 0, ()).key for c in (MALT, star(MALT), single(MALT))]
    assert len(set(trained)) == 3


def test_measurements_of_so_many_passes_have_names_of_their_own() -> None:
    voted = [measure_path(Path(), Measure("team", passes=n)) for n in (2, 3)]
    assert len({*voted, measure_path(Path(), Measure("team"))}) == 3


def test_passes_are_for_teams_and_sampled() -> None:
    with pytest.raises(ValueError, match="vote with kind 'team'"):
        Measure(passes=3)
    with pytest.raises(ValueError, match="passes of a measure must be at least 1"):
        Measure("team", passes=0)
    assert Measure("team", passes=3).decodings == ("sampled",)
    assert Measure("team").decodings == ("sampled", "greedy")


# --- Carried out ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "config", "trained", "asked"),
    [
        ("magrpo", MAGRPO, 2 * 2 * 3 * 4, 4),  # steps x questions x (1 + G) nodes x A G; A T
        ("malt", MALT, 2 * (2 + 4 + 8), 3),
        pytest.param("malt", single(MALT), 2 * 14, 1, marks=pytest.mark.thorough),
        ("iac", IAC, 2 * 4 * 4, 4),
        pytest.param("ppo", MAPORL, 2 * 3 * 6, 6, marks=pytest.mark.thorough),
    ],
)
def test_a_job_generates_what_its_plan_says(
    tmp_path: Path, method: Any, config: RunConfig, trained: int, asked: int
) -> None:
    team = Measure("team")
    voted = () if method == "ppo" else (Measure("team", passes=2),)
    job = Job(Recipe(method, config), 1, (team, *voted))
    carry_out(job, tmp_path, quiet())
    answers = sum(row.get("answers", 0) for row in read_metrics(tmp_path / "run"))
    assert answers == trained == training_answers(config)
    measured = read_measure(tmp_path, team)
    assert set(measured) == {"measure", "sampled", "greedy"}
    assert measured["sampled"]["num_answers"] == 6 * asked
    for what in voted:
        [ballot] = read_measure(tmp_path, what)["sampled"]["turns"]
        assert len(ballot["accuracy"]) == 2
        assert read_measure(tmp_path, what)["sampled"]["num_answers"] == 2 * 6 * asked


def test_crossed_actions_lead_to_more_nodes() -> None:
    """Two agents, G = 2: 4 joint actions, so 5 nodes of 4 answers in two turns."""
    crossed = replace(MAGRPO, magrpo=replace(MAGRPO.magrpo, joining="cross"))
    assert training_answers(crossed) == 2 * 2 * 5 * 4
    once = replace(crossed, game=replace(crossed.game, num_turns=1))
    assert training_answers(once) == 2 * 2 * 4


def two_seeds(study: Study) -> Study:
    """Return a study in which a second seed turned out a little better in the last turn."""

    def better(measured: Measurement) -> Measurement:
        *earlier, last = measured.turns
        return replace(measured, turns=(*earlier, replace(last, vote=last.vote + 0.1)))

    def doubled(arm: Arm) -> Arm:
        [one] = arm.seeds
        other = replace(one, seed=9, measurements=tuple(map(better, one.measurements)))
        return replace(arm, seeds=(one, other))

    return replace(study, arms=tuple(map(doubled, study.arms)))


def test_a_study_of_schemes_states_what_each_spent(tmp_path: Path) -> None:
    plan = StudyPlan(
        "small",
        "Small",
        "Nothing.",
        (
            ArmPlan("joint", "joint", "method", Recipe("magrpo", MAGRPO), Measure("team")),
            ArmPlan("pipe", "pipe", "method", Recipe("malt", MALT), Measure("team", passes=2)),
        ),
    )
    for job in plan.jobs((0,)):
        carry_out(job, tmp_path / job.key, quiet())
    study = assemble(plan, (0,), tmp_path, command="maporl compare small", errors={})
    joint, pipe = study.arms
    [one], [other] = joint.seeds, pipe.seeds
    assert (one.train_answers, other.train_answers) == (48, 28)
    assert 0 < one.train_tokens <= 4 * 48
    assert (
        {m.stage for m in one.measurements}
        == {m.stage for m in other.measurements}
        == {
            "before",
            "after",
        }
    )
    assert [len(m.turns) for m in one.measurements if m.decoding == "sampled"] == [2, 2]
    # With one turn there is no rise from the first to the last one to speak of.
    turns = [v.arm for v in verdicts(two_seeds(study)) if "first to the last" in v.sentence]
    assert set(turns) == {"joint"}


# --- The plans --------------------------------------------------------------------------


def test_roles_leave_with_their_seats_and_texts() -> None:
    full = MALTConfig()
    two = roles(full, "generator", "refiner", branching=3)
    assert two.game.personas == (full.game.personas[0], full.game.personas[2])
    assert (two.game.num_agents, two.malt.roles) == (2, ("generator", "refiner"))
    assert single(full).malt.branching == 39


def test_the_baselines_of_malt_generate_as_much() -> None:
    trained = [arm for arm in catalogue.study("malt").arms if arm.recipe.method == "malt"]
    assert len({training_answers(arm.recipe.config) for arm in trained}) == 1
    for arm in catalogue.study("malt").arms:
        answers = (arm.measure.passes or 1) * arm.recipe.config.game.num_agents
        assert answers == (3 if arm.name == "pass" else 9)


def test_schemes_spend_as_many_answers_on_the_same_questions() -> None:
    plan = catalogue.study("schemes")
    methods = [arm.recipe.config for arm in plan.arms if arm.role == "method"]
    spent = [training_answers(config) for config in methods]
    assert max(spent) < 1.1 * min(spent)
    assert len({(c.game.task, c.eval, c.sampling, c.team.model) for c in methods}) == 1
    assert [type(config) for config in methods] == [
        TrainConfig,
        MAGRPOConfig,
        MALTConfig,
        MALTConfig,
    ]


@pytest.mark.parametrize(
    "name",
    ["magrpo", "magrpo-right", pytest.param("malt", marks=pytest.mark.thorough), "schemes"],
)
def test_every_arm_can_be_built_and_shrunk(name: str) -> None:
    for recipe in {repr(arm.recipe): arm.recipe for arm in catalogue.study(name).arms}.values():
        small = quick_recipe(recipe)
        experiment.build(small.config)
        assert training_answers(small.config) < training_answers(recipe.config)


def test_a_tuned_malt_has_to_beat_a_single_model_in_every_setting() -> None:
    plan = catalogue.STUDIES["malt"]()
    named = {arm.name: arm.recipe.config for arm in plan.arms if arm.name.startswith("single")}
    [claim] = (claim for claim in plan.claims if "single model" in claim.words)
    assert {f"malt/{name}" for name in named} < set(claim.stands_on)
    settings = {
        (c.steps // 3, c.questions_per_step, c.malt.imitation.epochs)  # type: ignore[attr-defined]
        for c in named.values()
    }
    assert settings == {(1, 234, 3), (3, 78, 1), (6, 39, 1), (9, 26, 1)}
    assert {rounds * trees for rounds, trees, _ in settings} == {234}, "equal generations"
