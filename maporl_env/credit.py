"""Credit assignment: the reward of each message of a finished debate, from its transcript alone.

    reward(t, a) = influence-aware reward of the verifier scores   (Definition 1, `rewards`)
                 + shaping bonus of the answers                    (Tables 1 and 2, `rewards`)
                 - penalties of that message alone                 (length and format, `penalties`)

Arrays are (T, A) float64; turns that were not played stay 0, and so does the place of an agent that
was silent in a turn or is not paid for its message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from maporl_env import rewards
from maporl_env.answers import KINDS, extract_answer, gold
from maporl_env.penalties import Penalties
from maporl_env.rewards import Bools, Floats, Horizon, Majority, Share
from maporl_env.types import AgentID, Message, Question, Transcript

RIGHT_SCORE = 0.5

OwnRewards = Mapping[tuple[int, AgentID], float]
"""Rewards that a protocol gives itself, by turn and agent."""


@dataclass(frozen=True, slots=True)
class Credit:
    """The rule that turns scores, answers and form into rewards; see the module docstring.

    Attributes:
        gamma: turn discount in [0, 1].
        horizon: which later turns count, see `rewards.turn_rewards`.
        share: whose later scores count, see `rewards.turn_rewards`.
        alpha: (alpha0, alpha1), see `rewards.shaping_bonus`.
        beta: (beta0, beta1), see `rewards.shaping_bonus`.
        majority: whose majority counts for alpha and beta, "others" or "all".
        penalties: costs of badly formed messages.
    """

    gamma: float = 0.3
    horizon: Horizon = "discounted"
    share: Share = "team"
    alpha: tuple[float, float] = (0.0, 0.0)
    beta: tuple[float, float] = (0.0, 0.0)
    majority: Majority = "others"
    penalties: Penalties = field(default_factory=Penalties)

    def __post_init__(self) -> None:
        # The pure functions check the settings: call them now, not at the end of the first debate.
        rewards.turn_rewards([[0.0]], horizon=self.horizon, share=self.share, gamma=self.gamma)
        rewards.shaping_bonus([[0.0]], self.alpha, self.beta, self.majority)

    def table(
        self, transcript: Transcript, num_turns: int, own: OwnRewards | None = None
    ) -> Floats:
        """Return the reward of every message, (num_turns, A). Unplayed turns are 0.

        `own` rewards, see `PartialTurns.own_rewards`, take the place of those made of scores and
        answers; penalties come off them too.

        A message whose score is missing (a verifier fault) gets no influence-aware reward; for the
        others see `rewards.turn_rewards`.
        """
        table_TA = np.zeros((num_turns, len(transcript.agents)))  # unplayed turns stay 0
        turns = transcript.turn
        if not turns:
            return table_TA
        given = scores(transcript)  # (turns played, A)
        partial = transcript.ends is not None
        table_TA[:turns] = rewards.turn_rewards(
            given,
            horizon=self.horizon,
            share=self.share,
            gamma=self.gamma,
            valid=~np.isnan(given),
            unscored=unscored(transcript) if partial else None,
        )
        if any(self.alpha) or any(self.beta):
            right, judged = correctness(transcript)
            table_TA[:turns] += rewards.shaping_bonus(
                right, self.alpha, self.beta, self.majority, valid=judged
            )
        for (turn, agent), reward in (own or {}).items():
            table_TA[turn, transcript.agents.index(agent)] = reward
        if self.penalties:
            table_TA[:turns] -= self.costs(transcript)
        if partial:
            table_TA[:turns] *= _by_seat(transcript, lambda m: m.paid)
        return table_TA

    def rewarded(
        self, transcript: Transcript, num_turns: int, own: OwnRewards | None = None
    ) -> Bools:
        """Return which messages have a reward, (num_turns, A); see `rewards.rewarded`.

        A message on which the verifier failed has none, nor has one that is not paid.
        """
        mask_TA = np.zeros((num_turns, len(transcript.agents)), dtype=bool)
        turns = transcript.turn
        if not turns:
            return mask_TA
        valid = ~np.isnan(scores(transcript))
        if transcript.ends is None:
            mask_TA[:turns] = valid
            return mask_TA
        rule = {"horizon": self.horizon, "share": self.share, "gamma": self.gamma}
        found = rewards.rewarded(valid, unscored(transcript), **rule)  # type: ignore[arg-type]
        for turn, agent in own or {}:
            found[turn, transcript.agents.index(agent)] = True
        mask_TA[:turns] = found & (_by_seat(transcript, lambda m: m.paid) > 0)
        return mask_TA

    def costs(self, transcript: Transcript) -> Floats:
        """Return the penalties of each message of the complete turns, (turns played, A)."""
        kind = transcript.question.kind
        return _by_seat(transcript, lambda message: self.penalties.of(message, kind))


def scores(transcript: Transcript) -> Floats:
    """Return the verifier scores of the complete turns, (turns played, A); NaN where missing."""
    return _by_seat(transcript, lambda m: np.nan if m.score is None else m.score, silent=np.nan)


def unscored(transcript: Transcript) -> Bools:
    """Return which messages are not scored by the rules of the protocol, (turns played, A)."""
    return _by_seat(transcript, lambda m: not m.scored) > 0


def correctness(transcript: Transcript) -> tuple[Bools, Bools]:
    """Return which messages are right, and of which that is known; both (turns played, A).

    `alpha` and `beta` use this. A message is right if its own answer is the gold answer, whatever
    the verifier says. Where no key can tell (`AnswerKind.keyed` is False: a program is right in
    many wordings), it is right if its score is at least 0.5, and unknown if it has none. A message
    that is not scored by the rules is no answer: it is not known to be right or wrong.
    """
    kind = transcript.question.kind
    if not KINDS[kind].keyed:
        given = scores(transcript)
        return given >= RIGHT_SCORE, ~np.isnan(given)
    key = gold(transcript.question.answer, kind)
    right = _by_seat(transcript, lambda m: extract_answer(m.answer, kind) == key).astype(bool)
    if transcript.ends is None:
        return right, np.ones_like(right)
    known = _by_seat(transcript, lambda m: m.scored) > 0
    return right & known, known


def is_right(message: Message, question: Question) -> bool | None:
    """Return whether one message is right, as `correctness` tells; None if that is unknown."""
    if KINDS[question.kind].keyed:
        key = gold(question.answer, question.kind)
        return extract_answer(message.answer, question.kind) == key
    return None if message.score is None else message.score >= RIGHT_SCORE


def _by_seat(
    transcript: Transcript, value: Callable[[Message], float], silent: float = 0.0
) -> Floats:
    """Apply a function to every message of the complete turns; columns in order of the agents.

    Agents that did not speak in a turn have `silent` there.
    """
    columns = {agent: column for column, agent in enumerate(transcript.agents)}
    table = np.full((transcript.turn, len(columns)), silent)
    for message in transcript.until(transcript.turn).messages:
        table[message.turn, columns[message.agent]] = value(message)
    return table
