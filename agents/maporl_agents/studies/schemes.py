"""The studies of schemes: MAGRPO and MALT against their baselines and against MAPoRL.

In `schemes` all three train on the same questions until they have generated as many tokens, and
answer the same held-out questions; each plays its own protocol. The tokens of
a step were measured, and the numbers of steps and trees follow from them: the table states both.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from maporl_agents.algorithms.malt import STAGES
from maporl_agents.config import (
    GameConfig,
    IACConfig,
    JointGameConfig,
    MAGRPOConfig,
    MAGRPOSettings,
    MALTConfig,
    Role,
    RunConfig,
    TrainConfig,
)
from maporl_agents.studies.controls import Measure
from maporl_agents.studies.jobs import Method, Recipe
from maporl_agents.studies.plan import ArmPlan, StudyPlan
from maporl_agents.studies.results import Claim

C = TypeVar("C", bound=RunConfig)

ONE_PASS, THREE_PASSES = Measure("team"), Measure("team", passes=3)
NINE_ANSWERS = Measure("team", passes=9)
"""Nine answers of one agent, as many as three passes of three roles give."""


def measured_as(config: C, other: TrainConfig) -> C:
    """Return settings with the held-out questions of another run, measured by a vote of passes."""
    return replace(config, eval=replace(other.eval, passes=1))


def arm(
    name: str, label: str, method: Method, config: RunConfig, measure: Measure, **more: Any
) -> ArmPlan:
    """Return a row; one that is trained is a method unless `role` says otherwise."""
    more = {"role": "baseline" if method == "none" else "method"} | more
    return ArmPlan(name, label, recipe=Recipe(method, config), measure=measure, **more)


# --- MAGRPO -------------------------------------------------------------------------


def clerks(shopping: TrainConfig) -> tuple[ArmPlan, ...]:
    """Return MAGRPO on its own task, beside independent actor-critics."""
    joint, critics = (measured_as(config, shopping) for config in (MAGRPOConfig(), IACConfig()))
    return (
        arm("magrpo", "MAGRPO", "magrpo", joint, Measure()),
        arm("iac", "IAC, on as many answers", "iac", critics, Measure(), role="baseline"),
    )


def magrpo(shopping: TrainConfig) -> StudyPlan:
    """MAGRPO on the joint task, whose reward is agreement."""
    return StudyPlan(
        name="magrpo",
        title="MAGRPO: two clerks rewarded for agreement",
        claim="Do two clerks who write the same bill unseen by each other learn to agree?",
        metric="score",
        arms=clerks(shopping),
        notes=(
            "Each knows one of the two prices. The score is the share of lines on which their "
            "bills agree, right or wrong; `agreement` in the study's file asks for equal sums.",
        ),
        claims=(
            Claim("Two clerks rewarded for agreement learn to agree.", ("magrpo/training",)),
            Claim("MAGRPO is ahead of independent actor-critics.", ("magrpo/iac",)),
        ),
    )


def rightness(shopping: TrainConfig) -> StudyPlan:
    """The teams of `magrpo`, measured by the answer key, which their reward leaves out."""
    note = "The teams are those of `magrpo`. Agreeing on wrong prices is rewarded just as well."
    return replace(
        magrpo(shopping),
        name="magrpo-right",
        title="MAGRPO: does agreement lead to correct bills?",
        claim="Do two clerks become correct whose only reward is that their bills agree?",
        metric="mean_accuracy",
        notes=(note,),
        claims=(Claim("Two clerks rewarded for agreement become correct.", ("magrpo/training",)),),
    )


# --- MALT ---------------------------------------------------------------------------


def roles(config: MALTConfig, *chosen: Role, branching: int) -> MALTConfig:
    """Return settings without some roles, their agents, personas and models."""
    seats = [config.malt.roles.index(role) for role in chosen]
    personas = tuple(config.game.personas[agent] for agent in seats)
    return replace(
        config,
        game=replace(config.game, num_agents=len(seats), personas=personas),
        malt=replace(config.malt, roles=tuple(chosen), branching=branching),
    )


def single(config: MALTConfig) -> MALTConfig:
    """Return the baseline of one agent that imitates its right answers, at equal generations."""
    n = config.malt.branching
    return roles(config, "generator", branching=n + n**2 + n**3)


SINGLE_GRID = ((1, 234, 3), (3, 78, 1), (9, 26, 1))
"""Rounds, trees a round and passes of imitation beside MALT's own, at equal generations, in the
range that its own were chosen from. Thresholds do nothing for one role: its answers are worth 0
or 1."""


def single_arms(config: MALTConfig, label: str) -> tuple[ArmPlan, ...]:
    """Return the single model as MALT is set, and with the other settings of the grid."""
    lone = single(config)
    first = arm("single", f"single model, {label}", "malt", lone, NINE_ANSWERS, role="baseline")
    return first, *(
        arm(
            f"single-{rounds}x{trees}",
            f"single model, {rounds} rounds of {trees}, {passes} passes, {label}",
            "malt",
            scheduled(lone, rounds, trees, passes),
            NINE_ANSWERS,
            role="baseline",
        )
        for rounds, trees, passes in SINGLE_GRID
    )


def scheduled(config: MALTConfig, rounds: int, trees: int, passes: int) -> MALTConfig:
    """Return settings with another number of rounds, trees a round, and passes of imitation."""
    imitation = replace(config.malt.imitation, epochs=passes)
    malt = replace(config.malt, imitation=imitation)
    steps = len(STAGES) * rounds
    return replace(config, steps=steps, questions_per_step=trees, malt=malt)


def star(config: MALTConfig) -> MALTConfig:
    """Return STaR: imitate whole right paths instead of valued messages; no preference pairs."""
    return replace(config, malt=replace(config.malt, examples="right_paths", prefer=()))


def malt(shopping: TrainConfig) -> StudyPlan:
    """MALT against untrained, a single model and STaR, at equal generations."""
    config = measured_as(MALTConfig(), shopping)
    lone = single(config)
    three, nine = "vote of 3 passes", "vote of 9 answers"
    return StudyPlan(
        name="malt",
        title="MALT: generator, verifier, refiner",
        claim=(
            "At equal generations the trained pipeline is ahead of the untrained one, of a single "
            "model and of STaR."
        ),
        arms=(
            arm("malt", f"MALT, {three}", "malt", config, THREE_PASSES),
            arm("pass", "MALT, one pass", "malt", config, ONE_PASS, role="baseline"),
            arm("untrained", f"untrained pipeline, {three}", "none", config, THREE_PASSES),
            arm("star", f"STaR, {three}", "malt", star(config), THREE_PASSES, role="baseline"),
            *single_arms(config, nine),
            arm("lone", f"untrained single model, {nine}", "none", lone, NINE_ANSWERS),
        ),
        notes=(
            "Every trained arm generates as often per training question (39), and every arm nine "
            "times per held-out question; one pass generates three times.",
            "The pipeline's verifier knows other prices than generator and refiner; the single "
            "model is the generator.",
            "MALT's rounds and passes of imitation were chosen; the single model has a row for "
            "each of four such settings, and MALT has to beat them all.",
        ),
        claims=(
            Claim("MALT is ahead of the untrained pipeline.", ("malt/untrained",)),
            Claim(
                "MALT is ahead of a single model.",
                (
                    *("malt/single", "malt/lone"),
                    *(f"malt/single-{rounds}x{trees}" for rounds, trees, _ in SINGLE_GRID),
                ),
            ),
            Claim("MALT is ahead of STaR.", ("malt/star",)),
        ),
    )


# --- All three ----------------------------------------------------------------------


def joint_shopping(shopping: TrainConfig) -> MAGRPOConfig:
    """Return MAGRPO on the questions of `shopping`: two write at once, read both, write again."""
    return MAGRPOConfig(
        steps=120,
        questions_per_step=2,
        game=JointGameConfig(task=shopping.game.task, num_turns=2, show_parts=True),
        magrpo=MAGRPOSettings(group_size=4, learning_rate=5e-4),
    )


def schemes(shopping: TrainConfig) -> StudyPlan:
    """MAPoRL, MAGRPO and MALT on one task, at equal generated tokens."""
    shopping = replace(shopping, steps=shopping.steps // 2)
    joint = measured_as(joint_shopping(shopping), shopping)
    pipeline = measured_as(MALTConfig(), shopping)
    revised = "MAGRPO: joint answer, revised once (parts shown)"
    return StudyPlan(
        name="schemes",
        title="Three schemes on one task, at equal generated tokens",
        claim="Which scheme makes most of as many training tokens: no claim, a survey.",
        arms=(
            arm("maporl", "MAPoRL: debate, vote", "ppo", shopping, Measure()),
            arm("magrpo", revised, "magrpo", joint, ONE_PASS),
            arm("malt", "MALT: pipeline, one pass", "malt", pipeline, ONE_PASS),
            arm("malt-vote", "MALT: pipeline, vote of 3 passes", "malt", pipeline, THREE_PASSES),
            ArmPlan(
                "vote",
                "untrained, vote at equal tokens with MAPoRL's debate",
                "baseline",
                Recipe("none", shopping),
                Measure("self_consistency"),
            ),
        ),
        notes=(
            "The score is that of the team's one answer: the vote of the debate, the joint answer, "
            "the pipeline's last message.",
            "Training tokens are equal to a few per cent (last column); at test time the schemes "
            "differ in answers and tokens per question, as the columns say.",
            "MAGRPO is played in two turns, and before the second each agent reads both parts, "
            "which the paper's agents do not; aligned, groups of 4, 120 steps of 2 questions, and "
            "a learning rate chosen on two of these seeds. MALT's rounds and thresholds were "
            "chosen on three. MAPoRL has the settings of the study `shopping`, half as long, and "
            "none of its own. One small task: no ranking of methods.",
        ),
    )


# --- A scheme of one's own ----------------------------------------------------------


def own(config: RunConfig) -> StudyPlan:
    """Return the study of a user's own scheme, which is trained with its default settings.

    MAPoRL, with its own defaults, is trained on as many questions of the same game by an equal
    team; it is left out where the scheme's game is none that MAPoRL plays.
    """
    name = config.name
    trained = ArmPlan(name, name, "method", Recipe("own", config))
    claims: tuple[Claim, ...] = (
        Claim(f"Training by {name} improves the team.", (f"{name}/training",)),
    )
    baselines: tuple[ArmPlan, ...] = ()
    if type(config.game) is GameConfig:
        given = (one.name for one in fields(RunConfig) if one.name != "name")
        maporl = TrainConfig(**{setting: getattr(config, setting) for setting in given})
        baselines = (ArmPlan("maporl", "MAPoRL", "baseline", Recipe("ppo", maporl)),)
        claims += (Claim(f"{name} is ahead of MAPoRL on as many questions.", (f"{name}/maporl",)),)
    return StudyPlan(
        name=f"own-{name}",
        title=f"{name}: a scheme of one's own",
        claim=f"{name} improves its team, and more than MAPoRL on as many questions.",
        arms=(trained, *baselines),
        notes=("Both have the default settings of their schemes; nothing was tuned.",),
        claims=claims,
    )
