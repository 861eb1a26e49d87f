"""Preference pairs from what a person decided, in the conversational format of TRL.

    {"prompt": [{"role": "user", "content": ...}], "chosen": [{"role": "assistant", ...}],
     "rejected": [{"role": "assistant", ...}], "agent": 0, "turn": 0, ...}

Chosen are texts that a person approved, or wrote in place of another; rejected are those that were
struck out, sent back, or edited away. A pair is a chosen and a rejected text after one prompt. The
prompt is what the agent read before its first try: notes are not in it. Messages that passed
without a decision, those of people who play, and those whose author called tools (whose results are
no words of its own) are in no pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from maporl_agents.watch.debate import Own, Slot
from maporl_env.prompts import chat
from maporl_env.types import View

REJECTED = ("veto", "send_back", "edit")


class Judged(NamedTuple):
    """A text after a view, and whether a person chose it."""

    slot: Slot
    own: Own
    chosen: bool
    action: str
    who: str


def judged(slots: Sequence[Slot]) -> Iterator[Judged]:
    """Yield every text that a person decided on, in order; an edit gives two."""
    for slot in slots:
        for one in slot.tries:
            if one.own.results:
                continue
            if one.action in REJECTED:
                yield Judged(slot, one.own, False, one.action, one.who)
            if one.action == "approve":
                yield Judged(slot, one.own, True, one.action, one.who)
            if one.action == "edit" and one.after:
                yield Judged(slot, Own(one.after), True, one.action, one.who)


def preference_pairs(
    slots: Sequence[Slot], question_id: str, speakers: Sequence[str]
) -> list[dict[str, Any]]:
    """Return every pair of a chosen and a rejected text after the same view by the same speaker.

    Args:
        slots: of a debate.
        question_id: that it is about.
        speakers: per agent, a name of who speaks for it.
    """
    groups: dict[tuple[View, str], list[Judged]] = {}
    for one in judged(slots):
        groups.setdefault((one.slot.view, speakers[one.slot.agent_index]), []).append(one)
    pairs = []
    for (view, speaker), found in groups.items():
        seen: set[tuple[str, str]] = set()
        for good in found:
            for bad in found:
                texts = good.own.text, bad.own.text
                if good.chosen and not bad.chosen and texts[0] != texts[1] and texts not in seen:
                    seen.add(texts)
                    pairs.append(_pair(view, good, bad, question_id, speaker))
    return pairs


def _pair(view: View, good: Judged, bad: Judged, question_id: str, speaker: str) -> dict[str, Any]:
    return {
        "prompt": chat(view),
        "chosen": [{"role": "assistant", "content": good.own.text}],
        "rejected": [{"role": "assistant", "content": bad.own.text}],
        "agent": good.slot.agent_index,
        "turn": good.slot.turn,
        "question": question_id,
        "speaker": speaker,
        "chosen_by": good.action,
        "rejected_by": bad.action,
        "chosen_cut": good.own.cut,
        "rejected_cut": bad.own.cut,
        "who": good.who,
    }
