"""Trees of samples: what is continued, in how many calls, and that a prefix is a state."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from miniatures import load_team

from maporl_agents.algorithms.malt import as_batch
from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play import speak
from maporl_agents.play.rollout import play
from maporl_agents.records.data_stages import Stages, digest
from maporl_agents.records.storage import CheckpointError
from maporl_agents.trees.branches import branches
from maporl_agents.trees.sample_tree import grow_trees
from maporl_agents.trees.samples import Sample, first_passes, samples_of
from maporl_agents.types import Completion, StopReason
from maporl_agents.update.token_logprobs import score_tokens
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question, Transcript

QUESTIONS = [Question(f"q{i}", f"how much is {i} and two ?", str(i + 2)) for i in range(2)]
SAMPLING = Sampling(max_new_tokens=4)


class LengthVerifier:
    """Right if the text has an even number of characters; counts its calls."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        self.calls.append(len(texts))
        return [float(len(text) % 2 == 0) for text in texts]


def pipeline(verifier: object = None, **options: object) -> BatchedDebate:
    """Return debates of three roles about hand-made questions."""
    given = {"protocol": "pipeline", "num_agents": 3, "num_turns": 1, **options}
    config = DebateConfig(task=QUESTIONS, verifier=verifier or LengthVerifier(), **given)  # type: ignore[arg-type]
    return BatchedDebate(config, 64)


def expand(*arguments: Any, seed: int) -> list[Sample]:
    return samples_of(grow_trees(*arguments, seed=seed))


@pytest.fixture(scope="module")
def team(checkpoint) -> Team:
    return load_team(checkpoint("llama"), num_agents=3, num_turns=1, tuning="none")


@pytest.fixture(scope="module")
def tree(team: Team) -> list[Sample]:
    return expand(team, pipeline(), QUESTIONS, SAMPLING, (3, 3, 3), seed=1)


def test_39_generations_and_27_leaves_per_question(tree: list[Sample]) -> None:
    assert Counter((one.tree, len(one.path)) for one in tree) == {
        (index, level): 3**level for index in range(2) for level in (1, 2, 3)
    }
    assert len({one.place for one in tree}) == len(tree) == 2 * 39
    assert {one.agent for one in tree if len(one.path) == 2} == {1}
    assert {(one.question, one.tree) for one in tree} == {("q0", 0), ("q1", 1)}


def test_one_generation_call_per_level_and_one_of_the_verifier(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(team: Team, prompts: Sequence, *args: object):
        calls.append(len(prompts))
        return original(team, prompts, *args)

    original = speak.complete
    monkeypatch.setattr(speak, "complete", counted)
    verifier = LengthVerifier()
    expand(team, pipeline(verifier), QUESTIONS, SAMPLING, (3, 2, 2), seed=1)
    assert calls == [2 * 3, 2 * 3 * 2, 2 * 3 * 2 * 2]
    assert verifier.calls == [24 * 3]  # every agent of a leaf's debate is scored, in one call


def test_only_leaves_have_scores_and_they_are_the_verifiers(tree: list[Sample]) -> None:
    for one in tree:
        expected = float(len(one.completion.text) % 2 == 0) if len(one.path) == 3 else None
        assert one.score == expected


def test_a_sample_continues_its_own_prefix(team: Team, tree: list[Sample]) -> None:
    """Every prompt is what the protocol shows after the messages on the path, and nothing else."""
    protocol = pipeline().game.protocol
    by_place = {one.place: one for one in tree}
    for one in tree:
        debate = pipeline().game.debate()
        debate.reset(QUESTIONS[one.tree])
        for length in range(1, len(one.path)):
            spoken = by_place[one.tree, one.path[:length]]
            debate.post(f"agent_{spoken.agent}", spoken.completion.text)
        view = protocol.view(f"agent_{one.agent}", debate.transcript)
        assert one.prompt == team.base_of(one.policy).chat.prompt_ids(view)


def test_siblings_are_drawn_apart_and_from_the_policy(team: Team, tree: list[Sample]) -> None:
    families = Counter(one.parent for one in tree)
    assert set(families.values()) == {3}
    texts = {
        parent: {one.completion.ids for one in tree if one.parent == parent} for parent in families
    }
    assert sum(len(ids) > 1 for ids in texts.values()) > 20  # of 26, each with 4 random tokens
    batch = as_batch(team, tree, range(len(tree)))
    with torch.no_grad():
        scored = score_tokens(team, batch, temperature=1.0).logprobs
    assert torch.allclose(scored, batch.sampled_logprobs, atol=1e-4)


def test_the_seed_names_the_samples(team: Team, tree: list[Sample]) -> None:
    again = expand(team, pipeline(), QUESTIONS, SAMPLING, (3, 3, 3), seed=1)
    other = expand(team, pipeline(), QUESTIONS, SAMPLING, (3, 3, 3), seed=2)
    assert again == tree
    assert [one.completion for one in other] != [one.completion for one in tree]


def test_a_sample_survives_json(tree: list[Sample]) -> None:
    for one in tree[:50]:
        assert Sample.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_the_debate_of_first_siblings_as_a_rollout(tree: list[Sample]) -> None:
    rollouts = first_passes(tree, QUESTIONS, ("agent_0", "agent_1", "agent_2"))
    by_place = {one.place: one for one in tree}
    for index, rollout in enumerate(rollouts):
        spoken = [by_place[index, (0,) * length] for length in (1, 2, 3)]
        assert [m.text for m in rollout.transcript.messages] == [
            one.completion.text for one in spoken
        ]
        assert rollout.completions == tuple(one.completion for one in spoken)
        assert [m.cut for m in rollout.transcript.messages] == [
            one.completion.stop is StopReason.LENGTH for one in spoken
        ]
        assert rollout.rewards.tolist() == [[spoken[2].score] * 3]


def test_a_failing_verifier_leaves_the_leaf_without_score(team: Team) -> None:
    def broken(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        raise RuntimeError("no")

    samples = expand(team, pipeline(broken), QUESTIONS, SAMPLING, (1, 1, 1), seed=1)
    assert [one.score for one in samples] == [None] * 6


def test_an_agents_own_ids_stay_in_its_prompt(team: Team) -> None:
    """Two turns of two agents, one after the other: the branch carries its ids."""
    debates = pipeline(protocol="sequential", num_agents=2, num_turns=2)
    samples = expand(team, debates, QUESTIONS[:1], SAMPLING, (2, 1, 2, 1), seed=3)
    assert Counter(len(one.path) for one in samples) == {1: 2, 2: 2, 3: 4, 4: 4}
    by_place = {one.place: one for one in samples}
    for one in samples:
        if one.turn == 1:
            own = by_place[0, one.path[: one.agent + 1]]
            start = len(own.prompt)
            assert one.prompt[:start] == own.prompt
            assert one.prompt[start : start + len(own.completion.ids)] == own.completion.ids


def test_every_path_through_single_messages_is_a_debate(team: Team) -> None:
    """Told again it reads and scores the same; what a turn was paid stands at its last speaker."""
    debates = pipeline(protocol="sequential", num_agents=2, num_turns=2)
    [root] = grow_trees(team, debates, QUESTIONS[:1], SAMPLING, (2, 1, 2, 1), seed=3)
    paths = list(branches(root))
    assert len(paths) == 4
    for path in paths:
        said = iter(path.completions)

        def again(*_: object, said: Iterator[Completion] = said) -> list[Completion]:
            return [next(said)]

        [told] = play(team, debates, QUESTIONS[:1], SAMPLING, seed=0, engine=again)
        assert (told.transcript, told.prompts) == (path.transcript, path.prompts)
        assert (told.policies, told.completions) == (path.policies, path.completions)
        assert path.scored.tolist() == [[False, True], [False, True]]
        last = [told.transcript.of_turn(turn)[1].score for turn in (0, 1)]
        assert path.rewards.tolist() == [[0.0, score] for score in last]


def test_a_tree_ends_where_all_debates_agree(team: Team) -> None:
    def boxed(team: Team, prompts: Sequence[object], *_: object) -> list[Completion]:
        return [Completion((1,), (-1.0,), r"\boxed{5}", StopReason.EOS) for _ in prompts]

    debates = pipeline(protocol="sequential", num_agents=2, num_turns=3, stop="consensus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speak, "complete", boxed)
        samples = expand(team, debates, QUESTIONS[:1], SAMPLING, (2, 2, 1, 1, 1, 1), seed=3)
    assert Counter(len(one.path) for one in samples) == {1: 2, 2: 4}
    assert [one.score is None for one in samples] == [True] * 2 + [False] * 4


def test_a_prefix_is_told_again_with_its_scores() -> None:
    game = pipeline(protocol="sequential", num_agents=2, num_turns=2, reward_feedback=True).game
    first = game.debate()
    first.reset(QUESTIONS[0])
    first.accept("agent_0", "one", cut=True)
    first.post("agent_1", "three")
    first.settle([0.25, 1.0], [0.5, None])
    first.post("agent_0", "two")
    again = game.restore(first.transcript)
    assert again.transcript == first.transcript
    assert [m.score for m in again.transcript.messages] == [0.25, 1.0, None]
    assert [m.cut for m in again.transcript.messages] == [True, False, False]
    assert again.observation("agent_1") == first.observation("agent_1")
    assert again.speakers == first.speakers == ("agent_1",)


def test_what_cannot_be_a_tree_is_refused(team: Team) -> None:
    with pytest.raises(ValueError, match="one agent speaks at a time"):
        expand(team, pipeline(protocol="debate"), QUESTIONS, SAMPLING, (3, 3, 3), seed=0)
    for branching in [(3, 3), (3, 3, 0), ()]:
        with pytest.raises(ValueError, match="each of the 3 messages"):
            expand(team, pipeline(), QUESTIONS, SAMPLING, branching, seed=0)


class TestStages:
    """Files that are made once."""

    def test_made_once_and_then_read(self, tmp_path: Path) -> None:
        stages = Stages(tmp_path / "new")
        rows = [{"text": "a\u2028b\n", "x": 0.1}, {"text": "", "x": None}]
        assert stages.rows("a.jsonl", "origin", lambda: rows) == rows
        assert stages.rows("a.jsonl", "origin", lambda: pytest.fail("made twice")) == rows
        assert stages.rows("empty.jsonl", "origin", list) == []

    def test_made_again_from_other_things_or_when_removed(self, tmp_path: Path) -> None:
        stages = Stages(tmp_path)
        stages.rows("a.jsonl", "origin", lambda: [{"x": 1}])
        assert stages.rows("a.jsonl", "another", lambda: [{"x": 2}]) == [{"x": 2}]
        (tmp_path / "a.jsonl").unlink()
        assert stages.rows("a.jsonl", "another", lambda: [{"x": 3}]) == [{"x": 3}]

    def test_cut_before_the_manifest_it_is_made_again(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"x": "half')
        assert Stages(tmp_path).rows("a.jsonl", "o", lambda: [{"x": 1}]) == [{"x": 1}]

    def test_an_altered_file_is_refused(self, tmp_path: Path) -> None:
        stages = Stages(tmp_path)
        stages.rows("a.jsonl", "origin", lambda: [{"x": 1}])
        (tmp_path / "a.jsonl").write_text('{"x": 2}\n')
        with pytest.raises(CheckpointError, match=r"a\.jsonl was altered since it was made"):
            stages.rows("a.jsonl", "origin", lambda: [{"x": 1}])

    def test_a_kill_while_rows_are_made_leaves_nothing(self, tmp_path: Path) -> None:
        def dies():
            yield {"x": 1}
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Stages(tmp_path).rows("a.jsonl", "origin", dies)
        assert list(tmp_path.iterdir()) == []

    def test_equal_values_equal_names(self) -> None:
        assert digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
        assert digest({"a": 1}) != digest({"a": 2})


def test_a_transcript_without_messages_is_a_prefix() -> None:
    game = pipeline().game
    debate = game.restore(Transcript(QUESTIONS[0], ("agent_0", "agent_1", "agent_2")))
    assert debate.speakers == ("agent_0",)
