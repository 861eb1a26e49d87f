"""The same model on both sides learns to use shown verdicts, and uses nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maporl_agents.algorithms.maporl import train_step
from maporl_agents.config import TrainConfig
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.play.questions import questions_of_step
from maporl_agents.recipes import recipe
from maporl_agents.seeding import seed_of
from maporl_agents.studies.controls import with_shuffled_verdicts
from maporl_agents.training.experiment import build
from maporl_agents.training.make_game import debates_of, questions_of
from maporl_agents.update.optimiser import PPOLearner


def trained(config: TrainConfig) -> tuple[PPOLearner, list[dict[str, float]]]:
    """Return a learner after `config.steps` steps, and their metrics."""
    _, learner = build(config)
    questions = questions_of(config.game, "train")
    debates = debates_of(config.game, config.questions_per_step)
    history = []
    for step in range(config.steps):
        asked = questions_of_step(questions, step, config.questions_per_step, config.seed)
        _, metrics = train_step(
            learner, debates, asked, config, seed=seed_of(config.seed, "step", step)
        )
        history.append(metrics)
    return learner, history


def accuracy(config: TrainConfig, learner: PPOLearner, *, shuffled: bool = False) -> list[float]:
    """Return the mean accuracy by turn on 250 held-out questions."""
    asked = questions_of_step(questions_of(config.game, "test"), 0, 250, 0)
    debates = debates_of(config.game, len(asked))
    if shuffled:
        debates = with_shuffled_verdicts(debates, seed=1)
    result = evaluate(learner.team, debates, asked, config.sampling, seed=1)
    return [turn.mean_accuracy for turn in result.turns]


@pytest.mark.thorough
def test_a_few_steps_run_and_the_first_turn_stays_as_it_began() -> None:
    config = replace(recipe("sharing"), steps=3, questions_per_step=4)
    learner, history = trained(config)
    _, fresh = build(config)
    assert [metrics["updates"] for metrics in history] == [4, 4, 4]
    first = [team.policy(0, 0) for team in (learner.team, fresh.team)]
    assert first[0] == first[1] != learner.team.policy(0, 1)
    assert learner.team.policy(0, 1) == learner.team.policy(1, 2)  # one for everybody
    frozen = [team.base_of(first[0]).model.state_dict() for team in (learner.team, fresh.team)]
    assert all((weight == frozen[1][name]).all() for name, weight in frozen[0].items())
    later = learner.team.base_of(learner.team.policy(0, 1)).model.state_dict()
    assert any((weight != frozen[0][name]).any() for name, weight in later.items())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_debate_rises_over_turns_and_only_with_true_verdicts(seed: int) -> None:
    config = replace(recipe("sharing"), seed=seed)
    _, untrained = build(config)
    before = accuracy(config, untrained)
    learner, _ = trained(config)
    after = accuracy(config, learner)
    control = accuracy(config, learner, shuffled=True)
    # 250 questions x 2 agents: a standard error of about .02 per figure.
    assert before[2] < 0.43
    assert after[0] == before[0]  # the same weights, the same noise
    assert after[1] > after[0] + 0.12
    assert after[2] > after[0] + 0.25
    assert max(control) < 0.43
