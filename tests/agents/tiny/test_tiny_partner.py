"""The partner model `tiny-sharing-qwen2`: another family, size and vocabulary."""

from __future__ import annotations

from maporl_agents.config import GameConfig, Sampling, TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.tiny.pretrain import make_model
from maporl_agents.tiny.tokenizer import make_tokenizer
from maporl_agents.training.make_game import debates_of, questions_of

GAME = GameConfig(task="sharing", reward_feedback=True, feedback_verifier="noisy_key")


def pair() -> Team:
    config = TeamConfig(model=("tiny-sharing", "tiny-sharing-qwen2"), device="cpu")
    return make_team(config, num_agents=2, num_turns=3, seed=0)


def test_the_two_differ_in_family_size_and_vocabulary() -> None:
    llama, qwen2 = pair().bases
    assert [type(base.model).__name__ for base in (llama, qwen2)] == [
        "LlamaForCausalLM",
        "Qwen2ForCausalLM",
    ]
    sizes = [sum(p.numel() for p in base.model.parameters()) for base in (llama, qwen2)]
    assert sizes == [133_312, 77_376]
    words = "Mia has 47 coins"
    assert llama.chat.encode(words) != qwen2.chat.encode(words)
    assert [base.chat.decode(base.chat.encode(words)) for base in (llama, qwen2)] == [words] * 2


def test_the_shipped_weights_fit_the_model_that_pretraining_starts_from() -> None:
    fresh = make_model(make_tokenizer("tiny-sharing-qwen2"), 0, "tiny-sharing-qwen2")
    shipped = pair().bases[1].model
    assert shipped.config.vocab_size == fresh.config.vocab_size
    assert {n: p.shape for n, p in shipped.named_parameters()} == {
        n: p.shape for n, p in fresh.named_parameters()
    }


def test_both_read_the_verdicts_back_and_name_a_move_in_later_turns() -> None:
    asked = questions_of(GAME, "test")[:40]
    rollouts = play(pair(), debates_of(GAME, 40), asked, Sampling(), seed=0)
    for agent in ("agent_0", "agent_1"):
        messages = [m for r in rollouts for m in r.transcript.messages if m.agent == agent]
        later = [m.text for m in messages if m.turn]
        well_formed = [t.startswith("scores ") and t.endswith("}") for t in later]
        assert sum(well_formed) / len(well_formed) > 0.9
