"""Chat: builds prompt ids from conversations, and decodes sampled ids into text.

Promises:
- text written by agents, questions or users never becomes a control token of the tokenizer;
- an agent's own earlier messages stand in its prompt as the ids it sampled, never re-encoded;
- the text handed to the others is the decoded sample, byte for byte;
- thoughts (`thoughts`) are left out of both, and nothing else is.
"""

from __future__ import annotations

import re
import warnings
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, groupby, pairwise
from typing import cast

from transformers import PreTrainedTokenizerBase

from maporl_agents.text.bare_tokenizers import bare, without_prefix
from maporl_agents.text.stop_conditions import completes_text
from maporl_agents.text.template_process import render
from maporl_agents.text.thoughts import Thoughts, thoughts_of
from maporl_agents.text.vocabulary import markers, vocabulary_of
from maporl_agents.types import TokenIds
from maporl_env.protocols.knowledge import clean
from maporl_env.types import View

_FIXED_DATE = (
    "{% macro strftime_now(form) %}"
    "{{ {'%Y-%m-%d': '2024-07-26'}.get(form, '26 Jul 2024') }}"
    "{% endmacro %}{{ '' }}"
)
"""Before a template: one that asks for the date is told the same on every day, so that a prompt is
the same too."""


REMEMBERED = 1 << 23
"""Characters of prompts whose ids are kept, at most; each takes a few bytes."""


class _Rewritten(tuple[int, ...]):
    """The ids of an own message without its thoughts, nor what ended it."""


class Chat:
    """Turns conversations into prompt ids, and sampled ids into text, for one tokenizer.

    A tokenizer with a chat template sees a conversation (user and assistant turns); one without
    sees the plain text of the view, each own message followed by the EOS that ended it.

    Args:
        tokenizer: any Hugging Face tokenizer with an EOS token.
        extra_stop_ids: further ids that end a message (from a generation config).
        embeddings: rows of the model's embedding matrix; None for as many as the tokenizer needs.
        switches: variables of the chat template, such as enable_thinking.
        hide_thoughts: leave out thoughts, where the template has marks for them.

    Attributes:
        thoughts: how the template marks them; None if it does not.

    Raises:
        ValueError: the tokenizer has no EOS token, so that no message could ever end; a token of
            ordinary text has no embedding; or a chat template cannot be rendered, or writes a
            marker without an embedding.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        extra_stop_ids: Sequence[int] = (),
        embeddings: int | None = None,
        *,
        switches: Mapping[str, object] | None = None,
        hide_thoughts: bool = True,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no EOS token, so no message "
                "could end; set `eos_token` in its tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.switches = dict(switches or {})
        self.vocabulary = vocabulary_of(tokenizer, embeddings)
        unread = self.vocabulary.unread
        self._unknown = None if tokenizer.unk_token_id in unread else tokenizer.unk_token_id
        pad = tokenizer.pad_token_id
        self.pad_id: int = tokenizer.eos_token_id if pad is None or pad in unread else pad
        control = markers(tokenizer)
        self._control_ids = frozenset(control) - {self._unknown}
        texts = sorted(map(re.escape, control.values()))
        self._marker = re.compile(f"(?={'|'.join(texts)})")
        self._inner = without_prefix(tokenizer)
        self._quick = bare(tokenizer)
        self._skeletons: dict[tuple[str, ...], list[str]] = {}
        self._plain_skeletons: dict[tuple[str, ...], list[str]] = {}
        self._splits: dict[str, tuple[str, TokenIds, str]] = {}
        self._encoded: dict[tuple[str, bool], array[int]] = {}
        self._remembered = 0
        self._closing = self._closing_id()
        ends = {tokenizer.eos_token_id, *extra_stop_ids}
        known = self._thoughts(frozenset(ends))
        inner = known is not None and self._closing in known.inner
        if (not extra_stop_ids and not inner) or self._closes_whole_messages():
            ends.add(self._closing)
        self.stop_ids: frozenset[int] = frozenset(ends - {None})
        self.thoughts = self._thoughts(self.stop_ids)
        self.hides = hide_thoughts and self.thoughts is not None

    @property
    def end_id(self) -> int | None:
        """The id that ends a message: the template's closing token, else the tokenizer's EOS."""
        closing = self._closing if self._closing in self.stop_ids else None
        eos: int | None = self.tokenizer.eos_token_id
        return eos if closing is None else closing

    def encode(self, text: str, *, first: bool = False) -> list[int]:
        """Return the ids of foreign text, free of control tokens whatever it contains.

        Some tokenizers begin a text with a space of their own: they do so here if it is the `first`
        of a prompt, and not where it stands behind other tokens, as in the template's whole text.

        A marker is spelt: cut after its first character and encoded in two parts. Should one still
        come out, by way of the tokenizer's normaliser, the unknown token takes its place.
        """
        text = clean(text)
        cuts = [0, *(match.start() + 1 for match in self._marker.finditer(text)), len(text)]
        spelt = [
            i
            for start, end in pairwise(cuts)
            for i in self._ids(text[start:end], first and not start)
        ]
        if self._control_ids.isdisjoint(spelt):
            return spelt
        harmless = self._unknown
        kept = (harmless if i in self._control_ids else i for i in spelt)
        return [i for i in kept if i is not None]

    def _ids(self, text: str, first: bool) -> list[int]:
        quick = self._quick if self._inner is None or first else self._inner
        if quick is None:
            encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
            return list(encoded["input_ids"])
        quick.encode_special_tokens = True  # each time: transformers sets these three anew
        quick.no_truncation()
        quick.no_padding()
        [encoding] = quick.encode_batch_fast([text], add_special_tokens=False)
        return encoding.ids

    def message_ids(self, text: str, *, cut: bool = False) -> TokenIds:
        """Return a message that was written elsewhere as a policy would have sampled it.

        Its end is marked unless it was cut; () for an empty text whose end no token marks.
        """
        end = () if cut or self.end_id is None else (self.end_id,)
        return (*self.encode(text), *end)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of sampled ids; a terminating stop id is not part of the text."""
        body = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        return self.tokenizer.decode(
            list(body), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def shown(self, ids: TokenIds) -> TokenIds:
        """Return the ids of a message without its thoughts, a terminating stop id included."""
        return self.thoughts.shown(ids) if self.hides and self.thoughts else ids

    def shown_text(self, ids: Sequence[int]) -> str:
        """Return what the others read of a message: the text of the ids that are shown."""
        return self.decode(self.shown(tuple(ids)))

    def completes(self, ids: Sequence[int], texts: Sequence[str]) -> bool:
        """Return whether the newest ids complete a stop text: `stop_conditions.completes_text`."""
        return completes_text(self, ids, texts)

    def prompt_ids(self, view: View, own: Sequence[TokenIds] = ()) -> TokenIds:
        """Return the ids a policy is conditioned on.

        Args:
            view: what the agent may read, from `BatchedDebate.prompts`.
            own: the ids of its own messages so far, in order; thoughts are left out, as chat
                templates do. Where the view leaves out old messages, the newest count. Own segments
                beyond those given (messages written elsewhere) are encoded from text.
        """
        shown = sum(role == "own" for role, _ in view)
        carried = map(self._history, own[max(len(own) - shown, 0) :])
        contents: list[str | TokenIds] = []
        for role, text in view:
            ids = next(carried, ()) if role == "own" else ()
            contents.append(ids if ids or isinstance(ids, _Rewritten) else text)
        if self.tokenizer.chat_template is None:
            bos = self.tokenizer.bos_token_id if self._adds_bos else None
            return self._joined([() if bos is None else (bos,), *contents])
        roles: list[str] = [role for role, _ in view]
        if roles[0] == "system" and not self._takes_system:
            roles, contents = roles[1:], [f"{contents[0]}{contents[1]}", *contents[2:]]
        return self._joined(self._templated(roles, contents))

    def _history(self, ids: TokenIds) -> TokenIds:
        """Return an own message as it stands in later prompts, its thoughts left out."""
        shown = self.shown(ids)
        if shown == ids:
            return ids
        closed = shown and shown[-1] in self.stop_ids
        return _Rewritten(shown[:-1] if closed else shown)

    def _joined(self, parts: Sequence[str | TokenIds]) -> TokenIds:
        """Return the ids of a prompt; texts that meet are encoded as one."""
        ids: list[int] = []
        opened = [] if self.tokenizer.chat_template else [self.tokenizer.bos_token_id]
        for is_text, neighbours in groupby(parts, key=lambda part: isinstance(part, str)):
            if is_text:
                first = ids in ([], opened)  # a base model's BOS is put before a text that is first
                ids += self._known("".join(map(str, neighbours)), first)
            else:
                ids += chain.from_iterable(cast("Iterator[TokenIds]", neighbours))
        return tuple(ids)

    def _known(self, text: str, first: bool) -> array[int]:
        """Return the ids of `encode`; the prompt of a later turn holds the same texts again."""
        key = text, first
        if key not in self._encoded:
            self._remembered += len(text)
            if self._remembered > REMEMBERED:
                self._encoded, self._remembered = {}, len(text)
            self._encoded[key] = array("q", self.encode(text, first=first))
        return self._encoded[key]

    @cached_property
    def _adds_bos(self) -> bool:
        """Whether the tokenizer begins every text with its BOS."""
        ids = self.tokenizer("")["input_ids"]
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the template has a system role that stays in front of all that follows.

        Without one, its text opens the first message.
        """
        try:
            self._skeleton(("system", "user"))
            self._skeleton(("system", "user", "own", "user"))
        except ValueError:
            return False
        return True

    def _closing_id(self) -> int | None:
        """Return the control token that the template closes an agent's message with, if any."""
        if self.tokenizer.chat_template is None:
            return None
        for piece in self._skeleton(("user",)):
            self._split(piece)
        try:
            _, cue, behind, _ = pieces = self._skeleton(("user", "own", "user"))
        except ValueError:
            return None
        for piece in pieces:
            self._split(piece)
        before, ids, _ = self._split(behind)
        if not (ids and self._split(cue)[1]):
            warnings.warn(
                f"the chat template of {self.tokenizer.name_or_path!r} marks who speaks with plain "
                "words, not control tokens: what an agent writes can look like another's turn",
                stacklevel=3,
            )
        return ids[0] if ids and not before.strip() else None

    def _closes_whole_messages(self) -> bool:
        """Return whether the token that closes an old message of an agent can end a new one.

        Not where the template puts more before an old message than an agent reads before a new one:
        what it then writes first, such as a part of its own for its reasoning, closes alike.
        """
        if self._closing is None:
            return False
        before = self._pieces(("user", "own", "user"))[1]
        return self._skeleton(("user",))[-1].startswith(before.rstrip())

    def _templated(
        self, roles: Sequence[str], contents: Sequence[str | TokenIds]
    ) -> list[str | TokenIds]:
        """Put contents between the pieces of the template, which alone holds control tokens."""
        pieces = list(self._skeleton(tuple(roles)))
        for i, content in enumerate(contents):
            if isinstance(content, _Rewritten):  # what stood before its thoughts goes with them
                pieces[i] = self._as_rendered(tuple(roles))[i]
        parts: list[str | TokenIds] = [*self._split(pieces[0])]
        for content, piece in zip(contents, pieces[1:], strict=True):
            before, ids, behind = self._split(piece)
            if content and content[-1] == self._closing:
                before, ids = "", ids[1:]  # closed already, by the agent
            parts += [content, before, ids, behind]
        return parts

    def _split(self, piece: str) -> tuple[str, TokenIds, str]:
        """Return a piece of the template as text, ids from first to last control token, text."""
        if piece not in self._splits:
            fast = self.tokenizer.is_fast
            found = self.tokenizer(piece, add_special_tokens=False, return_offsets_mapping=fast)
            ids = found["input_ids"]
            for unread in self.vocabulary.unread.keys() & set(ids):
                raise ValueError(
                    f"the chat template of {self.tokenizer.name_or_path!r} writes "
                    f"{self.vocabulary.unread[unread]!r}, for which its model has no embedding: "
                    "repair its chat_template"
                )
            places = [i for i, token in enumerate(ids) if token in self._control_ids]
            if not places:
                self._splits[piece] = piece, (), ""
            elif not fast:  # such a tokenizer does not say where in the text its tokens stand
                self._splits[piece] = "", tuple(ids), ""
            else:
                first, last = places[0], places[-1]
                start, end = found["offset_mapping"][first][0], found["offset_mapping"][last][1]
                self._splits[piece] = piece[:start], tuple(ids[first : last + 1]), piece[end:]
        return self._splits[piece]

    def _skeleton(self, roles: tuple[str, ...]) -> list[str]:
        """Return the template's text before, between and after the contents.

        Some templates put more before an old message of an agent than before its next one, or
        less; it stays what it was.
        """
        if roles not in self._skeletons:
            pieces = list(self._as_rendered(roles))
            for i, role in enumerate(roles):
                if role == "own" and i:  # what the agent read before it wrote: the cue to speak
                    pieces[i] = self._skeleton(roles[:i])[-1]
            self._skeletons[roles] = pieces
        return self._skeletons[roles]

    def _as_rendered(self, roles: tuple[str, ...]) -> list[str]:
        """Return the template's text around the contents, rendered once."""
        if roles not in self._plain_skeletons:
            self._plain_skeletons[roles] = self._pieces(roles)
        return self._plain_skeletons[roles]

    def _thoughts(self, stops: frozenset[int]) -> Thoughts | None:
        """Return how the template marks thoughts, if it does."""
        if self.tokenizer.chat_template is None:
            return None
        cue = self._skeleton(("user",))[-1]
        return thoughts_of(self.tokenizer, self.tokenizer.get_chat_template(), cue, stops)

    def _pieces(self, roles: tuple[str, ...]) -> list[str]:
        """Return the template's text around the contents, rendered now."""
        marks = [f"\ue000{i}\ue001" for i in range(len(roles))]
        name = {"own": "assistant", "user": "user", "system": "system"}
        text = self._rendered(
            [{"role": name[role], "content": mark} for role, mark in zip(roles, marks, strict=True)]
        )
        pieces = []
        for role, mark in zip(roles, marks, strict=True):
            piece, found, text = text.partition(mark)
            if not found:
                raise ValueError(
                    f"the chat template of {self.tokenizer.name_or_path!r} leaves out a "
                    f"message (role {name[role]}); remove or repair its chat_template"
                )
            pieces.append(piece)
        return [*pieces, text]

    def _rendered(self, messages: Sequence[Mapping[str, str]]) -> str:
        template = _FIXED_DATE + self.tokenizer.get_chat_template()
        try:
            tokens = self.tokenizer.special_tokens_map
            return render(template, messages, {**tokens, **self.switches})
        except ValueError as error:
            raise ValueError(
                f"the chat template of {self.tokenizer.name_or_path!r} cannot be used ({error}): "
                "remove or repair its chat_template"
            ) from None
