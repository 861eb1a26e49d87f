"""Alarms: rules that read the metrics of a step, say what goes wrong and which flag helps.

Rules on the metrics of `step_metrics`, with the thresholds below; docs/reference/metrics.md gives
the reason for each. Pure: a resumed run raises the alarms of the uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Metrics = Mapping[str, float]

ENTROPY_LEFT = 0.1
"""Share of its first entropy below which a policy has collapsed."""
UNSURE = 0.05
"""First entropy, in nats per token, below which a policy was sure from the start."""
LENGTH_LEFT = 0.25
"""Share of their first length below which messages have collapsed."""
COPIED, GAINED = 0.9, 0.05
"""Copy rate from which on a turn adds nothing, unless it scores this much more than the first."""
NEAR_1 = 0.9
"""Score of the last turn from which on all goes well."""
FALLEN = 0.25
"""Loss of score since the best step, from which on a run that is still above its start falls."""
TELLS = 0.9
"""Share of messages without an answer from which on a turn before the last tells facts only."""
EMPTY = 0.5
"""Share of an agent's messages that are empty from which on its model is not understood."""
LAZY = 0.8
"""Lazy-agent score from which on an agent contributes nothing."""
KL = 0.5
"""Nats per token away from the reference, from which on scores were seen to fall."""
CLIPPED = 0.3
"""Share of ratios outside the band from which on steps are too long."""
CUT_OFF = 0.9
"""Share of messages that hit the token limit from which on there is hardly a signal."""
INVALID = 0.5
"""Share of messages without an answer, where it also grew by half of what was left."""
UNSCORED = 0.1
"""Share of messages that the verifier failed on."""
RATING_LOST = 150.0
"""Elo points below its best version from which on a team in self-play loses what it could."""
MISMATCH = 0.05
"""Mean distance of the ratio between trainer and sampler from 1; bfloat16 stays below."""


SLOWER = {
    "maporl": "Raise --ppo.kl-coef or lower --ppo.learning-rate.",
    "magrpo": "Raise --magrpo.kl-coef or lower --magrpo.learning-rate.",
    "iac": "Raise --iac.kl-coef or lower --iac.learning-rate.",
    "grpo": "Raise --grpo.kl-coef or lower --grpo.learning-rate.",
    "malt": "Lower --malt.imitation.learning-rate or --malt.preference.learning-rate.",
}
"""By scheme, advice that keeps a policy nearer to the reference policy."""
REMEDIES = {
    **{f"entropy collapse, {scheme}": words for scheme, words in SLOWER.items()},
    "entropy collapse": "Lower the learning rate.",
    **{f"length collapse, {scheme}": words for scheme, words in SLOWER.items()},
    "length collapse, maporl": "Raise --ppo.kl-coef, or penalise short messages "
    "(--game.penalties.too-short).",
    "length collapse": "Lower the learning rate.",
    **dict.fromkeys(
        ("copying, maporl", "copying, grpo"),
        "Reward own work: raise the first of --game.alpha, or lower --game.gamma.",
    ),
    "copying, malt": "Read transcripts/train.jsonl.",
    "copying, sweet_rl": "Ask whether later turns are needed (--game.num-turns).",
    "copying": "Ask whether later turns are needed (--game.num-turns), and what agents have to "
    "read (--game.history).",
    **dict.fromkeys(
        ("lazy agent, maporl", "lazy agent, grpo"),
        "Reward its own score more: --game.share own, or a lower --game.gamma.",
    ),
    "lazy agent, sweet_rl": "Read transcripts/train.jsonl.",
    "lazy agent": "Ask whether it is needed (--game.num-agents).",
    "empty messages": "Read transcripts/train.jsonl; look at its model and chat template "
    "(--team.model) and at what ends a message (--sampling.stop).",
    **{f"KL runaway, {scheme}": words for scheme, words in SLOWER.items()},
    "KL runaway, maporl": "Raise --ppo.kl-coef, lower --ppo.learning-rate, or go back to an "
    "earlier checkpoint.",
    "KL runaway": "Lower the learning rate.",
    "long steps, maporl": "Lower --ppo.learning-rate or --ppo.epochs.",
    "long steps, magrpo": "Lower --magrpo.learning-rate or --magrpo.epochs.",
    "long steps, grpo": "Lower --grpo.learning-rate, --grpo.epochs or --grpo.minibatches.",
    "long steps": "Lower the learning rate.",
    "cut off, maporl": "Raise --sampling.max-new-tokens, or penalise unfinished messages "
    "(--game.penalties.unfinished).",
    "cut off": "Raise --sampling.max-new-tokens.",
    "cut off, games": "Raise --sampling.max-new-tokens, unless a move is as short as that.",
    "length collapse, games": "Lower the learning rate, unless a move is as short as that.",
    "no signal, games": "Play more games in a step (--questions-per-step).",
    "no signal, grpo": "Ask easier or harder questions, or debate each more often "
    "(--grpo.group-size).",
    "no signal": "Ask easier or harder questions, or more of them (--questions-per-step).",
    "invalid answers, maporl": "Look at transcripts/train.jsonl; penalise a missing answer "
    "(--game.penalties.no-answer, and --game.penalties.unfinished for those cut off).",
    "invalid answers": "Look at transcripts/train.jsonl; lower the learning rate.",
    **dict.fromkeys(
        ("self-play collapse, maporl", "self-play collapse, grpo"),
        "Play older versions more often (--self-play.opponents uniform or rating, a larger "
        "--self-play.pool), or lower the learning rate.",
    ),
    "self-play collapse": "Lower the learning rate.",
    "verifier faults": "Check that the verifier runs and answers in time.",
    "sampler fault": "The step is right, but slower; write a report that names the model.",
    "sampler mismatch": "Use a wider dtype (--team.dtype float32).",
}
"""Advice by alarm, by alarm and scheme, or for games that are no debates."""
GAMES = ("return/", "self_play/")
"""Beginnings of the names of metrics that only such games have."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One early warning.

    Attributes:
        name: what is going wrong, e.g. "entropy collapse".
        where: name of the metric that raised it.
        text: the figures and what to do, one sentence each.
    """

    name: str
    where: str
    text: str

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.name}: {self.text}"


Rule = Callable[[Metrics, Metrics], Iterator[Alarm]]
"""Yields alarms from the metrics of a step and those of the first step, the worst first."""


def alarms(
    metrics: Metrics, first: Metrics, scheme: str = "maporl", best: float | None = None
) -> list[Alarm]:
    """Return the early warnings of a step, each at most once, for its worst agent or turn.

    While the score of the last turn rises or is near 1 only the `FAULTS` of verifier and sampler
    are told: what agents do then, such as saying little or all the same, is right.

    Args:
        metrics: of the step. A rule whose metrics are missing or not finite is silent.
        first: of the first step of the run, to which collapse is relative.
        scheme: name of the scheme that trains; the advice names its flags.
        best: highest `last_score` of the run so far; None where it is not known.
    """
    now, then = _finite(metrics), _finite(first)
    rules = FAULTS if _does_well(now, then, best) else RULES
    kind = f"{scheme} in games" if any(name.startswith(GAMES) for name in metrics) else scheme
    found = (next(rule(now, then), None) for rule in rules)
    return [
        Alarm(alarm.name, alarm.where, f"{alarm.text} {remedy(alarm.name, kind)}")
        for alarm in found
        if alarm is not None
    ]


def remedy(name: str, scheme: str) -> str:
    """Return advice on an alarm, in sentences that name flags of the scheme.

    Of a "SCHEME in games" it names none that act in debates alone.
    """
    scheme, _, games = scheme.partition(" in ")
    keys = [f"{name}, {key}" for key in (games, scheme) if key]
    return next((REMEDIES[key] for key in keys if key in REMEDIES), REMEDIES[name])


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Leave out what is not finite (None where it was read back from a log)."""
    return {n: v for n, v in metrics.items() if v is not None and math.isfinite(v)}


def entropy_collapse(metrics: Metrics, first: Metrics) -> Iterator[Alarm]:
    """A policy's entropy is a small part of what it was."""
    for name in _fallen("entropy/", metrics, first, ENTROPY_LEFT, at_first=UNSURE):
        policy, turn = name.split("/")[1:]
        yield Alarm(
            "entropy collapse",
            name,
            f"{policy} writes with {metrics[name]:.3f} nats per token in {_words(turn)}, at first "
            f"{first[name]:.3f}; it may say the same whatever is asked.",
        )


def length_collapse(metrics: Metrics, first: Metrics) -> Iterator[Alarm]:
    """Messages have become a small part of what they were."""
    for name in _fallen("length/", metrics, first, LENGTH_LEFT):
        words = f"messages of {_words(name)} have {metrics[name]:.1f} tokens, at first"
        yield Alarm("length collapse", name, f"{words} {first[name]:.1f}.")


def copying(metrics: Metrics, _first: Metrics) -> Iterator[Alarm]:
    """Later turns repeat the others and gain nothing by it."""
    start = metrics.get("score/turn_1", 0.0)
    for name, copied in _named("copy/", metrics):
        score = metrics.get(name.replace("copy/", "score/"), 0.0)
        if copied >= COPIED and score < min(start + GAINED, NEAR_1):
            yield Alarm(
                "copying",
                name,
                f"{copied:.0%} of what is said in {_words(name)} stood in the others' messages "
                f"before, and its score is {score:.2f}, in turn 1 {start:.2f}.",
            )


def highest(name: str, prefix: str, limit: float, words: str) -> Rule:
    """Return a rule on shares by agent: the highest, if it is at least `limit`.

    Args:
        name: of the alarm.
        prefix: of the metrics' names, e.g. "lazy/".
        limit: the least share that is an alarm.
        words: a sentence with `{agent}` and `{share:.0%}`.
    """

    def rule(metrics: Metrics, _first: Metrics) -> Iterator[Alarm]:
        shares = {metric: -share for metric, share in _named(prefix, metrics)}
        for metric in _worst_first(shares, lambda share: -share >= limit):
            agent = metric.split("/")[1]
            yield Alarm(name, metric, words.format(agent=agent, share=metrics[metric]))

    return rule


def above(name: str, metric: str, limit: float, words: str, *, or_at: bool = False) -> Rule:
    """Return a rule on one metric: an alarm if it is above `limit`, or at it with `or_at`.

    `words` is a sentence that may hold `{value}`.
    """

    def rule(metrics: Metrics, _first: Metrics) -> Iterator[Alarm]:
        value = metrics.get(metric, 0.0)
        if value > limit or (or_at and value == limit):
            yield Alarm(name, metric, words.format(value=value))

    return rule


lazy_agent = highest(
    "lazy agent",
    "lazy/",
    LAZY,
    "{agent} repeats the others and no other agent takes up its first answers ({share:.0%}).",
)
empty_messages = highest(
    "empty messages", "empty/", EMPTY, "{agent} writes nothing in {share:.0%} of its messages."
)
kl_runaway = above("KL runaway", "kl", KL, "{value:.2f} nats per token from the reference.")
long_steps = above(
    "long steps", "clip_frac", CLIPPED, "{value:.0%} of the ratios lie outside the band."
)
cut_off = above(
    "cut off",
    "cut_off",
    CUT_OFF,
    "{value:.0%} of the messages hit the token limit, so what they end with is lost.",
    or_at=True,
)
sampler_drift = above(
    "sampler mismatch",
    "ratio_mismatch",
    MISMATCH,
    "trainer and sampler differ by {value:.1%} in the probability of a token.",
)
sampler_fault = above(
    "sampler fault",
    "sampler_fault",
    0.0,
    "sampler and trainer differ by {value:.2g} in the log-probability or value of a token in "
    "float32, so all messages were scored again.",
)


no_signal = above(
    "no signal",
    "zero_spread",
    1.0,
    "all messages that are compared got the same reward, so this step taught nothing.",
    or_at=True,
)


def invalid_answers(metrics: Metrics, first: Metrics) -> Iterator[Alarm]:
    """More messages than at first have no readable answer, in a turn that gives answers."""
    last = _last(metrics, "invalid/")
    answered = metrics.get(last, 1.0) < INVALID
    for name, share in _named("invalid/", metrics):
        begun = first.get(name, 0.0)
        if name != last and answered and min(share, begun) >= TELLS:
            continue
        if share > begun and share >= max(INVALID, (1 + begun) / 2):
            words = f"{share:.0%} of the messages of {_words(name)} have no readable answer"
            yield Alarm("invalid answers", name, f"{words}, at first {begun:.0%}.")


def self_play_collapse(metrics: Metrics, _first: Metrics) -> Iterator[Alarm]:
    """A team in self-play is rated far below a version of it."""
    rating = metrics.get("self_play/rating", 0.0)
    best = metrics.get("self_play/best_rating", rating)
    if rating < best - RATING_LOST:
        yield Alarm(
            "self-play collapse",
            "self_play/rating",
            f"the team is rated {best - rating:.0f} Elo points below its best version: it loses "
            "against what it once beat.",
        )


def verifier_faults(metrics: Metrics, _first: Metrics) -> Iterator[Alarm]:
    """The verifier fails too often."""
    missing = metrics.get("unscored_messages", 0.0)
    if missing > UNSCORED * metrics.get("answers", 0.0):
        yield Alarm(
            "verifier faults",
            "unscored_messages",
            f"{missing:.0f} of {metrics.get('answers', 0.0):.0f} messages got no score and were "
            "left out.",
        )


def _fallen(
    prefix: str, metrics: Metrics, first: Metrics, left: float, *, at_first: float = 0.0
) -> list[str]:
    """Return the metrics below a share `left` of their first value, the worst first.

    Metrics that were not above 0, or below `at_first`, in the first step do not count.
    """
    shares = {
        name: value / first[name]
        for name, value in _named(prefix, metrics)
        if first.get(name, 0.0) > 0 and first[name] >= at_first
    }
    return _worst_first(shares, lambda share: share < left)


def last_score(metrics: Mapping[str, float | None]) -> float | None:
    """Return the score of the last turn; None if there is none, or it is not finite."""
    finite = _finite(metrics)
    return finite.get(_last(finite, "score/"))


def _does_well(metrics: Metrics, first: Metrics, best: float | None) -> bool:
    """Whether the last turn's score is near 1, or above what it was at first and not falling."""
    name = _last(metrics, "score/")
    score = metrics.get(name, 0.0)
    falls = best is not None and score < best - FALLEN
    return score >= NEAR_1 or (name in first and score > first[name] + GAINED and not falls)


def _last(metrics: Metrics, prefix: str) -> str:
    """Return the metric of the last turn among those that begin with `prefix`; "" if none does."""
    return max((name for name, _ in _named(prefix, metrics)), key=_number, default="")


def _number(name: str) -> int:
    """Return 2 for a name such as "score/turn_2"."""
    return int(name.rpartition("_")[2])


def _worst_first(values: Mapping[str, float], is_bad: Callable[[float], bool]) -> list[str]:
    """Return the names whose values are bad, the lowest first."""
    bad = [name for name, value in values.items() if is_bad(value)]
    return sorted(bad, key=lambda name: values[name])


RULES: tuple[Rule, ...] = (
    entropy_collapse,
    length_collapse,
    copying,
    lazy_agent,
    empty_messages,
    kl_runaway,
    long_steps,
    cut_off,
    no_signal,
    invalid_answers,
    self_play_collapse,
    verifier_faults,
    sampler_drift,
    sampler_fault,
)


FAULTS = (verifier_faults, sampler_drift, sampler_fault)
"""Rules that hold however well the agents do."""


def _named(prefix: str, metrics: Metrics) -> list[tuple[str, float]]:
    """Return the metrics whose names begin with `prefix`."""
    return [(name, value) for name, value in metrics.items() if name.startswith(prefix)]


def _words(name: str) -> str:
    """Return "turn 2" for a name such as "score/turn_2"."""
    return name.rsplit("/", 1)[-1].replace("_", " ")
