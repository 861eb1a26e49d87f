"""MALT: a generator, a verifier and a refiner, trained on the outcomes of their messages.

Motwani et al., "MALT: Improving Reasoning with Multi-Agent LLM Training" (arXiv 2412.01928). The
generator answers a question several times, the verifier comments on each answer several times, the
refiner finishes each comment several times. The value of a message is the mean outcome of its
continuations. A round has three stages; read them in this order:

    grow      trees of samples, their values, messages to imitate, pairs of siblings: all in files
    imitate   every role learns its good messages (SFT)
    prefer    verifier and refiner learn from pairs; the reference is the team after `imitate` (DPO)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maporl_agents.algorithms import Scheme, StepWork
from maporl_agents.config import FitConfig, MALTConfig, MALTSettings, Sampling
from maporl_agents.measure.step_metrics import Metrics, mean_of, means, rollout_metrics
from maporl_agents.models.team import Team
from maporl_agents.records.data_stages import Stages, digest
from maporl_agents.records.storage import CheckpointError
from maporl_agents.seeding import seed_of
from maporl_agents.trees.preference_pairs import (
    Example,
    Preference,
    positives,
    right_paths,
    sibling_pairs,
)
from maporl_agents.trees.sample_tree import grow_trees
from maporl_agents.trees.samples import Sample, first_passes, samples_of
from maporl_agents.trees.tree_values import Judged, judge, tree_values
from maporl_agents.types import Rollout, TokenBatch
from maporl_agents.update.batching import Row, batch_of, rows_of
from maporl_agents.update.imitation import imitation_step
from maporl_agents.update.optimiser import PolicyLearner
from maporl_agents.update.preferences import Pairs, preference_step
from maporl_agents.update.reference_logprobs import reference_logprobs
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question

__all__ = ["STAGES", "grow", "imitate", "prefer", "train_step", "tree_values"]

STAGES = ("grow", "imitate", "prefer")
"""The stages of a round, in order; each is a step of the run."""

# --- Grow: the data of a round ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Data:
    """The training data of a round. Made by `learn_from`, read by `imitate` and `prefer`."""

    samples: list[Sample]
    judged: list[Judged]
    examples: list[Example]
    pairs: list[Preference]


def grow(
    team: Team | None,
    debates: BatchedDebate,
    questions: Sequence[Question],
    config: MALTConfig,
    number: int,
    stages: Stages,
) -> list[Sample]:
    """Return the samples of round `number` from ``trees-0000.jsonl`` and so on, made where missing.

    An interrupted stage continues after the last complete file.

    Raises:
        CheckpointError: a file is missing or altered, and there is no `team` to make it again.
    """
    settings = config.malt
    branching = [settings.branching] * len(debates.agents)
    origin = [asdict(config.game), asdict(config.team), asdict(config.sampling), branching]
    learnt = asdict(settings) if number else None  # the first round's team has learnt nothing
    samples: list[Sample] = []
    for start in range(0, len(questions), settings.trees_per_file):
        part = questions[start : start + settings.trees_per_file]
        seed = seed_of(config.seed, "round", number, start)
        name = f"trees-{start // settings.trees_per_file:04}.jsonl"
        asked = [question.id for question in part]
        made_from = digest([origin, learnt, seed, asked])
        growing = partial(_grown, team, debates, part, config.sampling, branching, seed, start)
        samples += map(Sample.from_dict, stages.rows(name, made_from, growing))
    return samples


def _grown(
    team: Team | None,
    debates: BatchedDebate,
    questions: Sequence[Question],
    sampling: Sampling,
    branching: Sequence[int],
    seed: int,
    first_tree: int,
) -> list[dict[str, Any]]:
    """Return the rows of one file of trees."""
    if team is None:
        raise CheckpointError(
            f"The trees from {first_tree} on are missing, and the team has learnt since they were "
            "grown: restore their file, or start the run again."
        )
    roots = grow_trees(
        team, debates, questions, sampling, branching, seed=seed, first_tree=first_tree
    )
    return [sample.to_dict() for sample in samples_of(roots)]


def learn_from(samples: list[Sample], settings: MALTSettings, number: int, stages: Stages) -> Data:
    """Return the training data of round `number`, through ``imitate.jsonl`` and ``prefer.jsonl``.

    The files hold the text and name the samples; the tokens are those of the trees.
    """
    threshold = settings.thresholds[min(number, len(settings.thresholds) - 1)]
    judged = judge(samples, threshold)
    by_place = {sample.place: sample for sample in samples}
    origin = digest([one.to_dict() for one in samples])
    choose = {"positive": positives, "right_paths": right_paths}[settings.examples]
    examples = stages.rows(
        "imitate.jsonl",
        digest([origin, threshold, settings.examples]),
        lambda: (example.to_dict() for example in choose(judged)),
    )
    pairs = stages.rows(
        "prefer.jsonl",
        digest([origin, threshold, settings.prefer, settings.roles]),
        lambda: (
            pair.to_dict()
            for pair in sibling_pairs(judged)
            if settings.roles[pair.chosen.agent] in settings.prefer
        ),
    )
    return Data(
        samples,
        judged,
        [Example.from_dict(row, by_place) for row in examples],
        [Preference.from_dict(row, by_place) for row in pairs],
    )


def grow_metrics(data: Data, settings: MALTSettings, passes: Sequence[Rollout]) -> Metrics:
    """Return metrics of the samples and of the training data, by role."""
    roles = settings.roles
    leaves = [one for one in data.samples if len(one.path) == len(roles)]
    counts = {f"{kind}/{role}": 0.0 for kind in ("examples", "pairs") for role in roles}
    for example in data.examples:
        counts[f"examples/{roles[example.sample.agent]}"] += example.times
    for pair in data.pairs:
        counts[f"pairs/{roles[pair.chosen.agent]}"] += 1
    return {
        **rollout_metrics(passes),
        **means((f"value/{roles[one.sample.agent]}", one.value) for one in data.judged),
        **means((f"positive/{roles[one.sample.agent]}", one.positive) for one in data.judged),
        **counts,
        "answers": float(len(data.samples)),
        "tokens": float(sum(len(one.completion.ids) for one in data.samples)),
        "unscored_messages": float(sum(leaf.score is None for leaf in leaves)),
    }


# --- Imitate and prefer -----------------------------------------------------------------------


def imitate(team: Team, examples: Sequence[Example], config: MALTConfig, *, seed: int) -> Metrics:
    """Fit every trained role to its examples, each role apart from the others.

    Returns:
        `nll/POLICY/first` and `.../last`: negative log-likelihood per token, mean over the updates
        of the first and last pass.
    """
    fit, temperature = config.malt.imitation, config.sampling.temperature
    trained = [one for one in examples if team.trains(one.sample.agent, one.sample.turn)]
    said = [one.sample for one in trained for _ in range(one.times)]
    batch = as_batch(team, said, range(len(said)))

    def step(learner: PolicyLearner, rows: Tensor) -> Metrics:
        loss = imitation_step(
            learner, batch.select(rows), micro_tokens=fit.micro_tokens, temperature=temperature
        )
        return {"nll": loss}

    return by_policy(team, batch, fit, step, seed)


def prefer(team: Team, pairs: Sequence[Preference], config: MALTConfig, *, seed: int) -> Metrics:
    """Fit the roles that have pairs to them; the reference is the team before this stage.

    Returns:
        Per policy, mean over the updates of the first and last pass: `preference_loss`,
        `preference_accuracy` (share of pairs in the right order before their update),
        `preference_margin` (beta times the difference of the log-ratios) and `chosen_gain` (the
        log-ratio of the chosen message; below 0 it became less likely than it was).
    """
    settings, temperature = config.malt, config.sampling.temperature
    fit = settings.preference
    pairs = [pair for pair in pairs if team.trains(pair.chosen.agent, pair.chosen.turn)]
    said = [one for pair in pairs for one in (pair.chosen, pair.rejected)]
    batch = as_batch(team, said, [i // 2 for i in range(len(said))])
    certainty = certainties(pairs, settings.labels).to(batch.ids.device)
    reference = reference_logprobs(team, batch, fit.micro_tokens, temperature)
    everything = Pairs(batch, reference, certainty)

    def step(learner: PolicyLearner, rows: Tensor) -> Metrics:
        return preference_step(
            learner,
            everything.select(rows),
            beta=settings.beta,
            micro_tokens=fit.micro_tokens,
            temperature=temperature,
        )

    return by_policy(team, batch, fit, step, seed)


def as_batch(team: Team, samples: Sequence[Sample], episodes: Sequence[int]) -> TokenBatch:
    """Return samples as tensors; rows with one episode number stay together."""
    rows = [
        Row(one.prompt, one.completion, one.policy, episode, one.turn, one.agent, 0.0)
        for one, episode in zip(samples, episodes, strict=True)
    ]
    return batch_of(team, rows)


def by_policy(
    team: Team,
    batch: TokenBatch,
    fit: FitConfig,
    step: Callable[[PolicyLearner, Tensor], Metrics],
    seed: int,
) -> Metrics:
    """Fit one policy after the other, each with an optimiser of its own, by passes over its rows.

    `step` takes one optimiser step on rows of the batch and returns its metrics; they come back as
    means over the first and the last pass.
    """
    metrics: Metrics = {}
    for policy, members in batch.by_policy():
        episodes = batch.episodes[members].unique().cpu()
        generator = torch.Generator().manual_seed(seed_of(seed, policy))
        orders = [torch.randperm(len(episodes), generator=generator) for _ in range(fit.epochs)]
        passes = [episodes[order].split(fit.batch_size) for order in orders]
        learner = PolicyLearner(team, fit, sum(map(len, passes)))
        learnt: list[list[Metrics]] = []
        for chunks in passes:
            learnt.append([])
            for chosen in chunks:
                learnt[-1].append(step(learner, rows_of(batch, chosen)))
                learner.schedule.step()
        for when, parts in (("first", learnt[0]), ("last", learnt[-1])):
            metrics |= {f"{name}/{policy}/{when}": x for name, x in mean_of(parts).items()}
        metrics[f"updates/{policy}"] = sum(map(len, passes))
    return metrics


def certainties(pairs: Sequence[Preference], labels: str) -> Tensor:
    """Return the probability that "chosen" is preferred, (P,): 1, or sigmoid(value difference)."""
    gaps = torch.tensor([pair.chosen_value - pair.rejected_value for pair in pairs])
    return torch.ones_like(gaps) if labels == "hard" else gaps.sigmoid()


# --- A step of the run ------------------------------------------------------------------------


def train_step(
    learner: PolicyLearner,
    game: BatchedDebate,
    questions: Sequence[Question],
    config: MALTConfig,
    *,
    seed: int,
) -> tuple[list[Rollout], Metrics]:
    """Carry out one stage of a round, and read what the stages before it left in their files.

    Args:
        learner: the team, with the steps that are done, which tell the stage, and the run's folder:
            every round has a folder in its ``malt``.
        game: the environment.
        questions: of the round, one tree each.
        config: the settings of the run.
        seed: not used: a round's stages share files, so its random streams are named by `config`.

    Returns:
        One debate per tree (only where trees were grown) and the metrics, which
        docs/explanation/schemes/malt.md explains.

    Raises:
        CheckpointError: a file of an earlier stage is gone or altered.
    """
    team, step = learner.team, learner.steps_done
    number, stage = divmod(step, len(STAGES))
    stages = Stages(learner.folder / "malt" / f"round-{number + 1}")
    growing = STAGES[stage] == "grow"
    samples = grow(team if growing else None, game, questions, config, number, stages)
    data = learn_from(samples, config.malt, number, stages)
    if growing:
        passes = first_passes(samples, questions, game.agents)
        return passes, grow_metrics(data, config.malt, passes)
    seed = seed_of(config.seed, "fit", step)
    if STAGES[stage] == "imitate":
        return [], imitate(team, data.examples, config, seed=seed)
    return [], prefer(team, data.pairs, config, seed=seed)


def check(config: MALTConfig, game: BatchedDebate) -> None:
    """Raise ValueError unless there is one agent per role and every round has all its stages."""
    roles, played = config.malt.roles, config.game
    if played.protocol != "pipeline" or played.num_turns != 1 or played.num_agents != len(roles):
        raise ValueError(
            f"malt plays game.protocol='pipeline' for one turn with an agent for each of its roles "
            f"{roles}, not {played.protocol!r} with num_turns={played.num_turns} and "
            f"num_agents={played.num_agents}; set malt.roles to leave roles out"
        )
    if config.steps % len(STAGES):
        raise ValueError(
            f"steps={config.steps} must be a multiple of 3: a round of malt has three stages, "
            f"{', '.join(STAGES)}"
        )


def work(config: MALTConfig) -> StepWork:
    """Return the work of a round, as if every message were imitated and preferred."""
    settings, first, second = config.malt, config.malt.imitation, config.malt.preference
    last_role = config.questions_per_step * settings.branching ** len(settings.roles)
    return StepWork(
        max(first.micro_tokens, second.micro_tokens),
        epochs=first.epochs + second.epochs,
        minibatches=-(-last_role // min(first.batch_size, 2 * second.batch_size)),
        group_size=settings.branching,
        branching=settings.branching,
        speak_in_turn=True,
        note=(
            "Which messages are learnt from depends on their outcomes: time and memory are those "
            "of learning from all of them, and a step is the mean of the three of a round"
        ),
    )


SCHEME = Scheme(
    settings=MALTConfig,
    check=check,
    # A stage fits each role with an optimiser of its own; this one only stands for the team.
    learner=lambda config, team: PolicyLearner(team, config.malt.imitation, config.steps),
    train_step=train_step,
    work=work,
)
