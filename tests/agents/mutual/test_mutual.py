"""Teacher and student: hints in observations, feedback from TD errors, freezing, shuffling."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from maporl_agents.mutual.worlds import Chain, Hinted, RedBall

pytest.importorskip(
    "stable_baselines3", reason="stable-baselines3 is not installed: pip install 'maporl[mutual]'"
)

from maporl_agents.mutual.student import Student, first_episode, td_errors, whitened
from maporl_agents.mutual.teaching import Run, Settings, judged, run, start

# --- worlds ---


@pytest.mark.parametrize("seed", range(6))
def test_the_treasure_is_at_the_end_that_the_right_hint_names(seed: int) -> None:
    chain = Chain()
    seen, _ = chain.reset(seed=seed)
    assert seen.sum() == 1
    assert seen[5] + seen[6] == 1
    assert chain.right_hint() in chain.describe()
    wanted, total, over = int(chain.right_hint() == "right"), 0.0, False
    while not over:
        _, reward, over, cut, _ = chain.step(wanted)
        total += reward
        assert not cut
    assert total == 1.0
    chain.reset(seed=seed)
    ends = [chain.step(1 - wanted) for _ in range(6)]
    assert sum(end[1] for end in ends) == 0.0


def test_the_chain_ends_at_its_time_limit() -> None:
    chain = Chain(limit=4)
    chain.reset(seed=0)
    assert [chain.step(n % 2)[3] for n in range(4)] == [False, False, False, True]


def test_a_hint_is_seen_until_the_episode_ends() -> None:
    world = Hinted(Chain())
    seen, _ = world.reset(seed=0)
    assert not seen[-3:].any()
    world.give(1)
    seen, *_ = world.step(0)
    assert list(seen[-3:]) == [0, 1, 0]
    assert world.observation_space.contains(seen)
    seen, _ = world.reset()
    assert not seen[-3:].any()


def test_the_hint_of_a_ball_turns_with_the_student() -> None:
    pytest.importorskip(
        "minigrid", reason="minigrid is not installed: pip install 'maporl[mutual]'"
    )
    turned = {"ahead": "right", "right": "behind", "behind": "left", "left": "ahead"}
    diagonal = 0
    for seed in range(8):
        world = RedBall()
        seen, _ = world.reset(seed=seed)
        assert world.observation_space.contains(seen)
        before = world.right_hint()
        assert before in world.describe()
        world.step(0)  # turns left
        if world.right_hint() == turned[before]:
            continue
        diagonal += 1  # as far aside as ahead: the word for the view is taken
        assert world.right_hint() in ("ahead", "behind")
    assert diagonal <= 3


# --- feedback ---


def test_td_errors_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(5, 3)), rng.normal(size=(6, 3))
    ended = rng.random((5, 3)) < 0.4
    slow = [
        [
            rewards[t, e] + (0 if ended[t, e] else 0.9 * values[t + 1, e]) - values[t, e]
            for e in range(3)
        ]
        for t in range(5)
    ]
    np.testing.assert_allclose(td_errors(rewards, values, ended, 0.9), slow)


@pytest.mark.parametrize("reads", [False, True])
def test_the_critic_reads_the_hint_or_does_not(reads: bool) -> None:
    """A critic that is worth of hints alone: 1 with any hint, 0 without; nothing is rewarded."""
    student = Student(Chain, 4, 2, seed=0, frozen=True, critic_reads_hints=reads)
    critic = [student.model.policy.mlp_extractor.value_net, student.model.policy.value_net]
    with torch.no_grad():
        for parameter in (p for part in critic for p in part.parameters()):
            parameter.zero_()
        critic[0][0].weight[0, -3:] = 50.0
        critic[0][2].weight[0, 0] = 50.0
        critic[1].weight[0, 0] = 1.0
    feedback = student.act([0, 1, 2, None]).feedback
    change = student.model.gamma - 1.0 if reads else 0.0
    np.testing.assert_allclose(feedback, [change, change, change, 0.0], atol=1e-6)


def test_feedback_is_the_mean_while_the_hint_was_in_force() -> None:
    in_force = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], bool)
    assert first_episode(in_force).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_whitened_feedback_has_mean_0_and_deviation_1_whatever_its_scale() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=50)
    one, two = whitened(values), whitened(1e-3 * values + 7)
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert one.mean() == pytest.approx(0, abs=1e-9)
    assert one.std() == pytest.approx(1)
    assert not whitened(np.ones(4)).any()


def test_a_student_that_ignores_hints_does_not_move_when_they_are_shuffled() -> None:
    student = Student(Chain, envs=4, steps=6, seed=0, frozen=True)
    assert student.act([0, 1, 2, 0]).moved > 0
    with torch.no_grad():
        for extractor in (student.model.policy.mlp_extractor.policy_net[0],):
            extractor.weight[:, -3:] = 0
    assert student.act([0, 1, 2, 0]).moved == 0


def test_a_student_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    student = Student(Chain, envs=4, steps=6, seed=0)
    student.act([0, 1, 2, 0])
    assert not list(tmp_path.glob("SB3-*"))


# --- both together ---


def test_a_text_that_is_no_hint_is_worth_less_than_any_hint() -> None:
    known = np.array([True, False, True, True])
    found = judged(np.array([0.1, 9.0, 0.3, 0.2]), known)
    assert found[1] == -2.0
    np.testing.assert_allclose(found[known], whitened(np.array([0.1, 0.3, 0.2])))
    assert list(judged(np.array([1.0, 2.0]), np.array([False, False]))) == [-2.0, -2.0]


def settings(**given: object) -> Settings:
    return Settings(
        **{"segments": 3, "envs": 6, "steps": 6, "grounding": 1, "listening": 0, **given}
    )


def moves(both: Run, segments: int) -> tuple[bool, bool]:
    """Return whether teacher and student move in some segments after the grounding."""
    both.segment()
    before = both.teacher.parameters(), both.student.parameters()
    for _ in range(segments):
        both.segment()
    after = both.teacher.parameters(), both.student.parameters()
    return tuple(
        any(not torch.equal(x, y) for x, y in zip(one, two, strict=True))
        for one, two in zip(before, after, strict=True)
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("frozen", "moved"),
    [
        ({}, (True, True)),
        ({"freeze_teacher": True}, (False, True)),
        ({"freeze_student": True}, (True, False)),
        ({"freeze_teacher": True, "freeze_student": True}, (False, False)),
        ({"listening": 9}, (True, False)),
        ({"listening": 9, "freeze_teacher": True}, (False, True)),
    ],
)
def test_what_is_frozen_does_not_move_and_the_other_does(
    tmp_path: Path, frozen: dict[str, bool], moved: tuple[bool, bool]
) -> None:
    assert moves(start(settings(**frozen), tmp_path), 2) == moved


@pytest.mark.thorough
def test_a_run_is_kept_and_another_run_does_not_take_its_folder(tmp_path: Path) -> None:
    rows = run(settings(hints="none"), tmp_path)
    assert len(rows) == 3
    assert {row["hinted"] for row in rows} == {0.0}
    again = run(settings(hints="none"), tmp_path)
    np.testing.assert_equal(again, rows)
    with pytest.raises(ValueError, match="a run of other settings"):
        run(settings(hints="right"), tmp_path)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"world": "maze"}, "world"),
        ({"hints": "wrong"}, "hints"),
        ({"envs": 1}, "envs must be an integer >= 2"),
        ({"listening": -1}, "listening must be an integer >= 0"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        settings(**given)


def last(rows: list[dict[str, float]], name: str, count: int = 10) -> float:
    return float(np.nanmean([row[name] for row in rows[-count:]]))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_right_hint_is_found_and_gets_students_ahead_and_shuffled_hints_do_not(
    tmp_path: Path,
) -> None:
    """Three seeds; with one of them a word that means nothing may come to stand for one end."""
    rates = []
    for seed in range(3):
        found = {
            hints: run(Settings(hints=hints, seed=seed), tmp_path / f"{hints}-{seed}")
            for hints in ("teacher", "shuffled", "none")
        }
        rates.append(last(found["teacher"], "right"))
        without = last(found["none"], "unhinted")
        assert last(found["teacher"], "return") > without + 0.25
        assert last(found["shuffled"], "return") < without + 0.15
    assert sorted(rates)[1] > 0.9, rates
