"""A running watched debate: one thread lets agents speak, any number of people decide.

The first decision holds; a second decision about the same message is refused with a sentence,
and changes nothing. Every event is on the disk before anyone sees what follows from it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any

from maporl_agents.watch.debate import ACTIONS, Slot, WatchedDebate
from maporl_agents.watch.pairs import preference_pairs
from maporl_agents.watch.record import INTERVENTIONS, PREFERENCES, TRANSCRIPT, Record
from maporl_agents.watch.speakers import Speaker
from maporl_env.game import Game
from maporl_env.rendering.plain_text import harmless
from maporl_env.services.http_json import RemoteError
from maporl_env.types import Question

_LOGGER = logging.getLogger(__name__)

MAX_NAME = 60
"""Characters of the name of who decides."""
MAX_NOTE = 4_000
"""Characters of a note."""


class Refused(Exception):
    """A decision that was not taken; the message is one sentence for the person."""


class Session:
    """One debate on its way. `start` it, let people `decide`, and `close` it.

    Args:
        game: that is played.
        question: of the debate.
        speakers: per agent; None for a person.
        names: per agent, who speaks for it.
        record: takes all that happens; its events are gone through first.

    Attributes:
        watched: the debate.
        record: the files.
        names: as given.
        version: a number that grows with every change.
        runs: whether messages pass without a decision.
        fault: why the verifier failed; "" for no fault.
        notice: what could not be saved beside the events; "" for nothing.

    Raises:
        ValueError: an event of the record does not follow from those before it.
    """

    def __init__(
        self,
        game: Game,
        question: Question,
        speakers: Sequence[Speaker | None],
        names: Sequence[str],
        record: Record,
    ) -> None:
        people = [index for index, speaker in enumerate(speakers) if speaker is None]
        self.game, self.speakers, self.names, self.record = game, speakers, tuple(names), record
        self.watched = WatchedDebate(game, question, people)
        self.version = 1
        self.runs = False
        self.fault = self.notice = ""
        self.changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)
        for number, event in enumerate(record.events, start=1):
            try:
                self.watched.apply(event)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{record.folder}: event {number} does not follow from those before it "
                    f"({error}); was the folder edited, or the run's game changed?"
                ) from error
        self._write()

    @property
    def over(self) -> bool:
        """Whether the debate has ended."""
        return self.watched.debate.over

    @property
    def secrets(self) -> tuple[str, ...]:
        """The private texts of the question, and its reference."""
        question = self.watched.debate.question
        return tuple(text for text in (*question.private, question.hidden) if text.strip())

    def safe(self, error: BaseException) -> str:
        """Return an error in one line, without what an agent alone may know."""
        quoted = any(secret.strip() in str(error) for secret in self.secrets)
        hidden = f"{type(error).__name__}, whose words quote what an agent alone is told"
        return hidden if quoted else sentence(error)

    def start(self) -> None:
        """Let the agents speak."""
        self._thread.start()

    def close(self) -> None:
        """Take no more decisions; a message that is being written is written again on resuming."""
        with self.changed:
            self._closed = True
            self._tell()

    def join(self, seconds: float) -> bool:
        """Wait at most `seconds` for the agent that is speaking; return whether none speaks now."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    # -- what people do ----------------------------------------------------------------------

    def decide(
        self, number: int, tries: int, action: str, *, text: str = "", note: str = "", who: str
    ) -> None:
        """Decide about a message.

        Args:
            number: of the message.
            tries: how many tries of it the person saw.
            action: a key of `ACTIONS`.
            text: in place of what the agent wrote, for "edit" and "say".
            note: for "send_back"; without one the agent writes anew and reads nothing of it.
            who: decides.

        Raises:
            Refused: it cannot be done, or somebody else was first; nothing has changed.
        """
        who = " ".join(who.split())[:MAX_NAME] or "somebody"
        with self.changed:
            if self._closed:
                raise Refused("The server is stopping, and your decision was not taken.")
            slot = self._open_slot(number, tries)
            self._require(slot, action, text, note)
            event = {
                "event": "decided",
                "n": number,
                "try": max(0, len(slot.tries) - (action != "say")),
                "action": action,
                "text": text if action in ("edit", "say") else "",
                "note": note.strip() if action == "send_back" else "",
                "who": who,
                "when": _now(),
            }
            try:
                self._add(event)
            except OSError as error:
                raise Refused(
                    f"Your decision could not be saved ({error.strerror or error}), so it was not "
                    "taken."
                ) from error

    def _open_slot(self, number: int, tries: int) -> Slot:
        if not 0 <= number < len(self.watched.slots):
            raise Refused("There is no such message in this debate.")
        slot = self.watched.slots[number]
        last = slot.decision
        if slot.status == "decided" or len(slot.tries) != tries or slot.status == "writing":
            if last is None:
                raise Refused(f"{slot.agent} is still writing this message.")
            raise Refused(
                f"{last.who or 'Nobody'} was first: this message of {slot.agent} was "
                f"{ACTIONS[last.action]} at {last.when[11:19]} UTC, and your decision was not "
                "taken."
            )
        return slot

    def _require(self, slot: Slot, action: str, text: str, note: str) -> None:
        allowed = {"open": ("approve", "edit", "veto", "send_back"), "person": ("say",)}
        if action not in allowed.get(slot.status, ("say",)):
            raise Refused(
                f"A message that is {slot.status} cannot be {ACTIONS.get(action, action)}"
            )
        if action == "send_back" and len(note) > MAX_NOTE:
            raise Refused(f"A note has at most {MAX_NOTE:,} characters, and yours {len(note):,}.")
        if action == "edit" and not text.strip():
            raise Refused("An empty text is a veto: strike the message out, or write something.")
        if action == "edit" and text in as_shown(slot.tries[-1].own.text):
            raise Refused("The text is as the agent wrote it: approve it, or change it.")
        most = self.watched.debate.max_chars
        if action in ("edit", "say") and len(text) > most:
            raise Refused(f"A message has at most {most:,} characters, and yours {len(text):,}.")

    def again(self) -> None:
        """Ask agents, or the verifier, that failed once more."""
        with self.changed:
            self.fault = ""
            for slot in self.watched.now:
                if slot.status == "fault":
                    slot.status, slot.fault = "writing", ""
            self._tell()

    def let_run(self, runs: bool) -> None:
        """Let messages pass without a decision, or wait for one again."""
        with self.changed:
            self.runs = runs
            self._tell()

    # -- what agents do ----------------------------------------------------------------------

    def _work(self) -> None:
        """Do one piece of work after the other, until the session is closed."""
        while True:
            with self.changed:
                while not self._closed and (job := self._job()) is None:
                    self.changed.wait()
                if self._closed:
                    return
            assert job is not None
            job()

    def _job(self) -> Callable[[], None] | None:
        """Return what there is to do; None for nothing."""
        if self.watched.debate.awaits_scores:
            return None if self.fault else self._score
        for slot in self.watched.now:
            if slot.status == "writing":
                return partial(self._speak, slot)
        if self.runs:
            for slot in self.watched.now:
                if slot.status == "open":
                    return partial(self._pass, slot)
        return None

    def _speak(self, slot: Slot) -> None:
        """Have one message written, outside the lock."""
        speaker = self.speakers[slot.agent_index]
        assert speaker is not None
        try:
            own = speaker(slot.prompt(), slot.read_own(), len(slot.tries))
            self.watched.debate.check(slot.agent, own.text)
            with self.changed:
                if self._closed or slot.status != "writing":
                    return
                ids = None if own.ids is None else list(own.ids)
                said: dict[str, Any] = {"text": own.text, "cut": own.cut, "ids": ids}
                if own.results:
                    said |= {"results": [list(one) for one in own.results], "shown": own.shown}
                self._add({"event": "proposed", "n": slot.number, **said})
        except (Exception, SystemExit) as error:  # whatever a model, server or function raises
            with self.changed:
                if slot.status == "writing":
                    slot.status, slot.fault = "fault", self.safe(error)
                    _LOGGER.warning("%s could not speak: %s", slot.agent, slot.fault)
                self._tell()

    def _pass(self, slot: Slot) -> None:
        with self.changed:
            if slot.status != "open" or not self.runs or self._closed:
                return
            decided = {"try": len(slot.tries) - 1, "action": "pass", "text": "", "note": ""}
            self._saved(
                {"event": "decided", "n": slot.number, **decided, "who": "", "when": _now()}
            )

    def _score(self) -> None:
        """Have the complete turn scored."""
        debate = self.watched.debate
        due = debate.due()
        try:
            scores, shown = (
                self.game.score([debate.question] * len(due), due) if due else ([], None)
            )
        except (Exception, SystemExit) as error:
            with self.changed:
                self.fault = self.safe(error)
                _LOGGER.warning("the verifier failed: %s", self.fault)
                self._tell()
            return
        with self.changed:
            if not self._closed:
                self._saved({"event": "scored", "scores": scores, "shown": shown})

    def _saved(self, event: Mapping[str, Any]) -> None:
        """Add an event of nobody's; where it cannot be saved the debate stands still."""
        try:
            self._add(event)
        except OSError as error:
            self.runs, self.fault = False, sentence(error)
            self._tell()

    # -- keeping -----------------------------------------------------------------------------

    def _add(self, event: Mapping[str, Any]) -> None:
        """Save an event, then let it happen; OSError where it cannot be saved."""
        self.record.append(event)
        self.watched.apply(event)
        self._write()
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        self.changed.notify_all()

    def _write(self) -> None:
        """Write the files that are made of the events; a failure is a notice, nothing is lost."""
        transcript = self.watched.debate.transcript
        slots = self.watched.slots
        try:
            self.record.write(INTERVENTIONS, interventions(slots))
            pairs = preference_pairs(slots, transcript.question.id, self.names)
            self.record.write(PREFERENCES, pairs)
            said = [transcript.to_dict()] if transcript.messages else []
            self.record.write(TRANSCRIPT, said)
            self.notice = ""
        except OSError as error:
            self.notice = f"Some files could not be brought up to date: {sentence(error)}"


def interventions(slots: Sequence[Slot]) -> list[dict[str, Any]]:
    """Return each decision of a person, in their order: who, when, before and after."""
    rows: list[dict[str, Any]] = []
    for slot in slots:
        for number, one in enumerate(slot.tries):
            if not one.who:
                continue
            typed = one.action == "say"
            before = None if typed else one.own.text
            kept = before if one.action == "approve" else None
            rows.append(
                {
                    "who": one.who,
                    "when": one.when,
                    "action": one.action,
                    "agent": slot.agent,
                    "turn": slot.turn,
                    "try": number,
                    "before": before,
                    "after": kept if one.after is None else one.after,
                    "note": one.note,
                }
            )
    return sorted(rows, key=lambda row: str(row["when"]))


def as_shown(text: str) -> tuple[str, ...]:
    """Return a text as it is, and as a page shows it to be edited."""
    plain = text.replace("\r\n", "\n")
    return text, plain, harmless(text), harmless(plain)


def sentence(error: BaseException) -> str:
    """Return an error in one line; of one that is no known kind, with its type."""
    said = " ".join(str(error).split())[:500]
    if isinstance(error, (ValueError, OSError, RemoteError)) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
