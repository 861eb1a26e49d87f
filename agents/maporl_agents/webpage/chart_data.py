"""Data of the charts in the HTML report: all numbers are computed here, scripts only draw.

The picture of a run that training leaves, curve.png, is drawn by `measure.learning_curve`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from maporl_agents.config import CONFIGS
from maporl_agents.measure.alarms import alarms
from maporl_agents.measure.debate_stats import TurnStats
from maporl_agents.studies.results import Arm, Decoding, Measurement, Stage, Study
from maporl_agents.studies.seed_intervals import Estimate, difference, estimate
from maporl_agents.webpage.sources import DECODINGS, STAGES

Json = dict[str, Any]
MAX_POINTS = 300
"""Points drawn of a training curve; of longer ones every second, third, ... step."""


def _measured(arm: Arm, stage: Stage, decoding: Decoding) -> list[Measurement]:
    found = (seed.find(stage, decoding) for seed in arm.seeds)
    return [measurement for measurement in found if measurement is not None]


def _groups(study: Study) -> Iterator[tuple[Arm, Stage, Decoding, list[Measurement]]]:
    """Yield every arm, stage and decoding that was measured, with one measurement per seed."""
    for arm in study.arms:
        for stage in STAGES:
            for decoding in DECODINGS:
                if measured := _measured(arm, stage, decoding):
                    yield arm, stage, decoding, measured


def _json(value: Estimate) -> Json:
    return {"mean": value.mean, "half": value.half_width, "values": list(value.values)}


# --- Accuracy by turn ---------------------------------------------------------------


def curves(study: Study) -> list[Json]:
    """Return accuracy by turn of every arm, stage and decoding.

    Each point is a mean over seeds with its 95 % interval; with one seed, the interval over
    questions where the metric is the vote.
    """
    return [
        {
            "arm": arm.name,
            "label": arm.label,
            "role": arm.role,
            "stage": stage,
            "decoding": decoding,
            "points": [_point(study, [m.turns[t] for m in group]) for t in range(_horizon(group))],
        }
        for arm, stage, decoding, group in _groups(study)
    ]


def _horizon(measured: Sequence[Measurement]) -> int:
    return min(len(measurement.turns) for measurement in measured)


def _point(study: Study, turns: Sequence[TurnStats]) -> Json:
    point = _json(estimate([getattr(turn, study.metric) for turn in turns]))
    if len(turns) == 1 and study.metric == "vote":
        point["half"] = turns[0].vote_interval
    point["agents"] = [
        sum(accuracies) / len(turns)
        for accuracies in zip(*(turn.accuracy for turn in turns), strict=True)
    ]
    point["agreement"] = sum(turn.agreement for turn in turns) / len(turns)
    point["invalid"] = sum(turn.invalid for turn in turns) / len(turns)
    return point


# --- Flips --------------------------------------------------------------------------


def flips(study: Study) -> list[Json]:
    """Return the changes of messages between right and wrong, for each step from turn to turn.

    "matrices" holds, per step, [[right to right, right to wrong], [wrong to right, wrong to wrong]]
    as shares of all messages, means over seeds.
    """
    return [
        {
            "arm": arm.name,
            "label": arm.label,
            "stage": stage,
            "decoding": decoding,
            "matrices": [
                _mean_matrix([flip_matrix(m.turns[t], m.turns[t + 1]) for m in group])
                for t in range(_horizon(group) - 1)
            ],
        }
        for arm, stage, decoding, group in _groups(study)
        if _horizon(group) > 1
    ]


def flip_matrix(now: TurnStats, later: TurnStats) -> list[list[float]]:
    """Return [[right to right, right to wrong], [wrong to right, wrong to wrong]]; sums to 1."""
    right = now.mean_accuracy
    lost, won = later.right_to_wrong, later.wrong_to_right
    return [[right - lost, lost], [won, 1 - right - won]]


def _mean_matrix(matrices: Sequence[list[list[float]]]) -> list[list[float]]:
    return [
        [sum(matrix[i][j] for matrix in matrices) / len(matrices) for j in (0, 1)] for i in (0, 1)
    ]


# --- The table of arms --------------------------------------------------------------


def arms(study: Study) -> list[Json]:
    """Return the rows of the comparison, sampled: scores, costs, the methods' lead."""
    methods = [arm for arm in study.arms if arm.role == "method"]
    return [_arm(study, arm, _method_of(arm, methods)) for arm in study.arms]


def _method_of(arm: Arm, methods: Sequence[Arm]) -> Arm | None:
    """Return the method that a control or baseline is compared with."""
    if arm.role == "method":
        return None
    return next((m for m in methods if arm.of in (None, m.name)), None)


def _arm(study: Study, arm: Arm, method: Arm | None) -> Json:
    def score(stage: Stage, turn: int, decoding: Decoding = "sampled") -> Json | None:
        scores = arm.scores(study.metric, stage, decoding, turn)
        return _json(estimate(list(scores.values()))) if scores else None

    after = _measured(arm, "after", "sampled")
    asked = sum(m.num_questions for m in after) or 1
    return {
        "name": arm.name,
        "label": arm.label,
        "role": arm.role,
        "description": arm.description,
        "seeds": [seed.seed for seed in arm.seeds],
        "before": score("before", -1),
        "first": score("after", 0),
        "last": score("after", -1),
        "greedy": score("after", -1, "greedy"),
        "lead": _lead(study, arm, method),
        "answers": sum(m.num_answers for m in after) / asked if after else None,
        "tokens": sum(m.num_tokens for m in after) / asked if after else None,
        "train_answers": sum(s.train_answers for s in arm.seeds) / max(1, len(arm.seeds)),
        "train_tokens": sum(s.train_tokens for s in arm.seeds) / max(1, len(arm.seeds)),
        "settings": arm.settings,
    }


def _lead(study: Study, arm: Arm, method: Arm | None) -> Json | None:
    """Return the lead of the method's last turn over this arm's, paired by seed."""
    if method is None:
        return None
    theirs = method.scores(study.metric, "after", "sampled")
    own = arm.scores(study.metric, "after", "sampled")
    return _json(difference(theirs, own)) if theirs.keys() & own.keys() else None


# --- Training -----------------------------------------------------------------------

PANELS: tuple[tuple[str, str], ...] = (
    ("score/", "Mean verifier score, training questions"),
    ("validation", "Vote of the last turn, validation questions"),
    ("reward", "Mean reward of a message"),
    ("kl", "KL to the reference policy, nats per token"),
    ("entropy", "Entropy, nats per token"),
    ("length/", "Tokens per message"),
    ("copy/", "Share copied from the others"),
    ("lazy/", "Lazy-agent score"),
    ("agreement/", "Share of debates that agree"),
    ("invalid/", "Share of messages without an answer"),
    ("clip_frac", "Share of clipped ratios"),
    ("explained_variance", "Explained variance of the critic"),
    ("cut_off", "Share of messages cut at the length limit"),
)
"""Metrics that are drawn, in this order, where they were logged; "score/" is every score."""

Row = Mapping[str, Any]


def training(study: Study) -> list[Json]:
    """Return the training curves of every arm that was trained: mean and range over seeds."""
    scheme = next((name for name in CONFIGS if name in study.settings), "")  # of a run
    trained = [arm for arm in study.arms if any(seed.curve for seed in arm.seeds)]
    return [_training(arm, scheme) for arm in trained]


def _training(arm: Arm, scheme: str) -> Json:
    runs = [seed.curve for seed in arm.seeds if seed.curve]
    names = dict.fromkeys(name for rows in runs for row in rows for name in row)
    panels = [{"title": title, "lines": _lines(runs, names, panel)} for panel, title in PANELS]
    return {
        "arm": arm.name,
        "label": arm.label,
        "seeds": len(runs),
        "panels": [panel for panel in panels if panel["lines"]],
        "warnings": [text for rows in runs for text in warnings_of(rows, scheme)],
    }


def _lines(runs: Sequence[Sequence[Row]], names: Iterable[str], panel: str) -> list[Json]:
    """Return a line per metric of a panel that has values, "turn_10" after "turn_9"."""
    if panel.endswith("/"):
        shown = sorted((n for n in names if n.startswith(panel)), key=lambda n: (len(n), n))
    else:
        shown = [panel]
    lines = [_line(runs, name, name.removeprefix(panel).replace("_", " ")) for name in shown]
    return [line for line in lines if line["points"]]


def _line(runs: Sequence[Sequence[Row]], name: str, label: str) -> Json:
    """Return {"label", "points": [[step, mean, lowest, highest], ...]} over the seeds."""
    by_step: dict[int, list[float]] = {}
    for rows in runs:
        for row in rows:
            if (value := row.get(name)) is not None:
                by_step.setdefault(row["step"], []).append(value)
    steps = sorted(by_step)[:: max(1, -(-len(by_step) // MAX_POINTS))]
    return {"label": label, "points": [_summary(step, by_step[step]) for step in steps]}


def _summary(step: int, values: Sequence[float]) -> list[float]:
    return [step, sum(values) / len(values), min(values), max(values)]


def warnings_of(rows: Sequence[Row], scheme: str = "") -> list[str]:
    """Return the early warnings of a run (see `alarms`), each once, with its first step."""
    raised: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        for alarm in alarms(row, rows[0], scheme):
            raised.setdefault(alarm.name, []).append((row["step"], str(alarm)))
        if row.get("nonfinite"):
            text = "not finite: a metric had no value that is a number."
            raised.setdefault("nonfinite", []).append((row["step"], text))
    return [
        f"From step {found[0][0]}, in {len(found)} of {len(rows)} steps: {found[-1][1]}"
        for found in raised.values()
    ]
