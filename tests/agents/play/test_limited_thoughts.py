"""Debates of models that think: limits, forced tokens, what is read, and caches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from miniatures import load_team, make_model, stir
from ppo_cases import QUESTIONS, make_debates
from thinking_cases import thinking_tokenizer

from maporl_agents.algorithms import maporl
from maporl_agents.config import PPOConfig, Sampling, TrainConfig
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import sample
from maporl_agents.play.rollout import play
from maporl_agents.play.window_check import stand_in
from maporl_agents.types import Completion, Rollout, StopReason
from maporl_agents.update.batching import collate
from maporl_agents.update.optimiser import PPOLearner
from maporl_agents.update.token_logprobs import score_tokens
from maporl_agents.update.token_tables import token_tables

LIMIT = 5
SAMPLING = Sampling(max_new_tokens=24, max_thinking_tokens=LIMIT)
NAMES = ("deepseek", "gpt_oss")
"""Whose messages begin with a thought, whatever the model writes."""


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Checkpoints of models that think, by format."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            tokenizer = thinking_tokenizer(name)
            make_model("llama", tokenizer).save_pretrained(made[name])
            tokenizer.save_pretrained(made[name])
        return made[name]

    return folder


def team_of(folder: Path, **options: object) -> Team:
    team = load_team(folder, num_turns=2, double=True, **options)
    stir(team)
    return team


def played(team: Team, sampling: Sampling = SAMPLING) -> list[Rollout]:
    return play(team, make_debates(), QUESTIONS, sampling, seed=1)


def said(rollouts: list[Rollout]) -> list[Completion]:
    return [one for rollout in rollouts for one in rollout.completions]


@pytest.mark.parametrize("name", NAMES)
def test_a_thought_is_ended_at_its_limit(folder_of, name: str) -> None:
    """The ids that end it follow the limit at once, of probability 1, and sampling goes on."""
    team = team_of(folder_of(name))
    chat = team.bases[0].chat
    assert chat.thoughts is not None
    closing = chat.thoughts.closing
    forced = 0
    for one in said(played(team)):
        assert one.text == chat.shown_text(one.ids)
        body = one.ids[:-1] if one.stop is StopReason.EOS else one.ids
        if one.kept is None:  # it ended before, or answered by itself
            assert len(body) <= LIMIT or not chat.thoughts.thinking(body[: LIMIT + 1])
            continue
        places = one.kept.forced
        # A thought that is begun anew after the limit is ended at once.
        assert [one.ids[i] for i in places] == [*closing * len(places)][: len(places)]
        assert places[0] >= LIMIT
        assert {one.logprobs[i] for i in places} == {0.0}
        assert [one.kept.sets()[i] for i in places] == [(one.ids[i],) for i in places]
        forced += len(places) >= len(closing) and len(one.ids) > places[-1] + 1
    assert forced > 2


@pytest.mark.parametrize("cut", [{}, {"top_k": 4}])
def test_forced_tokens_have_no_part_in_the_loss(folder_of, cut: dict[str, int]) -> None:
    """Their ratio is 1 and their gradient 0, under any policy; others are scored as sampled."""
    team = team_of(folder_of("deepseek"))
    batch, _ = collate(team, played(team, replace(SAMPLING, **cut)))
    scores = score_tokens(team, batch, temperature=1.0, with_entropy=True)
    torch.testing.assert_close(
        scores.logprobs.detach(), batch.sampled_logprobs, atol=1e-9, rtol=1e-9
    )
    forced = torch.zeros_like(batch.mask)
    for row, kept in enumerate(batch.kept or ()):
        forced[row, list(kept.forced if kept else ())] = True
    assert forced.sum() > 10
    stir(team, seed=2)
    moved = score_tokens(team, batch, temperature=1.0, with_entropy=True)
    assert not moved.logprobs[forced].any()
    assert not moved.entropy[forced].any()
    assert (moved.logprobs != scores.logprobs)[batch.mask & ~forced].any()
    parameters = [p for one in team.trainable().values() for p in one.values()]
    gradients = torch.autograd.grad(moved.logprobs[forced].sum(), parameters, allow_unused=True)
    assert not any(one is not None and one.any() for one in gradients)


def test_imitation_does_not_learn_forced_tokens(folder_of) -> None:
    """Over the whole vocabulary, as MALT learns: forced tokens keep probability 1 there, too."""
    team = team_of(folder_of("deepseek"))
    batch, _ = collate(team, played(team, replace(SAMPLING, top_k=4)))
    whole = batch.untruncated()
    assert whole.kept is not None
    with torch.no_grad():
        scores = score_tokens(team, whole, temperature=1.0)
    for row, kept in enumerate(whole.kept):
        if kept is not None:
            assert not scores.logprobs[row, list(kept.forced)].any()
    assert (scores.logprobs < batch.sampled_logprobs)[batch.mask].any()  # beyond the kept sets


@pytest.mark.parametrize("name", NAMES)
def test_nobody_reads_a_thought(folder_of, name: str) -> None:
    """Later prompts hold neither the ids of own thoughts nor the text of others'."""
    team = team_of(folder_of(name))
    chat = team.bases[0].chat
    for rollout in played(team):
        for message, one in zip(rollout.transcript.messages, rollout.completions, strict=True):
            assert message.text == chat.shown_text(one.ids)
        first, later = rollout.completions[:2], rollout.prompts[2:]
        for agent, prompt in enumerate(later):
            own = first[agent].ids
            shown = [x for x in chat.shown(own) if x not in chat.stop_ids]
            hidden = own[: len(own) - len(shown)]
            assert not contains(prompt, hidden) or len(hidden) < 4
            assert contains(prompt, shown)


def contains(ids: tuple[int, ...], part: object) -> bool:
    wanted = tuple(part)  # type: ignore[call-overload]
    return any(ids[i : i + len(wanted)] == wanted for i in range(len(ids) - len(wanted) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_kept_caches_change_nothing(folder_of, name: str) -> None:
    """Prompts that leave out what was read are read anew from there on."""
    team = team_of(folder_of(name))
    kept, anew = (said(played(team, replace(SAMPLING, cache_gb=gb))) for gb in (1.0, 0.0))
    assert [one.ids for one in kept] == [one.ids for one in anew]
    for one, other in zip(kept, anew, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_step_of_training_begins_at_ratio_one(folder_of, tuning: str) -> None:
    team = load_team(folder_of("deepseek"), num_turns=2, tuning=tuning)
    stir(team)
    batch, _ = collate(team, played(team))
    found = token_tables(team, batch, temperature=1.0, micro_tokens=99, sampled=True)
    assert found.fault == 0
    ppo = PPOConfig(minibatches=1)
    config = TrainConfig(sampling=SAMPLING, ppo=ppo)
    learner = PPOLearner(team, ppo, 3)
    _, metrics = maporl.train_step(learner, make_debates(), QUESTIONS, config, seed=1)
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-9)
    assert metrics["clip_frac"] == 0


def test_shown_thoughts_are_limited_too(folder_of) -> None:
    team = team_of(folder_of("deepseek"), thoughts="shown")
    chat = team.bases[0].chat
    for one in said(played(team)):
        assert one.text == chat.decode(one.ids)
        assert one.kept is None or one.kept.forced[0] == LIMIT


def test_no_thought_at_all(folder_of) -> None:
    """A limit of 0 ends what the prompt begins before the first token."""
    team = team_of(folder_of("deepseek"))
    chat = team.bases[0].chat
    assert chat.thoughts is not None
    none = Sampling(max_new_tokens=6, max_thinking_tokens=0)
    [one] = sample(team, [(5, 6)], ["agent_0"], none, seed=1)
    assert one.ids[: len(chat.thoughts.closing)] == chat.thoughts.closing


def test_switches_reach_the_prompts(folder_of) -> None:
    team = team_of(folder_of("qwen3"), template=("enable_thinking=false",))
    [end] = team.bases[0].chat.tokenizer("</think>", add_special_tokens=False)["input_ids"]
    assert all(end in prompt for rollout in played(team) for prompt in rollout.prompts)
    with pytest.raises(ValueError, match=r"team\.template: no chat template .* 'reasoning_effort'"):
        load_team(folder_of("qwen3"), template=("reasoning_effort=low",))


def test_a_limit_without_marks_is_refused(checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_turns=1)
    with pytest.raises(ValueError, match="max_thinking_tokens=5 limits thoughts"):
        sample(team, [(5,)], ["agent_0"], SAMPLING, seed=1)


def test_a_stand_in_of_full_length_is_read_again(folder_of) -> None:
    """So that the check of windows counts later prompts of the greatest length."""
    chat = team_of(folder_of("deepseek")).bases[0].chat
    one = stand_in(chat, 20)
    assert len(one.ids) == 20
    assert len(chat.shown(one.ids)) > 15
