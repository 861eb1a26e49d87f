"""The plan of a study: its arms, the jobs that fill them, and their expected cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from maporl_agents.algorithms import malt
from maporl_agents.config import MAGRPOConfig, MALTConfig, RunConfig, TrainConfig
from maporl_agents.studies.controls import Measure
from maporl_agents.studies.jobs import RUN_QUESTIONS, Job, Recipe, all_measures
from maporl_agents.studies.results import Claim, ControlKind, Metric, Role


@dataclass(frozen=True)
class ArmPlan:
    """One row of a comparison: a team and its measurement.

    Attributes:
        name: short and unique in the study.
        label: as people read it.
        role: method, control, baseline or variant.
        recipe: how the team is made.
        measure: what is measured of it. A control's kind is the measure's.
        of: name of the arm that a control belongs to.
        description: one sentence.
        settings: the settings in which this arm differs from the others.
    """

    name: str
    label: str
    role: Role
    recipe: Recipe
    measure: Measure = field(default_factory=Measure)
    of: str | None = None
    description: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def control(self) -> ControlKind | None:
        """The part of the team or game that a control removes."""
        if self.role != "control":
            return None
        kind = self.measure.kind
        return "other" if kind == "debate" or kind == "team" else kind

    def job(self, seed: int) -> Job:
        """Return the job that fills this row with one seed."""
        return Job(self.recipe, seed, (self.measure,))

    def before(self, seed: int) -> Job | None:
        """Return the job that measures the team before training; for methods and variants only."""
        if self.role not in ("method", "variant") or self.recipe.method == "none":
            return None
        return Job(replace(self.recipe, method="none"), seed, (self.measure,))

    def jobs(self, seed: int) -> list[Job]:
        """Return the jobs of `job` and `before`."""
        before = self.before(seed)
        return [*([before] if before else []), self.job(seed)]


@dataclass(frozen=True)
class StudyPlan:
    """A study before it is carried out.

    Attributes:
        name: as in ``maporl compare NAME``.
        title: as people read it.
        claim: the tested claim, in words.
        arms: in the order of the table.
        metric: which score the table compares.
        notes: sentences that a reader must know.
        claims: the claim in parts that can be judged; none in a survey.
    """

    name: str
    title: str
    claim: str
    arms: tuple[ArmPlan, ...]
    metric: Metric = "vote"
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()

    def jobs(self, seeds: tuple[int, ...]) -> list[Job]:
        """Return every job once, with all measurements of its team, seed by seed."""
        return all_measures([job for seed in seeds for arm in self.arms for job in arm.jobs(seed)])

    def quick(self) -> StudyPlan:
        """Return the same study in miniature, to see that it runs; its figures mean nothing."""
        arms = tuple(replace(arm, recipe=quick_recipe(arm.recipe)) for arm in self.arms)
        return replace(self, name=f"{self.name}-quick", arms=arms)


def quick_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe with two short steps and few questions."""
    config = recipe.config
    small = replace(
        config,
        steps=len(malt.STAGES) if isinstance(config, MALTConfig) else 2,
        questions_per_step=4,
        checkpoint_every=1,
        eval=replace(config.eval, questions=12),
    )
    return replace(recipe, config=small)


# --- What a study costs -------------------------------------------------------------

START_SECONDS = 12.0
"""Processor seconds to start a process and load a model. Measured."""
SECONDS_PER_1000_ANSWERS = {"shopping": 9.3, "receipts": 9.3, "sharing": 3.8, "coins": 3.8}
"""Processor seconds of training per 1,000 answers of three-turn debates. Measured."""
SECONDS_OF_OTHER_TASKS = 9.3
"""The same for tasks that were not measured: the value of the longest messages."""
SECONDS_OF_MODELS = {"smollm2-135m": 600.0, "tiny": 9.3}
"""The same of models that are not built in, for messages of at most 16 tokens. Measured."""
SPEAKING_SHARE = 0.22
"""Share of generation in it: the cost of an answer that is not trained on."""


def expected_minutes(plan: StudyPlan, seeds: Sequence[int]) -> float:
    """Return the core-minutes a study needs if none of its jobs was done before, roughly."""
    return sum(expected_seconds(job) for job in plan.jobs(tuple(seeds))) / 60


def expected_seconds(job: Job) -> float:
    """Return the processor seconds of one job, roughly."""
    config, method = job.config, job.recipe.method
    debate = config.game.num_agents * config.game.num_turns
    learnt = training_answers(config) * {"sft": 0.5, "none": 0}.get(method, 1)
    games = sum(len(what.decodings) * (what.passes or 1) for what in job.measures)
    debates = games * config.eval.questions
    if method != "none":  # the run measures itself sampled and greedy, before and after
        debates += 4 * RUN_QUESTIONS
    spoken = debates * debate * SPEAKING_SHARE
    short = isinstance(config, TrainConfig) and config.single_agent
    rate = SECONDS_PER_1000_ANSWERS.get(config.game.task, SECONDS_OF_OTHER_TASKS)
    own = [SECONDS_OF_MODELS[name] for name in config.team.model if name in SECONDS_OF_MODELS]
    rate = max([rate, *own]) * max(1.0, config.sampling.max_new_tokens / 32)
    rate *= 0.5 if short else 1
    return START_SECONDS + (learnt + spoken) / 1000 * rate


def training_answers(config: RunConfig) -> int:
    """Return the number of answers that a run generates for training."""
    game, asked = config.game, config.steps * config.questions_per_step
    if isinstance(config, MALTConfig):
        tree = sum(config.malt.branching**depth for depth in range(1, game.num_agents + 1))
        return asked // len(malt.STAGES) * tree
    if isinstance(config, MAGRPOConfig):
        group = config.magrpo.group_size
        children = group if config.magrpo.joining == "aligned" else group**game.num_agents
        nodes = sum(children**turn for turn in range(game.num_turns))
        return asked * nodes * group * game.num_agents
    return asked * game.num_agents * game.num_turns
