"""Every alarm on both sides of its threshold, and its advice."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from metric_cases import make_rollout

from maporl_agents.config import CONFIGS, EvalConfig, Sampling, TrainConfig
from maporl_agents.config.effects import leaves, why_never
from maporl_agents.measure.alarms import RULES, Alarm, alarms, last_score
from maporl_agents.measure.step_metrics import (
    rollout_metrics,
)
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.training import experiment
from maporl_agents.training.loop import highest
from maporl_env.tasks import load_task

# --- Alarms -------------------------------------------------------------------

FIRST = {"entropy/agent_0/turn_1": 1.0, "length/turn_2": 40.0, "invalid/turn_1": 0.4}


@pytest.mark.parametrize(
    ("name", "loud", "quiet", "says"),
    [
        (
            "entropy collapse",
            {"entropy/agent_0/turn_1": 0.099},
            {"entropy/agent_0/turn_1": 0.101},
            "agent_0 writes with 0.099 nats per token in turn 1",
        ),
        ("length collapse", {"length/turn_2": 9.9}, {"length/turn_2": 10.1}, "turn 2 have 9.9"),
        (
            "copying",
            {"score/turn_1": 0.4, "score/turn_3": 0.44, "copy/turn_3": 0.9},
            {"score/turn_1": 0.4, "score/turn_3": 0.46, "copy/turn_3": 1.0},
            "90% of what is said in turn 3",
        ),
        ("copying", {"copy/turn_2": 0.9}, {"copy/turn_2": 0.89}, "90%"),
        ("lazy agent", {"lazy/agent_1": 0.8}, {"lazy/agent_1": 0.79}, "agent_1 repeats"),
        ("KL runaway", {"kl": 0.51}, {"kl": 0.5}, "0.51 nats"),
        ("long steps", {"clip_frac": 0.31}, {"clip_frac": 0.3}, "31%"),
        ("cut off", {"cut_off": 0.9}, {"cut_off": 0.89}, "--sampling.max-new-tokens"),
        ("no signal", {"zero_spread": 1.0}, {"zero_spread": 0.99}, "taught nothing"),
        (
            "invalid answers",
            {"invalid/turn_1": 0.7},  # (1 + .4) / 2
            {"invalid/turn_1": 0.69},
            "70% of the messages of turn 1",
        ),
        (
            "verifier faults",
            {"unscored_messages": 11.0, "answers": 100.0},
            {"unscored_messages": 10.0, "answers": 100.0},
            "11 of 100",
        ),
        (
            "self-play collapse",
            {"self_play/rating": -51.0, "self_play/best_rating": 100.0},
            {"self_play/rating": -50.0, "self_play/best_rating": 100.0},
            "151 Elo points below its best version",
        ),
        ("sampler mismatch", {"ratio_mismatch": 0.06}, {"ratio_mismatch": 0.05}, "6.0%"),
    ],
)
def test_an_alarm_on_both_sides_of_its_threshold(
    name: str, loud: dict[str, float], quiet: dict[str, float], says: str
) -> None:
    [alarm] = alarms(loud, FIRST)
    assert alarm.name == name
    assert alarm.where in loud
    assert says in alarm.text
    assert str(alarm) == f"{name}: {alarm.text}"
    assert alarms(quiet, FIRST) == []


COLLAPSED = {"entropy/agent_0/turn_1": 0.05, "entropy/agent_1/turn_1": 0.01, "length/turn_2": 2.0}


FULL = {"entropy/agent_0/turn_1": 1.0, "entropy/agent_1/turn_1": 1.0, "length/turn_2": 40.0}


def test_what_many_policies_do_is_one_alarm_about_the_worst() -> None:
    entropy, length = alarms(COLLAPSED, FULL)
    assert (entropy.where, length.where) == ("entropy/agent_1/turn_1", "length/turn_2")
    lazy = {"lazy/agent_0": 0.85, "lazy/agent_1": 0.9}
    assert [alarm.where for alarm in alarms(lazy, {})] == ["lazy/agent_1"]


@pytest.mark.parametrize(
    ("score", "at_first", "collapses"),
    [(0.4, 0.4, True), (0.44, 0.4, True), (0.3, 0.4, True), (0.46, 0.4, False), (0.9, 0.9, False)],
)
def test_nothing_collapses_while_the_score_rises_or_is_near_1(
    score: float, at_first: float, collapses: bool
) -> None:
    """Of the last turn: turn 10 is after turn 9."""
    now = COLLAPSED | {"score/turn_9": 0.0, "score/turn_10": score}
    then = FULL | {"score/turn_9": 0.0, "score/turn_10": at_first}
    assert bool(alarms(now, then)) is collapses


TROUBLE = COLLAPSED | {"copy/turn_2": 1.0, "lazy/agent_0": 1.0, "empty/agent_0": 1.0, "kl": 9.0}
TROUBLE |= {"clip_frac": 1.0, "cut_off": 1.0, "zero_spread": 1.0, "invalid/turn_1": 1.0}


@pytest.mark.parametrize(
    ("score", "best", "quiet"),
    [(0.95, 0.95, True), (0.6, 0.8, True), (0.6, None, True), (0.6, 0.9, False), (0.3, 0.3, False)],
)
def test_only_faults_are_told_while_the_last_turn_does_well(
    score: float, best: float | None, quiet: bool
) -> None:
    """From .3 at first. Well: near 1; or above the start, and not far below the best step."""
    then = FULL | {"score/turn_1": 0.0, "score/turn_2": 0.3}
    now = TROUBLE | {"score/turn_1": 0.0, "score/turn_2": score}
    assert (alarms(now, then, best=best) == []) is quiet
    assert [a.name for a in alarms(now | {"ratio_mismatch": 1.0}, then, best=best)][
        -1
    ] == "sampler mismatch"


def test_a_turn_that_tells_facts_has_no_answers_and_no_alarm() -> None:
    """Nor had it at first; in the last turn, or where no turn has answers, they are missed."""
    told = {"invalid/turn_1": 1.0, "invalid/turn_2": 0.2}
    assert alarms(told, {"invalid/turn_1": 0.95, "invalid/turn_2": 0.1}) == []
    [alarm] = alarms(told, {"invalid/turn_1": 0.5, "invalid/turn_2": 0.1})
    assert alarm.where == "invalid/turn_1"
    [alarm] = alarms(
        told | {"invalid/turn_2": 0.99}, {"invalid/turn_1": 0.95, "invalid/turn_2": 0.1}
    )
    assert alarm.name == "invalid answers"


RECORDED = json.loads((Path(__file__).parent / "recorded_metrics.json").read_text())
"""Metrics of real runs on `notes`, by name: one row per step."""


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_runs_that_were_recorded(name: str) -> None:
    """Those that learn raise nothing; in those that fail the last step is an alarm."""
    rows, best, raised = RECORDED[name], None, []
    for row in rows:
        best = highest(best, last_score(row))
        raised.append([alarm.name for alarm in alarms(row, rows[0], best=best)])
    if name.startswith("learns"):
        assert raised == [[]] * len(rows)
    else:
        assert raised[-1]


def test_a_policy_that_was_sure_from_the_start_has_not_collapsed() -> None:
    assert alarms({"entropy/agent_0/turn_1": 1e-4}, {"entropy/agent_0/turn_1": 0.04}) == []
    assert alarms({"entropy/agent_0/turn_1": 1e-4}, {"entropy/agent_0/turn_1": 0.06}) != []


def test_copying_what_is_right_is_no_alarm() -> None:
    copied = {"score/turn_1": 0.95, "score/turn_2": 0.95, "copy/turn_2": 1.0}
    assert alarms(copied, copied) == []


def test_an_agent_that_writes_nothing_is_an_alarm() -> None:
    metrics = rollout_metrics([make_rollout([["a b", " \n"], ["", ""]], [[0.0] * 2] * 2)])
    assert (metrics["empty/agent_0"], metrics["empty/agent_1"]) == (0.5, 1.0)
    [alarm] = (alarm for alarm in alarms(metrics, metrics) if alarm.name == "empty messages")
    assert "agent_1 writes nothing in 100% of its messages" in alarm.text
    assert alarms({"empty/agent_0": 0.49}, {}) == []


@pytest.mark.parametrize("scheme", CONFIGS)
def test_alarms_advise_flags_that_their_scheme_has(scheme: str) -> None:
    """Every alarm at once; each flag is a setting of the scheme that would act."""
    now = COLLAPSED | {"copy/turn_2": 1.0, "lazy/agent_0": 1.0, "empty/agent_0": 1.0, "kl": 9.0}
    now |= {"clip_frac": 1.0, "cut_off": 1.0, "zero_spread": 1.0, "invalid/turn_1": 1.0}
    now |= {"unscored_messages": 5.0, "answers": 6.0, "ratio_mismatch": 1.0, "sampler_fault": 1.0}
    now |= {"self_play/rating": -500.0, "self_play/best_rating": 0.0}
    raised = alarms(now, FULL, scheme)
    assert len(raised) == len(RULES)
    known = {f"--{name.replace('_', '-')}" for name, _ in leaves(CONFIGS[scheme]())}
    for alarm in raised:
        for flag in re.findall(r"--[\w.-]*\w", alarm.text):
            assert flag in known, (alarm, scheme)
            assert why_never(scheme, flag[2:].replace("-", "_")) is None


@pytest.mark.parametrize("scheme", ["maporl", "grpo"])
@pytest.mark.parametrize("sign", ["return/left", "self_play/score"])
def test_alarms_of_games_that_are_no_debates_advise_no_flags_of_debates(
    scheme: str, sign: str
) -> None:
    now = COLLAPSED | {"cut_off": 1.0, "zero_spread": 1.0, "kl": 9.0, "clip_frac": 1.0, sign: 0.0}
    told = {alarm.name: alarm.text for alarm in alarms(now, FULL, scheme)}
    assert {"length collapse", "cut off", "no signal", "KL runaway"} <= told.keys()
    flags = {flag for text in told.values() for flag in re.findall(r"--[\w.-]*\w", text)}
    assert {flag for flag in flags if flag.startswith("--game.")} == set()
    assert "--sampling.max-new-tokens" in flags


def test_the_first_step_is_its_own_measure() -> None:
    assert alarms(FIRST, FIRST) == []


@pytest.mark.parametrize("absent", [None, math.nan, math.inf])
def test_what_is_not_finite_raises_nothing(absent: float | None) -> None:
    gone = dict.fromkeys((*FIRST, "kl", "clip_frac", "cut_off", "ratio_mismatch"), absent)
    assert alarms(gone, FIRST) == []  # type: ignore[arg-type]
    assert alarms({"length/turn_2": 1.0}, gone) == []  # type: ignore[arg-type]


def test_everything_cut_off_is_said_and_logged_once_a_step(tmp_path: Path) -> None:
    """A39: no message finishes, so no answer is read and all are paid alike."""
    config = TrainConfig(
        steps=2,
        questions_per_step=2,
        eval=EvalConfig(questions=2),
        sampling=Sampling(max_new_tokens=2),
    )
    config = replace(config, ppo=replace(config.ppo, minibatches=1))
    told: list[tuple[int, Alarm]] = []
    _, learner = experiment.build(config)
    with RunLog.create(tmp_path / "run", config) as log:
        questions = load_task("shopping").split("train")
        experiment.train(
            config, learner, questions, log, on_alarm=lambda step, alarm: told.append((step, alarm))
        )
    rows = read_metrics(tmp_path / "run")
    assert [(row["cut_off"], row["zero_spread"], row["alarms"]) for row in rows] == [(1, 1, 2)] * 2
    assert [(step, alarm.name) for step, alarm in told] == [(1, "cut off"), (1, "no signal")]
    lines = (tmp_path / "run" / "alarms.jsonl").read_text().splitlines()
    first = [{"step": 1, **asdict(alarm)} for _, alarm in told]
    assert [json.loads(line) for line in lines[:2]] == first
    assert [json.loads(line)["step"] for line in lines] == [1, 1, 2, 2]
    with RunLog.resume(tmp_path / "run", config) as log:
        log.truncate_after(1)
    assert (tmp_path / "run" / "alarms.jsonl").read_text().splitlines() == lines[:2]
