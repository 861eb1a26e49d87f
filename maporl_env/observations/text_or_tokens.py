"""The forms in which messages enter and leave a debate: as text, as rows of token ids, or id by id.

A medium stands between a `Debate` and whoever plays it. It says what an action and an observation
look like, and who acts next; the rules stay with the debate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from maporl_env.debate import Debate
from maporl_env.observations.spaces import DebateSpace, DebateText
from maporl_env.observations.tokens import PADDING, Ids, TokenCodec
from maporl_env.types import AgentID, Transcript, WithResults

STATE_BYTES = 8_192


class TextMedium:
    """One action is one message, a string; an observation is a string.

    Args:
        debate: what is played.
        agents: those who act through this medium, in order; others speak to the debate itself.
    """

    def __init__(self, debate: Debate, agents: Sequence[AgentID]) -> None:
        self.debate = debate
        self.agents = tuple(agents)
        self.state_space = Box(0, 255, (STATE_BYTES,), np.float32)

    def observation_space(self) -> Any:
        """Return a new space of observations."""
        return DebateSpace()

    def action_space(self) -> Any:
        """Return a new space of actions."""
        debate = self.debate
        return DebateSpace(None if debate.on_long == "truncate" else debate.max_chars)

    def clear(self) -> None:
        """Drop unfinished messages."""

    @property
    def actors(self) -> tuple[AgentID, ...]:
        """Agents still to act in this round, in order; none while scores are due or at the end."""
        return self.debate.speakers

    def check(self, agent: AgentID, action: Any) -> None:
        """Raise ValueError for an action that :meth:`take` could not take; change nothing."""
        self.debate.check(agent, action)

    def take(self, agent: AgentID, action: Any) -> None:
        """Let an agent act; the action has passed :meth:`check`."""
        self.debate.accept(agent, self.text(action))

    def text(self, action: Any) -> str:
        """Return the message that an action is."""
        return action if isinstance(action, WithResults) else str(action)

    def observe(self, agent: AgentID) -> Any:
        """Return the observation of an agent; ValueError for an unknown agent."""
        return DebateText(self.debate.observation(agent))

    def info(self, agent: AgentID) -> dict[str, Any]:
        """Return the entries that this medium adds to an agent's info, as a new dict."""
        return {}

    def unfinished(self) -> list[tuple[AgentID, str]]:
        """Return the unfinished messages as (agent, text) pairs."""
        return []

    def state(self, text: str) -> NDArray[np.float32]:
        """Return a text as the values of its UTF-8 bytes, (8192,) float32.

        Zeros fill up a shorter text; of a longer one the last bytes are kept.
        """
        encoded = text.encode()[-STATE_BYTES:]
        state = np.zeros(STATE_BYTES, np.float32)
        state[: len(encoded)] = np.frombuffer(encoded, np.uint8)
        return state


class TokenMedium(TextMedium):
    """One action is one message, a row of token ids; an observation is a row of token ids.

    An observation longer than its array loses its beginning. With the token budget that
    `DebateConfig` sets the protocol has dropped the oldest turns before, and this never happens.
    """

    def __init__(self, debate: Debate, agents: Sequence[AgentID], codec: TokenCodec) -> None:
        super().__init__(debate, agents)
        self.codec = codec
        self.state_space = Box(0, codec.end, (codec.observation_tokens,), np.float32)
        self._read: dict[AgentID, tuple[Transcript, int, Ids]] = {}

    def observation_space(self) -> Box:
        """Return a new space of observations."""
        return self.codec.observation_space()

    def action_space(self) -> Box | Discrete:
        """Return a new space of actions."""
        return self.codec.message_space()

    def check(self, agent: AgentID, action: Any) -> None:
        """Raise ValueError unless the action is a row of numbers; which ones does not matter."""
        self.debate.check(agent, "")
        try:
            self.codec.message(action)
        except ValueError as error:
            raise ValueError(f"the message of {agent} {error}") from None

    def text(self, action: Any) -> str:
        """Return the text of the ids up to the first that is no token."""
        return self.codec.text(self.codec.message(action))

    def observe(self, agent: AgentID) -> NDArray[Any]:
        """Return the ids of an agent's view, (observation_tokens,), padded with 0."""
        return self.codec.padded(self._prompt(agent))

    def _prompt(self, agent: AgentID) -> Ids:
        """The ids of an observation, kept as long as nothing new is published."""
        transcript, drafts, ids = self._read.get(agent, (None, 0, None))
        now = len(self.debate.drafts.get(agent, ()))
        if ids is None or transcript is not self.debate.transcript or drafts != now:
            ids = self.codec.ids(self.debate.observation(agent))
            self._read[agent] = self.debate.transcript, now, ids
        return ids

    def state(self, text: str) -> NDArray[np.float32]:
        """Return the ids of a text, (observation_tokens,) float32; of a longer one the last."""
        return self.codec.padded(self.codec.ids(text)).astype(np.float32)


class WritingMedium(TokenMedium):
    """One action is one token id; a message ends with the end id or at `message_tokens`.

    All writers of a turn write at the same time, one id each per round. Who has finished waits
    with padding until everybody has; then the messages are published. An agent's own unfinished
    message stands at the end of its observation, and in no other. An illegal id is read as
    the end of the message, or while waiting as padding.
    """

    def __init__(self, debate: Debate, agents: Sequence[AgentID], codec: TokenCodec) -> None:
        super().__init__(debate, agents, codec)
        self._written: dict[AgentID, list[int]] = {}
        self._finished: set[AgentID] = set()
        self._acted: set[AgentID] = set()

    def action_space(self) -> Discrete:
        """Return a new space of actions."""
        return self.codec.token_space()

    def clear(self) -> None:
        """Forget the unfinished messages."""
        self._written, self._finished, self._acted = {}, set(), set()

    @property
    def _writers(self) -> tuple[AgentID, ...]:
        """The agents that write in this turn, or next where one speaks after the other."""
        speakers = self.debate.speakers
        if not self.debate.protocol.simultaneous:
            speakers = speakers[:1]
        return tuple(agent for agent in speakers if agent in self.agents)

    @property
    def actors(self) -> tuple[AgentID, ...]:
        """The agents that still give an id in this round, in order."""
        return tuple(agent for agent in self._writers if agent not in self._acted)

    def check(self, agent: AgentID, action: Any) -> None:
        """Raise ValueError unless the action is one integer; which one does not matter."""
        self.debate.check(agent, "")
        if agent not in self.actors:
            raise ValueError(f"{agent} may not write now; next: {', '.join(self.actors)}")
        try:
            self.codec.token(action)
        except ValueError as error:
            raise ValueError(f"the action of {agent} {error}") from None

    def take(self, agent: AgentID, action: Any) -> None:
        """Write an id; publish the messages when all agents have finished."""
        self._acted.add(agent)
        if agent not in self._finished:
            self._write(agent, self.codec.token(action))
        if not self.actors:
            self._acted.clear()
            if self._finished.issuperset(self._writers):
                self._publish()

    def _write(self, agent: AgentID, id_: Ids) -> None:
        written = self._written.setdefault(agent, [])
        ends = not self.codec.legal(id_).all()
        if not ends:
            written.append(int(id_[0]))
        if ends or len(written) == self.codec.message_tokens:
            self._finished.add(agent)

    def _publish(self) -> None:
        said = [(agent, self._text(agent)) for agent in self._writers]
        self.clear()
        for agent, text in said:
            self.debate.accept(agent, text)

    def _text(self, agent: AgentID) -> str:
        return self.codec.text(np.array(self._written.get(agent, ()), np.int64))

    def unfinished(self) -> list[tuple[AgentID, str]]:
        """Return the unfinished messages as (agent, text) pairs."""
        return [(agent, self._text(agent)) for agent in self.agents if agent in self._written]

    def observe(self, agent: AgentID) -> NDArray[Any]:
        """Return the ids of an agent's view and of its unfinished message, padded with 0."""
        own = self._written.get(agent, ())
        return self.codec.padded(np.concatenate([self._prompt(agent), np.array(own, np.int64)]))

    def info(self, agent: AgentID) -> dict[str, Any]:
        """Return which ids are legal: `action_mask`, (num_ids,) int8."""
        writes = agent in self._writers and agent not in self._finished
        mask = np.full(self.codec.num_ids, writes, np.int8)
        mask[PADDING] = not writes
        return {"action_mask": mask}


def medium(
    debate: Debate, agents: Sequence[AgentID], codec: TokenCodec | None, action: str
) -> TextMedium:
    """Return the medium that options ask for; `codec` None for text."""
    if codec is None:
        return TextMedium(debate, agents)
    return (WritingMedium if action == "token" else TokenMedium)(debate, agents, codec)
