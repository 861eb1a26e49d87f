"""A debate whose messages wait for a person: what was proposed, what became of it, what follows.

All of it is a function of the events so far, so that a debate which was cut goes on where it was:

    proposed   n, text, cut, ids            an agent wrote a try of message n
    decided    n, action, text, note, ...   what became of it; see `ACTIONS`
    scored     scores, shown                of the turn that is complete

Messages of agents that speak at once are published together, when all of them are decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from maporl_env.batched import Prompt
from maporl_env.debate import Debate
from maporl_env.game import Game
from maporl_env.prompts import fence, render
from maporl_env.types import (
    AgentID,
    Insertions,
    Question,
    Touch,
    View,
    WithResults,
    inserted,
)

Event = Mapping[str, Any]
Status = Literal["writing", "open", "person", "fault", "decided"]

ACTIONS: dict[str, str] = {
    "approve": "approved",
    "edit": "edited",
    "veto": "struck out",
    "send_back": "sent back",
    "say": "written",
    "pass": "let pass",
}
"""What may be decided about a message, and the word for it afterwards. "say" is the message of a
person who plays, or one in place of an agent that failed; "pass" is nobody's decision, while the
debate runs by itself."""

NOTE = (
    "\nThis message does not go out. A reader wrote about it:\n{fence}\n{note}\n{fence}\n"
    "Write your message again:\n"
)
"""What the author of a message that was sent back reads, and nobody else."""


class Own(NamedTuple):
    """An own message in a view: its text, and the ids it was sampled as; None if it was not.

    `results` are those of the tools that its author called, `shown` whether others read them.
    """

    text: str
    cut: bool = False
    ids: tuple[int, ...] | None = None
    results: Insertions = ()
    shown: bool = True

    @property
    def whole(self) -> str:
        """The text with the results of tools."""
        return inserted(self.text, self.results)

    def action(self, person: Touch) -> str:
        """Return the message as an action, with its mark."""
        return WithResults(self.text, self.results, shown=self.shown, person=person)


@dataclass
class Try:
    """A message that an agent proposed.

    Attributes:
        own: its text and ids.
        action: what was decided about it, a key of `ACTIONS`; "" for nothing yet.
        note: that it was sent back with.
        who: decided it.
        when: likewise, ISO 8601.
        after: the text that went out in its place; None for its own.
    """

    own: Own
    action: str = ""
    note: str = ""
    who: str = ""
    when: str = ""
    after: str | None = None


@dataclass
class Slot:
    """One message of a debate on its way: the view before it, its tries, what became of it.

    Attributes:
        number: of the message, in the order in which they were asked for.
        agent: who is to write it.
        agent_index: its index.
        turn: from 0.
        view: what the agent reads before it.
        own: the agent's own messages in the view.
        status: "writing" (a try is to come), "open" (the last try waits for a decision), "person"
            (a person is to write it), "fault" (its author failed), "decided".
        tries: that were proposed.
        fault: why its author failed.
        said: the message, once it is decided.
        person: what a person did to it.
    """

    number: int
    agent: AgentID
    agent_index: int
    turn: int
    view: View
    own: tuple[Own, ...]
    status: Status
    tries: list[Try] = field(default_factory=list)
    fault: str = ""
    said: Own | None = None
    person: Touch = ""

    @property
    def decision(self) -> Try | None:
        """The last try about which something was decided."""
        return next((one for one in reversed(self.tries) if one.action), None)

    def prompt(self) -> Prompt:
        """Return what its author reads now: the view, and the tries that came back with a note."""
        view = list(self.view)
        for one in self.returned():
            words = NOTE.format(note=one.note, fence=fence(one.note))
            view += [("own", one.own.whole), ("user", words)]
        read = tuple(view)
        return Prompt(0, self.agent, self.agent_index, self.turn, read, render(read))

    def read_own(self) -> tuple[Own, ...]:
        """Return the own messages in what its author reads now."""
        return (*self.own, *(one.own for one in self.returned()))

    def returned(self) -> list[Try]:
        """Return the tries that were sent back with a note; without one the agent begins anew."""
        return [one for one in self.tries if one.action == "send_back" and one.note]


class WatchedDebate:
    """A debate, and the messages that wait to become part of it.

    Args:
        game: that is played.
        question: of the debate.
        people: indices of agents that are people.

    Attributes:
        debate: what is published.
        slots: all messages that were asked for, in order.
        now: those that are written or decided now, in the order of their publication.
    """

    def __init__(self, game: Game, question: Question, people: Sequence[int] = ()) -> None:
        self.people = frozenset(people)
        self.debate: Debate = game.debate()
        self.debate.reset(question)
        self.slots: list[Slot] = []
        self.now: list[Slot] = []
        self._own: dict[int, list[Own]] = {}
        self._drafts: dict[int, list[Own]] = {}
        self._ask()

    def _ask(self) -> None:
        """Make a slot for each agent that may speak now."""
        self.now = []
        for agent in self.debate.speakers:
            index = self.debate.seats[agent]
            own = (*self._own.get(index, ()), *self._drafts.get(index, ()))
            status: Status = "person" if index in self.people else "writing"
            view = self.debate.view(agent)
            slot = Slot(len(self.slots), agent, index, self.debate.played, view, own, status)
            self.slots.append(slot)
            self.now.append(slot)

    def apply(self, event: Event) -> None:
        """Change the state by one event.

        Raises:
            ValueError: it cannot follow the events before it.
        """
        kind = event.get("event")
        if kind == "proposed":
            self._propose(self._slot(event, "writing", "fault"), event)
        elif kind == "decided":
            self._decide(self._slot(event, "open", "person", "fault"), event)
        elif kind == "scored":
            self.debate.settle(event["scores"], event["shown"])
            self._ask()
        else:
            raise ValueError(f"there is no event {kind!r}")

    def _slot(self, event: Event, *statuses: Status) -> Slot:
        slot = next((one for one in self.now if one.number == event.get("n")), None)
        if slot is None or slot.status not in statuses:
            raise ValueError(f"message {event.get('n')!r} is not {' or '.join(statuses)}")
        return slot

    def _propose(self, slot: Slot, event: Event) -> None:
        ids = event["ids"]
        results = tuple((int(place), str(text)) for place, text in event.get("results", ()))
        carried = None if ids is None else tuple(ids)
        own = Own(event["text"], event["cut"], carried, results, event.get("shown", True))
        slot.tries.append(Try(own))
        slot.status, slot.fault = "open", ""

    def _decide(self, slot: Slot, event: Event) -> None:
        action = event["action"]
        if (slot.status == "open") is (action == "say") or action not in ACTIONS:
            raise ValueError(f"a message that is {slot.status} cannot be {action!r}")
        if action == "say":
            slot.tries.append(Try(Own("")))
        last = slot.tries[-1]
        last.action, last.who, last.when = action, event["who"], event["when"]
        if action == "send_back":
            last.note, slot.status = event["note"], "writing"
            return
        slot.said, slot.person = _outcome(slot, action, event["text"])
        last.after = None if action in ("approve", "pass") else slot.said.text
        slot.status, slot.fault = "decided", ""
        if all(one.status == "decided" for one in self.now):
            self._publish()

    def _publish(self) -> None:
        """Post the messages of this round, and ask for those of the next."""
        for slot in self.now:
            assert slot.said is not None
            said, drafts = slot.said, self._drafts.pop(slot.agent_index, [])
            taken = self.debate.accept(slot.agent, said.action(slot.person), cut=said.cut)
            if taken:
                self._own.setdefault(slot.agent_index, []).append(said)
            else:  # the rules of the game have its author try again
                self._drafts[slot.agent_index] = [*drafts, said]
        self._ask()


def _outcome(slot: Slot, action: str, text: str) -> tuple[Own, Touch]:
    """Return the message that a decision makes, and its mark."""
    if action == "edit":
        return Own(text), "edited"
    if action == "veto":
        return Own(""), "vetoed"
    if action == "say":
        return Own(text), "wrote"
    returned = any(one.action == "send_back" for one in slot.tries)
    return slot.tries[-1].own, "sent back" if returned else ""
