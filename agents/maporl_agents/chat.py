"""The only border between text and tokens.

Three promises:
- text written by agents, questions or users never becomes a control token of the tokenizer;
- an agent's own earlier messages stand in its prompt as the ids it sampled, never re-encoded;
- the text handed to the others is the decoded sample, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from maporl_agents.types import TokenIds
from maporl_env.types import View


class Chat:
    """Turns views into prompt ids and sampled ids into text, for one tokenizer.

    A tokenizer with a chat template sees a conversation (user and assistant turns); one without
    sees the plain text of the view, each own message followed by the EOS that ended it.

    Args:
        tokenizer: any Hugging Face tokenizer with an EOS token.
        extra_stop_ids: further ids that end a message (from a generation config).

    Raises:
        ValueError: the tokenizer has no EOS token, so that no message could ever end.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, extra_stop_ids: Sequence[int] = ()
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no EOS token, so no message could "
                "end; set `eos_token` in its tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.stop_ids = frozenset({tokenizer.eos_token_id, *extra_stop_ids})
        self.pad_id: int = (
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        )
        self._control_ids = frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        self._skeletons: dict[tuple[str, ...], list[str]] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of foreign text, free of control tokens whatever it contains."""
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids = self.tokenizer(clean, add_special_tokens=False, split_special_tokens=True)
        harmless = self.tokenizer.unk_token_id
        kept = (harmless if i in self._control_ids else i for i in ids["input_ids"])
        return [i for i in kept if i is not None]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of sampled ids; a terminating stop id is not part of the text."""
        body = ids[:-1] if ids and ids[-1] in self.stop_ids else ids
        return self.tokenizer.decode(
            list(body), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def prompt_ids(self, view: View, own: Sequence[TokenIds] = ()) -> TokenIds:
        """Return the ids a policy is conditioned on.

        Args:
            view: what the agent may read, from `BatchedDebate.prompts`.
            own: the ids of its own earlier messages, one for each "own" segment, in order. Own
                segments beyond those given (messages written elsewhere) are encoded from text.
        """
        carried = iter(own)
        contents = [
            list(next(carried, ())) or self.encode(text) if role == "own" else self.encode(text)
            for role, text in view
        ]
        if self.tokenizer.chat_template is None:
            bos = self.tokenizer.bos_token_id if self._adds_bos() else None
            ids = [] if bos is None else [bos]
            for content in contents:
                ids += content
            return tuple(ids)
        return self._templated([role for role, _ in view], contents)

    def _adds_bos(self) -> bool:
        ids = self.tokenizer("")["input_ids"]
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id

    def _templated(self, roles: list[str], contents: list[list[int]]) -> TokenIds:
        """Put contents between the pieces of the chat template, which alone holds control tokens."""
        pieces = self._skeleton(tuple(roles))
        ids = self._control(pieces[0])
        for role, content, piece in zip(roles, contents, pieces[1:], strict=True):
            ids += content
            if role == "own" and content and content[-1] in self.stop_ids:
                piece = piece.removeprefix(self.tokenizer.convert_ids_to_tokens(content[-1]))
            ids += self._control(piece)
        return tuple(ids)

    def _control(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _skeleton(self, roles: tuple[str, ...]) -> list[str]:
        """Return the template's text before, between and after the contents."""
        if roles not in self._skeletons:
            marks = [f"\ue000{i}\ue001" for i in range(len(roles))]
            name = {"own": "assistant", "user": "user", "system": "system"}
            text = str(
                self.tokenizer.apply_chat_template(
                    [
                        {"role": name[role], "content": mark}
                        for role, mark in zip(roles, marks, strict=True)
                    ],
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
            pieces = []
            for mark in marks:
                piece, _, text = text.partition(mark)
                pieces.append(piece)
            self._skeletons[roles] = [*pieces, text]
        return self._skeletons[roles]
