"""Which (agent, turn) pairs are trained, and that the others stay what the run began with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import load_team, make_rollout, stir

from maporl_agents.algorithms.maporl import train_step
from maporl_agents.config import PPOConfig, Sampling, TeamConfig, TrainConfig, turns_of
from maporl_agents.models.bases import FullBase
from maporl_agents.models.lora import LoraBase
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import sample
from maporl_agents.training import experiment
from maporl_agents.update.batching import collate
from maporl_agents.update.optimiser import PPOLearner
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

QUESTIONS = [Question(f"q/{i}", f"how much is {i} and three ?", str(i + 3)) for i in range(3)]
SAMPLING = Sampling(max_new_tokens=3)
PROMPT = (5, 6, 7, 8)


def every_other(questions: list[Question], texts: list[str]) -> list[float]:
    """Pays what is said of every other question, whatever a random model says of it."""
    return [float(int(question.id[2:]) % 2) for question, _ in zip(questions, texts, strict=True)]


def hidden(team: Team, policy: str, *, reference: bool = False) -> torch.Tensor:
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        base = team.base_of(policy)
        places = torch.arange(len(PROMPT))[None]
        states = base.hidden(ids, torch.ones_like(ids), places, [policy], reference=reference)
        return base.logits(states, reference=reference)


class TestTurns:
    @pytest.mark.parametrize(
        ("text", "turns"),
        [
            (">=1", {0, 1, 2}),
            ("all", {0, 1, 2}),
            (">=2", {1, 2}),
            (" >= 3 ", {2}),
            ("2,3", {1, 2}),
            ("3, 1", {0, 2}),
            ("2", {1}),
            ("02,2", {1}),
        ],
    )
    def test_forms(self, text: str, turns: set[int]) -> None:
        assert turns_of(text, 3) == turns

    @pytest.mark.parametrize("text", [">=4", "4", "1,2,4"])
    def test_a_turn_that_is_not_played(self, text: str) -> None:
        with pytest.raises(ValueError, match=rf"train_turns='{text}' .*there are 3"):
            turns_of(text, 3)

    @pytest.mark.parametrize("text", ["", "0", ">=0", ">2", "2-3", "1;2", "1,", "two", "²", "-1"])
    def test_other_forms_are_refused_at_once(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"write 'all', '>=2' or a list"):
            TeamConfig(train_turns=text)


class TestWhoIsTrained:
    @pytest.mark.parametrize("tuning", ["full", "lora"])
    def test_one_policy_for_all_from_the_second_turn_on(self, checkpoint, tuning: str) -> None:
        """The paper's experiment 1."""
        team = load_team(checkpoint("llama"), tuning=tuning, sharing="one", train_turns=">=2")
        spoken = [[team.policy(seat, turn) for turn in range(4)] for seat in range(2)]
        assert spoken == [["all_start", "all", "all", "all"]] * 2
        assert set(team.policies) == {"all", "all_start"}
        assert team.trainable()["all"]
        assert not team.trainable()["all_start"]
        assert set(team.critics) == {f"agent_{a}_turn_{t}" for a in range(2) for t in (1, 2)}

    def test_a_list_of_turns_with_a_policy_each(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), tuning="lora", sharing="turn", train_turns="1,3")
        assert [team.policy(1, turn) for turn in range(3)] == [
            "agent_1_turn_0",
            "agent_1_turn_1_start",
            "agent_1_turn_2",
        ]

    @pytest.mark.parametrize("tuning", ["full", "lora"])
    @pytest.mark.parametrize("sharing", ["agent", "turn", "first_turn", "one"])
    def test_one_agent_among_frozen_ones(self, checkpoint, tuning: str, sharing: str) -> None:
        team = load_team(checkpoint("llama"), tuning=tuning, sharing=sharing, train_agents=(1,))
        for turn in range(3):
            assert team.trains(1, turn)
            assert not team.trains(0, turn)
            assert not team.trainable()[team.policy(0, turn)]
            assert team.trainable()[team.policy(1, turn)]
        assert all(name.startswith("agent_1_") for name in team.critics)

    def test_a_model_of_which_nobody_is_trained_has_no_adapter(self, checkpoint) -> None:
        folders = [checkpoint("llama"), checkpoint("gpt2")]
        team = load_team(folders, tuning="lora", train_agents=(0,))
        assert [type(base) for base in team.bases] == [LoraBase, FullBase]
        assert not any(p.requires_grad for p in team.bases[1].model.parameters())

    def test_agents_that_do_not_exist_are_refused(self, checkpoint) -> None:
        with pytest.raises(ValueError, match=r"train_agents names \[2\].*0 to 1"):
            load_team(checkpoint("llama"), train_agents=(0, 2))

    def test_training_alone_needs_the_first_turn(self) -> None:
        config = TrainConfig(single_agent=True, team=TeamConfig(train_turns=">=2"))
        with pytest.raises(ValueError, match=r"train_turns='>=2' leaves it out; choose 'all'"):
            experiment.build(config)


class TestMemory:
    def test_full_tuning_keeps_one_reference_for_all(self, checkpoint) -> None:
        """Two trained copies and the model they began as, which also speaks where nobody learns."""
        team = load_team(checkpoint("llama"), train_turns=">=2")
        models = {id(base.model) for base in team.bases}
        references = {id(base.reference) for base in team.bases}
        assert len(models) == 3
        assert len(references) == 1
        assert references < models

    def test_lora_keeps_one_base(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"), num_agents=4, tuning="lora", train_turns=">=2")
        assert len(team.bases) == 1
        assert all(p.requires_grad == ("lora_" in name) for name, p in named(team))


def named(team: Team) -> list[tuple[str, torch.nn.Parameter]]:
    base = team.bases[0]
    assert isinstance(base, LoraBase)
    return list(base.peft.named_parameters())


@pytest.mark.parametrize("tuning", ["full", "lora"])
class TestTraining:
    def learner(self, checkpoint, tuning: str) -> PPOLearner:
        team = load_team(checkpoint("llama"), tuning=tuning, num_turns=2, train_turns=">=2")
        return PPOLearner(team, PPOConfig(learning_rate=1e-2, minibatches=1), steps=3)

    def test_what_is_not_trained_speaks_as_the_reference_for_ever(
        self, checkpoint, tuning: str
    ) -> None:
        learner = self.learner(checkpoint, tuning)
        team = learner.team
        first = hidden(team, "agent_0_start")
        assert torch.equal(first, hidden(team, "agent_0", reference=True))
        assert torch.equal(first, hidden(team, "agent_0"))
        game = DebateConfig(task=QUESTIONS, num_agents=2, num_turns=2, verifier=every_other)
        debates = BatchedDebate(game, 4)
        train_step(learner, debates, QUESTIONS, TrainConfig(sampling=SAMPLING), seed=1)
        assert torch.equal(first, hidden(team, "agent_0_start"))
        assert not torch.equal(first, hidden(team, "agent_0"))

    def test_it_carries_no_loss(self, checkpoint, tuning: str) -> None:
        """Its messages are in no batch, whatever they were paid."""
        team = self.learner(checkpoint, tuning).team
        rollout = make_rollout(
            team,
            [(1, 2), (3,), (1, 2, 5, 6), (3, 7)],
            [(5,), (7, 8, 9), (4, 4), (2,)],
            rewards=np.array([[9.0, 9.0], [1.0, 2.0]]),
            scored=np.array([[False, True], [True, True]]),
        )
        batch, left_out = collate(team, [rollout])
        assert batch.turns.tolist() == [1, 1]
        assert batch.rewards.tolist() == [1, 2]
        assert batch.policies == ("agent_0", "agent_1")
        assert left_out == 1  # counted, though it would not have been learnt from anyway

    def test_it_is_in_no_optimiser_and_not_saved(
        self, checkpoint, tuning: str, tmp_path: Path
    ) -> None:
        learner = self.learner(checkpoint, tuning)
        assert not any("start" in name for name in learner.parameter_names().values())
        assert set(learner.trained) == {"agent_0", "agent_1"}
        stir(learner.team)
        learner.team.save(tmp_path)
        saved = {path.name for path in (tmp_path / "policies").iterdir()}
        assert saved == {"agent_0", "agent_1"}
        fresh = self.learner(checkpoint, tuning).team
        fresh.load(tmp_path)
        for policy in ("agent_0", "agent_1", "agent_0_start"):
            assert torch.equal(hidden(fresh, policy), hidden(learner.team, policy))

    def test_frozen_and_trained_rows_share_a_call(self, checkpoint, tuning: str) -> None:
        """One agent learns among frozen ones: in a turn both speak at once."""
        team = load_team(checkpoint("llama"), tuning=tuning, sharing="one", train_agents=(0,))
        stir(team)
        greedy = Sampling(max_new_tokens=4, temperature=0.0)
        together = sample(team, [PROMPT, PROMPT], ["all", "all_start"], greedy, 0)
        apart = [sample(team, [PROMPT], [policy], greedy, 0)[0] for policy in ("all", "all_start")]
        assert [c.ids for c in together] == [c.ids for c in apart]
        assert together[0].logprobs != together[1].logprobs
