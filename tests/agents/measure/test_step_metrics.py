"""Diagnostics by hand, every alarm on both sides of its threshold, and alarms in a run's log."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import make_transcript

from maporl_agents.config import CONFIGS, EvalConfig, Sampling, TrainConfig
from maporl_agents.config.effects import leaves, why_never
from maporl_agents.measure.alarms import RULES, Alarm, alarms
from maporl_agents.measure.copying import answers_of, copied_share, copy_rates, laziness
from maporl_agents.measure.step_metrics import (
    entropies,
    experience_metrics,
    mean_of,
    rollout_metrics,
    share_beyond,
    zero_spread,
)
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.training import experiment
from maporl_agents.types import Completion, Experience, Rollout, StopReason, TokenBatch
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig
from maporl_env.tasks import load_task
from maporl_env.types import Question


def box(answer: object) -> str:
    return f"\\boxed{{{answer}}}"


# --- Copying ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sources", "share"),
    [
        ("a b c d e f", ["x a b c d y"], 1 / 3),  # abcd; bcde and cdef are new
        ("a b c d e f", ["a b c d", "c d e f"], 2 / 3),  # bcde stands in neither
        ("a b c d", ["a b c", "d"], 0.0),  # not glued together over two sources
        ("a b", ["x a b y"], 1.0),  # shorter than n: one n-gram of all its words
        ("b a", ["x a b y"], 0.0),
        ("a  b\nc\td", ["a b c d"], 1.0),  # words, whatever blanks separate them
        ("A b c d", ["a b c d"], 0.0),
        ("", ["a b c d"], 0.0),
        ("a b c d", [], 0.0),
        ("a b c d", ["", " "], 0.0),
        ("a a a a a", ["a a a a"], 1.0),  # both n-grams are the same one
    ],
)
def test_copied_share_by_hand(text: str, sources: Sequence[str], share: float) -> None:
    assert copied_share(text, sources) == pytest.approx(share, abs=1e-12)


def test_the_width_of_an_n_gram_is_a_choice() -> None:
    assert copied_share("a b c", ["b c a"], n=2) == 1 / 2  # ab no, bc yes
    assert copied_share("a b c", ["b c a"], n=1) == 1.0


def test_nobody_is_copied_in_the_first_turn_nor_by_oneself() -> None:
    debate = make_transcript(
        [["a b c d", "p q r s"], ["a b c d", "a b c d"], ["x a b c d", "p q r s"]]
    )
    # Turn 2: agent 0 repeats itself, agent 1 what agent 0 said. Turn 3: agent 0 says one n-gram of
    # two (abcd) that agent 1 said in turn 2; agent 1 repeats what it said itself two turns ago.
    assert copy_rates(debate) == [[0, 0], [0, 1], [1 / 2, 0]]
    assert copy_rates(make_transcript([["a b c d"], ["a b c d"]])) == [[0], [0]]
    assert copy_rates(make_transcript([[""]])) == [[0]]


# --- Laziness -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "lazy"),
    [
        # Agent 1 says 2, never heard of again, then what agent 0 said the turn before, twice.
        ([[1, 2], [1, 1], [1, 1]], [0, 1]),
        # Its second turn is new, its third is agent 0's: one of two.
        ([[1, 2], [1, 3], [1, 1]], [0, 1 / 2]),
        # Its first answer is taken up by agent 0: it contributed.
        ([[1, 2], [1, 1], [2, 1]], [0, 0]),
        # It comes back to its own first answer.
        ([[1, 2], [1, 1], [1, 2]], [0, 0]),
        # No answer of its own at first.
        ([[1, None], [1, 1], [1, 1]], [0, 1]),
        # No answers at all repeat nothing.
        ([[None, None], [None, None]], [0, 0]),
        # Swapping answers: each first answer is taken up.
        ([[1, 2], [2, 1]], [0, 0]),
        # Both agree from the start and stay: nobody is lazy.
        ([[1, 1], [1, 1]], [0, 0]),
        # A repeat is of the turn just before: agent 1's last answer is older than that.
        ([[6, 2], [3, 4], [3, 6]], [0, 0]),
        ([[1, 2]], [0, 0]),
        ([], []),
    ],
)
def test_laziness_by_hand(answers: list[list[int | None]], lazy: list[float]) -> None:
    assert laziness(answers) == lazy


def test_answers_are_read_by_turn_and_seat() -> None:
    debate = make_transcript([[box(3), "none"], ["three", box("1/2")]])
    assert answers_of(debate) == [[3, None], [None, 0.5]]


# --- Rollouts -----------------------------------------------------------------


def make_rollout(
    texts: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float | None]],
    *,
    lengths: Sequence[int] | None = None,
    cut: Sequence[int] = (),
    rewards: Sequence[Sequence[float]] | None = None,
    num_turns: int = 0,
) -> Rollout:
    """Rewards and mask have `num_turns` rows as the environment's have; unplayed ones are 0."""
    transcript = make_transcript(texts, scores=scores)  # the key is 5
    count = len(transcript.messages)
    sizes = lengths or [1] * count
    completions = tuple(
        Completion(
            (1,) * size, (-1.0,) * size, "", StopReason.LENGTH if i in cut else StopReason.EOS
        )
        for i, size in enumerate(sizes)
    )
    paid = np.zeros((max(num_turns, len(texts)), len(texts[0])))
    if rewards is not None:
        paid[: len(texts)] = rewards
    scored = np.zeros(paid.shape, bool)
    scored[: len(texts)] = [[score is not None for score in row] for row in scores]
    return Rollout(transcript, ((0,),) * count, completions, ("all",) * count, paid, scored)


def test_rollout_metrics_by_hand() -> None:
    first = make_rollout(
        [[f"it is {box(5)}", "no idea"], [f"it is {box(4)}", f"it is {box(5)}"]],
        [[1.0, 0.0], [0.0, None]],
        lengths=[2, 4, 6, 9],
        cut=[1],
        rewards=[[1.0, 0.0], [0.5, 0.0]],
    )
    second = make_rollout(
        [[box(5), box(5)]], [[1.0, 1.0]], lengths=[3, 3], rewards=[[1.0, 1.0]], num_turns=2
    )
    metrics = rollout_metrics([first, second])
    assert metrics == {
        "score/turn_1": 3 / 4,
        "accuracy/turn_1": 3 / 4,  # by the key: right, none; right, right
        "accuracy/turn_2": 1 / 2,  # wrong, right (which has no score)
        "score/turn_2": 0.0,  # the other message has no score: absent, not 0
        "length/turn_1": 3.0,  # 2, 4, 3, 3
        "length/turn_2": 7.5,
        "empty/agent_0": 0.0,
        "empty/agent_1": 0.0,
        "cut_off/turn_1": 1 / 4,
        "cut_off/turn_2": 0.0,
        "agreement/turn_1": 1.0,  # one valid answer agrees with itself; 5 and 5
        "agreement/turn_2": 0.0,  # 4 and 5
        "invalid/turn_1": 1 / 4,
        "invalid/turn_2": 0.0,
        "copy/turn_1": 0.0,
        "copy/turn_2": 1 / 2,  # agent 1 says what agent 0 said
        "wrong_to_right/turn_2": 1 / 2,  # agent 1
        "right_to_wrong/turn_2": 1 / 2,  # agent 0
        "lazy/agent_0": 0.0,
        "lazy/agent_1": 1.0,
        "reward": 3.5 / 5,  # neither the unplayed turn nor the message without a score
        "tokens": 27.0,
        "answers": 6.0,
        "cut_off": 1 / 6,
    }


def test_the_reward_of_debates_that_end_early_is_that_of_their_messages() -> None:
    """The environment's tables have a row per turn of the game, played or not."""
    game = BatchedDebate(
        DebateConfig(num_agents=2, num_turns=3, stop="consensus", gamma=1.0, verifier=tell), 2
    )
    game.reset([Question("q", "how much ?", "5", "number")] * 2)
    rollouts = []
    while prompts := game.prompts():
        game.step([box(5) if prompt.debate else box(prompt.seat) for prompt in prompts])
    tables = zip(game.transcripts, game.turn_rewards(), game.score_mask(), strict=True)
    for transcript, rewards, scored in tables:
        said = tuple(Completion((1,), (-1.0,), "", StopReason.EOS) for _ in transcript.messages)
        spoken = len(said)
        rollouts.append(
            Rollout(transcript, ((0,),) * spoken, said, ("all",) * spoken, rewards, scored)
        )
    assert [rollout.transcript.turn for rollout in rollouts] == [3, 1]
    assert rollouts[1].rewards.shape == (3, 2)
    # 3 messages are scored 0 and 3 not at all in the first debate, 2 messages 1 in the second.
    assert rollout_metrics(rollouts)["reward"] == pytest.approx(2 / 5)


def tell(_: Sequence[Question], texts: Sequence[str]) -> list[float | None]:
    """Score 5 with 1 and 1 with 0; fail on 0."""
    return [{box(5): 1.0, box(1): 0.0}.get(text) for text in texts]


def test_nothing_scored_has_no_reward() -> None:
    metrics = rollout_metrics([make_rollout([["a"]], [[None]])])
    assert not metrics.keys() & {"reward", "score/turn_1"}


def test_what_branches_share_counts_once() -> None:
    """A tree of two actions, the first continued by two: its message is told once, not twice."""
    start, ends = ["a a", "b"], [["c", "d"], ["e", "f"]]
    branches = [
        make_rollout(
            [start, end],
            [[1.0, 1.0], [0.0, 0.0]],
            lengths=[8, 8, 2, 2],
            cut=[0, 1],
            rewards=[[1.0, 1.0], [0.0, 0.0]],
        )
        for end in ends
    ]
    short = make_rollout([["g", "h"]], [[0.0, 0.0]], lengths=[2, 2], num_turns=2)
    metrics = rollout_metrics([*branches, short], [0, 1, 0])
    assert (metrics["score/turn_1"], metrics["length/turn_1"]) == (1 / 2, 5)
    assert (metrics["cut_off"], metrics["answers"], metrics["tokens"]) == (2 / 8, 8, 28)
    assert metrics["reward"] == 2 / 8
    assert (metrics["score/turn_2"], metrics["invalid/turn_1"]) == (0, 1)


def test_a_debate_of_one_turn_has_no_flips_and_no_lazy_agent() -> None:
    names = rollout_metrics([make_rollout([[box(5)]], [[1.0]])])
    assert not any(name.startswith(("lazy", "wrong_to", "right_to")) for name in names)


def test_mean_over_the_parts_that_have_it() -> None:
    assert mean_of([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0, "b": 2.0}
    assert mean_of([]) == {}


# --- Experience ---------------------------------------------------------------


def make_experience(
    logprobs: Sequence[Sequence[float]],
    *,
    turns: Sequence[int],
    policies: Sequence[str],
    rewards: Sequence[float] = (),
    shift: float = 0.0,
) -> Experience:
    """Rows of different lengths; the sampler saw `logprobs` + shift; garbage outside the mask."""
    width = max(map(len, logprobs), default=0)
    count = len(logprobs)
    cells = [x < len(row) for row in logprobs for x in range(width)]
    mask = torch.tensor(cells, dtype=torch.bool).reshape(count, width)
    values = torch.zeros(count, width)
    for i, row in enumerate(logprobs):
        values[i, : len(row)] = torch.tensor(row)
    seats = torch.tensor([int(name[-1]) for name in policies], dtype=torch.long)
    batch = TokenBatch(
        prompts=((0,),) * count,
        ids=torch.zeros(count, width, dtype=torch.long),
        mask=mask,
        sampled_logprobs=torch.where(mask, values + shift, 0.0),
        policies=tuple(policies),
        critics=tuple(policies),
        seats=seats,
        turns=torch.tensor(turns, dtype=torch.long),
        episodes=torch.arange(count),
        rewards=torch.tensor(list(rewards) or [0.0] * count),
    )
    zeros = torch.zeros(count, width)
    return Experience(batch, values, values.clone(), zeros, zeros, zeros)


def test_entropy_by_policy_and_turn_is_the_mean_surprise() -> None:
    experience = make_experience(
        [[-1.0, -2.0], [-3.0], [-0.5]],
        turns=[0, 0, 1],
        policies=["agent_0", "agent_0", "agent_1"],
    )
    assert entropies(experience.batch, experience.logprobs) == {
        "entropy/agent_0/turn_1": 2.0,  # (1 + 2 + 3) / 3 tokens
        "entropy/agent_1/turn_2": 0.5,
    }


def test_the_estimated_entropy_is_that_of_the_distribution() -> None:
    weights = torch.tensor([0.5, 0.25, 0.125, 0.125])
    drawn = torch.multinomial(
        weights, 20_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    experience = make_experience([weights.log()[drawn].tolist()], turns=[0], policies=["agent_0"])
    [estimate] = entropies(experience.batch, experience.logprobs).values()
    exact = 1.75 * math.log(2)  # 1/2 * 1 + 1/4 * 2 + 2 * 1/8 * 3 bits
    assert estimate == pytest.approx(exact, abs=4 * 0.57 / 20_000**0.5)  # 4 standard errors


def test_mismatch_is_measured_as_log_and_as_ratio() -> None:
    rows = [[-1.0, -2.0], [-3.0]]
    apart = make_experience(rows, turns=[0, 0], policies=["a0", "a0"], shift=-0.1)
    metrics = experience_metrics(apart)
    assert metrics["sampler_mismatch"] == pytest.approx(0.1, abs=1e-6)
    assert metrics["ratio_mismatch"] == pytest.approx(math.exp(0.1) - 1, abs=1e-6)
    same = experience_metrics(make_experience(rows, turns=[0, 0], policies=["a0", "a0"]))
    assert (same["sampler_mismatch"], same["ratio_mismatch"]) == (0, 0)


def test_zero_spread_counts_groups_that_were_paid_alike() -> None:
    experience = make_experience(
        [[-1.0]] * 5,
        turns=[0, 0, 0, 1, 1],
        policies=["a0", "a0", "a1", "a0", "a0"],
        rewards=[1.0, 1.0, 0.3, 0.0, 0.1],
    )
    assert zero_spread(experience.batch) == 2 / 3  # (1, 0): alike; (1, 1): alone; (2, 0): apart
    assert zero_spread(make_experience([], turns=[], policies=[]).batch) == 0.0


def test_values_beyond_the_bound_are_counted_among_real_tokens() -> None:
    values = torch.tensor([[0.1, 0.3, math.nan], [-0.5, 9.0, 9.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert share_beyond(values, torch.zeros(2, 3), mask, 0.2) == pytest.approx(2 / 3)
    assert share_beyond(values, torch.zeros(2, 3), torch.zeros_like(mask), 0.2) == 0.0


def test_without_a_scored_message_nothing_was_measured() -> None:
    assert experience_metrics(make_experience([], turns=[], policies=[])) == {}


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
    now |= {"unscored_messages": 5.0, "answers": 6.0, "ratio_mismatch": 1.0}
    raised = alarms(now, FULL, scheme)
    assert len(raised) == len(RULES)
    known = {f"--{name.replace('_', '-')}" for name, _ in leaves(CONFIGS[scheme]())}
    for alarm in raised:
        for flag in re.findall(r"--[\w.-]*\w", alarm.text):
            assert flag in known, (alarm, scheme)
            assert why_never(scheme, flag[2:].replace("-", "_")) is None


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
