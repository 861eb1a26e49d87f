"""Imitation of the best debates: the choice, the loss, and a whole run in the small."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import load_team, make_rollout, make_transcript
from rich.console import Console

from maporl_agents.config import EvalConfig, PPOConfig, TrainConfig
from maporl_agents.records.run_log import read_metrics
from maporl_agents.studies import sft
from maporl_agents.studies.sft import SFTConfig, best_debates, imitation_step, mean_score
from maporl_agents.training import experiment
from maporl_agents.types import Rollout
from maporl_agents.update.batching import collate
from maporl_agents.update.optimiser import PPOLearner
from maporl_agents.update.token_logprobs import score_tokens

SMALL = TrainConfig(
    steps=2,
    questions_per_step=10,
    ppo=PPOConfig(learning_rate=1e-4),
    eval=EvalConfig(questions=4),
    seed=3,
)


def scored(*scores: float | None) -> Rollout:
    """Return a rollout whose messages have these scores."""
    transcript = make_transcript([["a"] * len(scores)], scores=[list(scores)])
    nothing = np.zeros((1, len(scores)))
    return Rollout(transcript, (), (), (), nothing, nothing.astype(bool))


class TestChoice:
    def test_the_mean_of_the_scores_that_are_there(self) -> None:
        assert mean_score(scored(1.0, 0.5)) == 0.75
        assert mean_score(scored(1.0, None)) == 1.0
        assert mean_score(scored(None, None)) == -1.0

    def test_the_best_share_and_at_least_one(self) -> None:
        rollouts = [scored(x / 10) for x in range(10)]
        assert best_debates(rollouts, 0.3, seed=0) == [rollouts[9], rollouts[8], rollouts[7]]
        assert best_debates(rollouts, 0.01, seed=0) == [rollouts[9]]
        assert len(best_debates(rollouts, 1.0, seed=0)) == 10

    def test_ties_fall_by_a_lot_that_the_seed_names(self) -> None:
        rollouts = [scored(1.0) for _ in range(20)]
        chosen = [[id(r) for r in best_debates(rollouts, 0.5, seed=seed)] for seed in (0, 0, 1)]
        assert chosen[0] == chosen[1]
        assert chosen[0] != chosen[2]

    @pytest.mark.parametrize("options", [{"best_share": 0.0}, {"best_share": 1.5}, {"epochs": 0}])
    def test_impossible_settings_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=next(iter(options))):
            SFTConfig(**options)  # type: ignore[arg-type]


class TestStep:
    def test_the_loss_is_the_mean_negative_log_likelihood_of_each_policy(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), num_turns=1)
        rollout = make_rollout(team, [(5, 6), (7,)], [(8, 9, 10), (11,)], rewards=np.ones((1, 2)))
        batch, _ = collate(team, [rollout])
        with torch.no_grad():
            logprobs = score_tokens(team, batch, temperature=1.0, with_values=False).logprobs
        by_hand = [-logprobs[row][batch.mask[row]].mean() for row in range(2)]
        learner = PPOLearner(team, PPOConfig(warmup_steps=0), 1)
        loss = imitation_step(learner, batch, SMALL)
        assert loss == pytest.approx(float(sum(by_hand) / 2), abs=1e-6)

    def test_a_step_makes_the_messages_more_likely_and_moves_no_other_policy(
        self, checkpoint
    ) -> None:
        team = load_team(checkpoint("llama"), num_turns=1)
        rollout = make_rollout(team, [(5, 6), (7,)], [(8, 9, 10), (11,)], rewards=np.ones((1, 2)))
        batch, _ = collate(team, [rollout])
        learner = PPOLearner(team, PPOConfig(warmup_steps=0), 10)
        first = batch.select([0])  # agent_0's message alone
        others = {name: p.clone() for name, p in team.trainable()["agent_1"].items()}
        losses = [imitation_step(learner, first, SMALL) for _ in range(4)]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0]
        for name, parameter in team.trainable()["agent_1"].items():
            assert torch.equal(parameter, others[name])

    def test_micro_batches_change_nothing(self, checkpoint) -> None:
        losses = []
        for micro_tokens in (1, 8192):
            team = load_team(checkpoint("llama"), num_turns=1)
            rollouts = [
                make_rollout(team, [(5, 6), (7,)], [ids, (11,)], rewards=np.ones((1, 2)))
                for ids in [(8, 9, 10), (12,)]
            ]
            batch, _ = collate(team, rollouts)
            config = replace(SMALL, ppo=replace(SMALL.ppo, micro_tokens=micro_tokens))
            learner = PPOLearner(team, config.ppo, 1)
            losses.append(imitation_step(learner, batch, config))
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.thorough
def test_a_run_leaves_a_folder_that_loads_like_any_other(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    results = sft.run(SMALL, SFTConfig(epochs=2), folder, Console(file=io.StringIO()))
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
    config, team = experiment.load_team(folder)
    assert config == SMALL
    untrained, _ = experiment.build(SMALL)
    assert not torch.equal(
        team.trainable()["agent_0"]["model.embed_tokens.weight"],
        untrained.trainable()["agent_0"]["model.embed_tokens.weight"],
    )
    metrics = read_metrics(folder)
    assert [row["answers"] for row in metrics if "answers" in row] == [60.0, 60.0]  # 10 x 2 x 3
    assert [row["sft_epoch"] for row in metrics if "sft_epoch" in row] == [1, 2]
    losses = [row["nll"] for row in metrics if "nll" in row]
    assert losses[1] < losses[0]
