"""The page of a watched debate, made anew for each visit: HTML and forms, of use without scripts.

All text of agents and people is escaped twice: what does not show itself (controls, bidirectional
overrides) by `harmless`, and what HTML would read by `html.escape`.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from maporl_agents.watch.debate import ACTIONS, Slot, Try
from maporl_agents.watch.session import Session
from maporl_env.rendering.plain_text import harmless
from maporl_env.types import Message

KEYS = "Keys: A approve, E edit, V veto, S send back; Tab and Enter work everywhere."


@dataclass(frozen=True)
class Visit:
    """Who looks at the page, and what the last decision came to.

    Attributes:
        who: the visitor's name, "" if it is not known.
        refused: why a decision was not taken; "" for none.
        typed: what was typed with it, which must not be lost.
    """

    who: str = ""
    refused: str = ""
    typed: tuple[str, ...] = ()


def page(session: Session, visit: Visit, *, show_private: bool = False) -> str:
    """Return the whole page; call it with the session's lock held.

    Args:
        session: the debate.
        visit: who looks at it.
        show_private: also show what agents alone are told: private texts, the reference, and the
            observations, in which they stand.
    """
    body = "".join(_parts(session, visit, show_private))
    refresh = (
        "" if _waiting(session) or session.over
        else '<noscript><meta http-equiv="refresh" content="3"></noscript>'
    )  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{refresh}<title>{_text(_status(session))} · maporl watch</title>"
        '<link rel="stylesheet" href="watch.css"><script src="watch.js" defer></script></head>'
        f'<body data-version="{session.version}"><a class="skip" href="#now">To what waits</a>'
        f'<main id="main">{body}</main></body></html>'
    )


def _parts(session: Session, visit: Visit, show_private: bool) -> Iterator[str]:
    """Yield the parts of the page from top to bottom."""
    question = session.watched.debate.question
    yield "<header><p class=kicker>maporl watch</p>"
    yield f'<h1>Question {_text(question.id)}</h1><p class="text" dir="auto">'
    yield f"{_text(question.prompt)}</p>{_players(session)}</header>"
    if show_private:
        yield _private(session)
    yield '<p id="news" role="status" hidden></p>'
    if visit.refused:
        yield f'<div class="refused" role="alert"><p>{_text(visit.refused)}</p>'
        for typed in visit.typed:
            yield (
                "<label>What you had written, to copy:"
                f'<textarea readonly rows="4">\n{html.escape(harmless(typed))}</textarea></label>'
            )
        yield "</div>"
    yield f'<p id="status" role="status">{_text(_status(session))}</p>'
    yield _pace(session, visit)
    yield "<ol>"
    turn, waiting = -1, next((slot.number for slot in _waiting(session)), None)
    finals = {(slot.turn, slot.agent): slot.number for slot in session.watched.slots}
    for slot in session.watched.slots:
        if slot.turn > turn:
            turn = slot.turn
            yield f'<li class="turn"><h2>Turn {turn + 1}</h2></li>'
        anchor = ' id="now"' if slot.number == waiting else ""
        draft = finals[slot.turn, slot.agent] != slot.number
        yield f'<li{anchor} tabindex="-1">{_slot(session, slot, visit, show_private, draft)}</li>'
    yield "</ol>"
    yield _end(session)


def _players(session: Session) -> str:
    seats = zip(session.watched.debate.agents, session.names, strict=True)
    rows = "".join(f"<div><dt>{_text(a)}</dt><dd>{_text(name)}</dd></div>" for a, name in seats)
    return f'<dl class="players">{rows}</dl>'


def _private(session: Session) -> str:
    debate = session.watched.debate
    told = zip(debate.agents, debate.question.private, strict=False)
    rows = [(f"Only {agent} is told", text) for agent, text in told if text]
    rows += [("The hidden reference", debate.question.hidden)] if debate.question.hidden else []
    parts = "".join(f'<dt>{_text(a)}</dt><dd class="text">{_text(b)}</dd>' for a, b in rows)
    return f'<dl class="private">{parts}</dl>' if rows else ""


def _waiting(session: Session) -> list[Slot]:
    """Return the messages that wait for a person."""
    return [slot for slot in session.watched.now if slot.status in ("open", "person", "fault")]


def _status(session: Session) -> str:
    """Return the state of the debate in a sentence."""
    if session.fault:
        return f"The debate stands still: {session.fault}"
    if session.over:
        return "The debate is over."
    if waiting := _waiting(session):
        who = ", ".join(slot.agent for slot in waiting)
        return f"{len(waiting)} {'messages wait' if len(waiting) > 1 else 'message waits'}: {who}."
    writing = [slot.agent for slot in session.watched.now if slot.status == "writing"]
    return f"{', '.join(writing)} writing." if writing else "The turn is being scored."


def _pace(session: Session, visit: Visit) -> str:
    """Return the form that lets the debate run by itself, and the files' place."""
    if session.over:
        return ""
    action, words = ("pause", "Wait for me again") if session.runs else ("run", "Let it run")
    more = '<button name="action" value="again">Try again</button>' if session.fault else ""
    notice = f'<p class="refused">{_text(session.notice)}</p>' if session.notice else ""
    told = "Messages pass without a decision." if session.runs else KEYS
    return (
        f'<form method="post" action="act" class="pace">{_hidden("who", visit.who)}{more}'
        f'<button name="action" value="{action}">{words}</button> '
        f'<span class="hint">{told}</span></form>{notice}'
    )


def _slot(session: Session, slot: Slot, visit: Visit, show_private: bool, draft: bool) -> str:
    """Return one message: its text, its history, and what can be decided about it."""
    parts = [f"<article class={slot.status}><header><b>{_text(slot.agent)}</b> "]
    parts += [f"<span>{_text(_said_of(session, slot, draft))}</span></header>"]
    if slot.status == "decided":
        assert slot.said is not None
        parts += [_quote(slot.said.whole)] if slot.said.whole else ['<p class="hint">(nothing)</p>']
    elif slot.status == "open":
        parts += [_quote(slot.tries[-1].own.whole)]
    elif slot.status == "fault":
        parts += [f'<p class="refused">{_text(slot.fault)}</p>']
    parts += [_history(slot)]
    seen = show_private or not session.secrets
    if slot.status == "person" or (seen and slot.status != "decided"):
        opened = " open" if slot.status == "person" else ""
        read = _quote(slot.prompt().text)
        parts += [f"<details{opened}><summary>What {_text(slot.agent)} reads</summary>{read}"]
        parts += ["</details>"]
    if slot.status in ("open", "person", "fault"):
        parts += [_form(slot, visit)]
    return "".join(parts) + "</article>"


def _said_of(session: Session, slot: Slot, draft: bool) -> str:
    """Return the state of a message in words."""
    if slot.status == "decided":
        last = slot.decision
        assert last is not None
        words = [f"{ACTIONS[last.action]} by {last.who}" if last.who else ""]
        words += ["a draft, which the game has its author try again" if draft else ""]
        message = None if draft else _message(session, slot)
        words += [
            "goes out when all of this turn are decided" if slot in session.watched.now else ""
        ]
        words += [f"score {message.score:.2f}"] if message and message.score is not None else []
        words += ["cut at its limit"] if slot.said and slot.said.cut else []
        return " · ".join(filter(None, words))
    last_words = {
        "open": "waits for you",
        "writing": "is writing",
        "person": "is a person: type the message",
        "fault": "could not speak",
    }[slot.status]
    return f"{last_words} · try {len(slot.tries)}" if len(slot.tries) > 1 else last_words


def _message(session: Session, slot: Slot) -> Message | None:
    said = session.watched.debate.transcript.messages
    return next((m for m in said if (m.turn, m.agent) == (slot.turn, slot.agent)), None)


def _history(slot: Slot) -> str:
    """Return the tries that did not go out, folded."""
    rejected = [one for one in slot.tries if one.action in ("send_back", "veto", "edit")]
    if not rejected:
        return ""
    rows = "".join(_rejected(one) for one in rejected)
    return f"<details><summary>What did not go out ({len(rejected)})</summary>{rows}</details>"


def _rejected(one: Try) -> str:
    note = f'<p class="note">Note: {_text(one.note)}</p>' if one.note else ""
    when = f"{ACTIONS[one.action]} by {one.who}, {one.when[11:19]} UTC"
    return f'<p class="hint">{_text(when)}</p><del>{_quote(one.own.whole)}</del>{note}'


def _form(slot: Slot, visit: Visit) -> str:
    """Return the form of a message that waits. Enter in a field of one line decides nothing."""
    hidden = _hidden("n", str(slot.number)) + _hidden("tries", str(len(slot.tries)))
    name = f'<label>Your name <input name="who" maxlength="60" value="{_text(visit.who)}"></label>'
    unset = '<button type="submit" disabled hidden></button>'
    if slot.status == "open":
        said = html.escape(harmless(slot.tries[-1].own.text))
        decided = (
            '<div class="bar"><button name="action" value="approve" data-key="a">Approve</button>'
            '<button name="action" value="veto" data-key="v">Veto: nobody reads it</button></div>'
            '<details data-key="e"><summary>Edit</summary><label>What goes out in its place'
            f'<textarea name="text" rows="6" dir="auto">\n{said}</textarea></label>'
            '<button name="action" value="edit">Send the edited text</button></details>'
            '<details data-key="s"><summary>Send back</summary><label>Note to its author, who '
            'answers again (without a note: writes anew)<textarea name="note" rows="3" dir="auto">'
            "</textarea></label>"
            '<button name="action" value="send_back">Send back</button></details>'
        )
    else:
        again = (
            '<div class="bar"><button name="action" value="again">Try again</button></div>'
            if slot.status == "fault"
            else ""
        )
        decided = (
            f'{again}<label>The message of {_text(slot.agent)}<textarea name="text" rows="6" '
            'dir="auto"></textarea></label><button name="action" value="say">Send</button>'
        )
    return f'<form method="post" action="act" class="decide">{unset}{hidden}{name}{decided}</form>'


def _end(session: Session) -> str:
    """Return vote and key of a debate that is over, and where the files are."""
    folder = f'<p class="hint">Recorded in {_text(str(session.record.folder))}</p>'
    if not session.over:
        return f"<footer>{folder}</footer>"
    debate = session.watched.debate
    vote = ", ".join(map(str, debate.outcome())) or "no answer"
    facts: Mapping[str, str] = {"vote": vote, "key": debate.question.answer}
    rows = "".join(f"<div><dt>{k}</dt><dd>{_text(v)}</dd></div>" for k, v in facts.items())
    return f'<footer id="now"><dl class="players">{rows}</dl>{folder}</footer>'


def _hidden(name: str, value: str) -> str:
    return f'<input type="hidden" name="{name}" value="{_text(value)}">'


def _quote(text: str) -> str:
    return f'<p class="text" dir="auto">{_text(text)}</p>'


def _text(text: str) -> str:
    """Return text as HTML that shows it."""
    return html.escape(harmless(text))
