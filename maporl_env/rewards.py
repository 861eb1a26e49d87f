"""Credit: from verifier scores to the reward of each message.

Pure functions on arrays of shape (turns played, agents), written (T, A). Nothing but the array
marks an early end: a debate that stopped after two turns has two rows. Results are always float64.
Penalties (short or repetitive messages, no answer) are in `penalties`; `credit.Credit` adds all
parts up.

Source: Park et al., "MAPoRL" (arXiv 2502.18439), Definition 1 and Tables 1 and 2.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Horizon = Literal["discounted", "last", "current"]
Share = Literal["team", "own"]
Majority = Literal["others", "all"]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

HORIZONS: tuple[str, ...] = ("discounted", "last", "current")
SHARES: tuple[str, ...] = ("team", "own")
MAJORITIES: tuple[str, ...] = ("others", "all")
DEFAULT_GAMMA = 0.3


def influence_rewards(scores: ArrayLike, gamma: float) -> Floats:
    """Return the influence-aware verification reward of every message (Definition 1).

    With the last turn played x and the mean taken over all agents, a included::

        R(t,a) = [V(t,a) + sum_{k=1..x-t} gamma^k mean_j V(t+k,j)] / sum_{k=0..x-t} gamma^k

    `gamma` discounts turns; at 0 only the own score counts (0^0 = 1). The last turn's reward is
    the own score, and constant scores are their own reward.

    Args:
        scores: (T, A) finite verifier scores of the turns that were played.
        gamma: turn discount in [0, 1].

    Returns:
        (T, A) float64.

    Raises:
        ValueError: `scores` is not a finite (T, A) array, or `gamma` is outside [0, 1].
    """
    return turn_rewards(scores, gamma=gamma)


def turn_rewards(
    scores: ArrayLike,
    *,
    horizon: Horizon = "discounted",
    share: Share = "team",
    gamma: float = DEFAULT_GAMMA,
    valid: ArrayLike | None = None,
    unscored: ArrayLike | None = None,
) -> Floats:
    """Return the reward of every message under one of six credit rules.

    | horizon | share="team" | share="own" |
    |---|---|---|
    | "discounted" | own score, later team means: Definition 1 | own score, own later scores |
    | "last" | team mean of the last turn played | own score of the last turn played |
    | "current" | team mean of the same turn | own score of the same turn |

    A score marked invalid (a verifier fault, not a wrong answer) is never read, so it may be NaN.
    Its own reward is 0. Team means run over the valid scores of a turn. A turn without a valid
    score (of the team, or of the agent where share="own") counts as not played: its discount
    leaves both sums, and "last" looks at the last turn that has one.

    Where agents are silent in a turn, or speak without being scored, their cells are invalid. A
    message that is `unscored` by the rules is rewarded by other scores alone: its own term leaves
    both sums of Definition 1, "last" takes the last score that is not before it, "current" the team
    mean of its turn. It has reward 0 where there are no such scores; see `rewarded`.

    Args:
        scores: (T, A) verifier scores of the turns that were played; finite where valid.
        horizon: the turns whose scores count.
        share: the agents whose scores of other turns count ("current": of the same turn).
        gamma: turn discount in [0, 1]; read by "discounted" only.
        valid: (T, A) booleans, True = the verifier gave this score. None means all.
        unscored: (T, A) booleans, True = a message without a score of its own, rewarded by others.
            None means none.

    Returns:
        (T, A) float64.

    Raises:
        ValueError: a wrong shape, a score that is not finite, `gamma` outside [0, 1], or an
            unknown option.
    """
    _check_choice("horizon", horizon, HORIZONS)
    _check_choice("share", share, SHARES)
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma!r}")
    own_TA, valid_TA = _masked_scores(scores, valid)
    counted_TA, known_TA = _team_means(own_TA, valid_TA) if share == "team" else (own_TA, valid_TA)
    if horizon == "discounted":
        rewards_TA = _discounted(own_TA, valid_TA, counted_TA, known_TA, gamma)
    elif horizon == "last":
        rewards_TA = _last(counted_TA, known_TA)
    else:
        rewards_TA = counted_TA
    paid_TA = valid_TA
    if unscored is not None:
        paid_TA = valid_TA | _unscored(unscored, valid_TA) & _reached(known_TA, horizon, gamma)
    return np.where(paid_TA, rewards_TA, 0.0)


def rewarded(
    valid: ArrayLike, unscored: ArrayLike, *, horizon: Horizon, share: Share, gamma: float
) -> Bools:
    """Return which messages `turn_rewards` rewards, (T, A) booleans; arguments as there.

    These are the messages with a score, and the unscored ones that another score is credited to.
    """
    valid_TA = _validity(valid, np.shape(valid))
    known_TA = (
        _team_means(valid_TA.astype(np.float64), valid_TA)[1] if share == "team" else valid_TA
    )
    return valid_TA | _unscored(unscored, valid_TA) & _reached(known_TA, horizon, gamma)


def _unscored(unscored: ArrayLike, valid_TA: Bools) -> Bools:
    mask_TA = _validity(unscored, valid_TA.shape)
    if (mask_TA & valid_TA).any():
        raise ValueError("a message cannot be both valid, which means scored, and unscored")
    return mask_TA


def _reached(known_TA: Bools, horizon: Horizon, gamma: float) -> Bools:
    """Return whether a message without an own score is credited with another one, (T, A)."""
    if horizon == "current":
        return known_TA
    not_before_TA = np.logical_or.accumulate(known_TA[::-1])[::-1]
    if horizon == "last":
        return not_before_TA
    after_TA = np.zeros_like(known_TA)
    after_TA[:-1] = not_before_TA[1:] & (gamma > 0)
    return after_TA


def shaping_bonus(
    correct: ArrayLike,
    alpha: tuple[float, float] = (0.0, 0.0),
    beta: tuple[float, float] = (0.0, 0.0),
    majority: Majority = "others",
    *,
    valid: ArrayLike | None = None,
) -> Floats:
    """Return the collaboration bonus of every message (Tables 1 and 2).

    A message gains or loses by what happened between two turns that were both played:

    - the own answer changed: `alpha` goes to the *later* message, added if it became right and
      deducted if it became wrong; alpha[1] if the earlier turn's majority was right, else alpha[0];
    - the majority changed: `beta` goes to the *earlier* message, added if the majority became right
      and deducted if it became wrong; beta[1] if that message was right, else beta[0].

    alpha[0] rewards critical reasoning, alpha[1] following a right majority; beta[0] rewards a
    wrong but useful message, beta[1] a right message that persuades. Majorities are strict: a tie
    is neither right nor wrong and gives no bonus, nor does a debate of one turn or, with "others",
    of one agent.

    Args:
        correct: (T, A) booleans, or numbers that are exactly 0 or 1.
        alpha: (wrong majority, right majority) weights for changing the own answer.
        beta: (own answer wrong, own answer right) weights for changing the majority.
        majority: "others" leaves the agent itself out of the count, "all" counts it.
        valid: (T, A) booleans, True = correctness is known. Unknown cells join no majority, and no
            bonus rests on them. None means all.

    Returns:
        (T, A) float64.

    Raises:
        ValueError: a wrong shape, an entry other than 0 or 1, weights that are not two finite
            numbers, or an unknown `majority`.
    """
    _check_choice("majority", majority, MAJORITIES)
    alpha_wrong, alpha_right = _weight_pair("alpha", alpha)
    beta_wrong, beta_right = _weight_pair("beta", beta)
    correct_TA, valid_TA = _masked_scores(correct, valid, name="correct")
    if not np.isin(correct_TA, (0.0, 1.0)).all():
        raise ValueError("correct must hold booleans, or numbers that are exactly 0 or 1")
    own_TA = np.where(valid_TA, 2.0 * correct_TA - 1.0, 0.0)  # right 1, wrong -1, unknown 0
    # Right minus wrong answers of the counted agents: (T, A), or (T, 1) with "all".
    counted_TA = own_TA.sum(axis=1, keepdims=True) - (own_TA if majority == "others" else 0.0)
    majority_TA = np.sign(counted_TA) * np.ones_like(own_TA)  # a tie is 0

    # _flips has T - 1 rows, one per step from turn t to t + 1: alpha to t + 1, beta to t.
    bonus_TA = np.zeros_like(own_TA)
    bonus_TA[1:] += _flips(own_TA) * _by_sign(majority_TA[:-1], alpha_wrong, alpha_right)
    bonus_TA[:-1] += _flips(majority_TA) * _by_sign(own_TA[:-1], beta_wrong, beta_right)
    return bonus_TA


def _discounted(
    own_TA: Floats, valid_TA: Bools, later_TA: Floats, known_TA: Bools, gamma: float
) -> Floats:
    """Own score plus the discounted later ones, over the sum of the discounts that were used."""
    rewards_TA = own_TA.copy()
    tail_A = np.zeros(own_TA.shape[1])  # sum over k >= 1 of gamma^k * later score
    discounts_A = np.zeros(own_TA.shape[1])  # sum over k >= 1 of gamma^k
    for t in range(len(own_TA) - 2, -1, -1):  # the last turn keeps its own score
        tail_A = gamma * (later_TA[t + 1] + tail_A)
        discounts_A = gamma * (known_TA[t + 1] + discounts_A)
        used_A = valid_TA[t] + discounts_A  # 0 without an own and a later score
        rewards_TA[t] = (own_TA[t] + tail_A) / np.where(used_A > 0.0, used_A, 1.0)
    return rewards_TA


def _last(counted_TA: Floats, known_TA: Bools) -> Floats:
    """Every turn holds, per agent, the score of the last turn that has one (0 where none has)."""
    last_A = np.zeros(counted_TA.shape[1])
    for counted_A, known_A in zip(counted_TA, known_TA, strict=True):
        last_A = np.where(known_A, counted_A, last_A)
    return np.broadcast_to(last_A, counted_TA.shape)


def _team_means(own_TA: Floats, valid_TA: Bools) -> tuple[Floats, Bools]:
    """Mean over the valid scores of each turn, and which turns have one; both spread to (T, A)."""
    width = own_TA.shape[1]
    count_T1 = valid_TA.sum(axis=1, keepdims=True)
    mean_T1 = own_TA.sum(axis=1, keepdims=True) / np.maximum(count_T1, 1)
    return np.repeat(mean_T1, width, axis=1), np.repeat(count_T1 > 0, width, axis=1)


def _flips(sign_TA: Floats) -> Floats:
    """(T-1, A): 1 where a sign turns from -1 to 1, -1 where from 1 to -1, else 0."""
    return np.where(sign_TA[1:] == -sign_TA[:-1], sign_TA[1:], 0.0)


def _by_sign(sign_TA: Floats, if_negative: float, if_positive: float) -> Floats:
    """Pick a weight by sign; 0 where the sign is 0."""
    return np.where(sign_TA > 0, if_positive, np.where(sign_TA < 0, if_negative, 0.0))


def _masked_scores(
    scores: ArrayLike, valid: ArrayLike | None, name: str = "scores"
) -> tuple[Floats, Bools]:
    """Check an array and its mask; return it as a float64 copy, 0 where invalid, and the mask."""
    given = np.asarray(scores)
    if given.ndim != 2 or given.shape[1] == 0 or given.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be a real array of shape (turns played, agents) with at least one agent,"
            f" got shape {given.shape} and dtype {given.dtype}"
        )
    valid_TA = _validity(valid, given.shape)
    values_TA = np.where(valid_TA, given.astype(np.float64), 0.0)
    if not np.isfinite(values_TA).all():
        raise ValueError(f"{name} must be finite; mark absent ones in `valid` (False = absent)")
    return values_TA, valid_TA


def _validity(valid: ArrayLike | None, shape: tuple[int, ...]) -> Bools:
    if valid is None:
        return np.ones(shape, dtype=np.bool_)
    mask = np.asarray(valid)
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise ValueError(
            f"valid must be booleans of shape {shape}, got {mask.dtype} of shape {mask.shape}"
        )
    return mask


def _weight_pair(name: str, weights: Any) -> tuple[float, float]:
    pair = tuple(float(weight) for weight in weights)
    if len(pair) != 2 or not all(map(math.isfinite, pair)):
        raise ValueError(f"{name} must be two finite numbers, {name}0 and {name}1, got {weights!r}")
    return pair


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(choices)}")
