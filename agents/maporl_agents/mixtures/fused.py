"""What several teachers expect before each token of a text, fused into one distribution.

FuseLLM (Wan et al., arXiv 2401.10491). Of two teachers, MinCE takes the one that gives the text the
lower cross-entropy, by message or by token; AvgCE takes both, weighted by exp(-cross-entropy) (the
paper says that it weights by cross-entropy; the formula is ours). Each teacher's K most probable
tokens are kept, renormalised.

A teacher may read another prompt than the student: an agent of a debate that has read its peers
teaches a model that reads the question alone. And it may have another vocabulary: then it reads the
same text in its own tokens. Where a token of the student begins at the same character as one of
the teacher, both predict the same continuation; the teacher's tokens are mapped to the first token
in which the student would write what they add to the text: with the space before a word, where the
teacher's tokens stand for words and the student's for a space and a word. In the other places the
teacher says nothing, and the token itself is the target (the paper aligns tokens by edit distance
instead).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from maporl_agents.models.team import Team
from maporl_agents.text.chat import Chat
from maporl_agents.types import Completion, StopReason, TokenIds
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.fusion import FusedMessages
from maporl_agents.update.token_logprobs import top_candidates

Fusion = Literal["min_ce", "avg_ce"]
Per = Literal["message", "token"]


class Expected(NamedTuple):
    """What one teacher expects in the student's tokens.

    Attributes:
        ids: (B, L, K) student ids.
        probs: (B, L, K) their probabilities, sum 1 where the teacher says something.
        cost: (B, L) the cross-entropy of the text in nats per token; infinite where it says
            nothing.
    """

    ids: Tensor
    probs: Tensor
    cost: Tensor


def teach(
    student: Team,
    rows: Sequence[Row],
    teachers: Sequence[tuple[Team, Sequence[Row]]],
    *,
    fusion: Fusion = "min_ce",
    per: Per = "message",
    top: int = 10,
) -> FusedMessages:
    """Return messages of a student with the fused distributions of its teachers.

    Args:
        student: whose policies are trained.
        rows: B messages of the student: its prompt and the text.
        teachers: each a team and B rows with the same texts: the teacher's prompt and policy. A
            team with the student's vocabulary reads the student's ids.
        fusion: how distributions are fused; see the module.
        per: what MinCE chooses by.
        top: K, tokens kept of each teacher.

    Raises:
        ValueError: no rows or teachers, texts that differ, or an unknown way to fuse.
    """
    if not rows or not teachers:
        raise ValueError("fusion needs at least one message and one teacher")
    if top < 1:
        raise ValueError(f"top must be at least 1, not {top}")
    batch = batch_of(student, rows)
    expected = [_expected(student, batch.ids, rows, *teacher, top=top) for teacher in teachers]
    ids, weights = fuse(expected, batch.ids, batch.mask, fusion=fusion, per=per)
    return FusedMessages(batch, ids, weights)


def fuse(
    expected: Sequence[Expected],
    tokens: Tensor,
    mask: Tensor,
    *,
    fusion: Fusion = "min_ce",
    per: Per = "message",
) -> tuple[Tensor, Tensor]:
    """Return ids and weights, (B, L, N x K + 1), of the fused distribution of N teachers.

    Args:
        expected: of each teacher.
        tokens: (B, L) the text; the target where no teacher says anything.
        mask: (B, L) bool, True = real.
        fusion: "min_ce" or "avg_ce".
        per: "message" or "token".

    Raises:
        ValueError: an unknown fusion or per.
    """
    if fusion not in ("min_ce", "avg_ce"):
        raise ValueError(f"unknown fusion {fusion!r}: choose one of min_ce, avg_ce")
    if per not in ("message", "token"):
        raise ValueError(f"unknown per {per!r}: choose one of message, token")
    cost = torch.stack([one.cost for one in expected])  # (N, B, L)
    said = cost.isfinite() & mask
    if per == "message":
        totals = torch.where(said, cost, 0.0).sum(-1, keepdim=True)
        cost = (totals / said.sum(-1, keepdim=True).clamp(min=1)).expand_as(cost)
    cost = torch.where(said, cost, torch.inf)
    shares = (-cost).softmax(0) if fusion == "avg_ce" else _lowest(cost)
    shares = torch.where(said, shares, 0.0)  # (N, B, L), also where all are infinite
    ids = torch.cat([*(one.ids for one in expected), tokens[..., None]], -1)
    parts = [share[..., None] * one.probs for share, one in zip(shares, expected, strict=True)]
    silent = (mask & ~said.any(0)).to(parts[0].dtype)
    return ids, torch.cat([*parts, silent[..., None]], -1)


def _lowest(cost: Tensor) -> Tensor:
    """Return 1 for the first teacher with the lowest cost, else 0, (N, B, L)."""
    return torch.zeros_like(cost).scatter(0, cost.argmin(0, keepdim=True), 1.0)


def _expected(
    student: Team, tokens: Tensor, rows: Sequence[Row], team: Team, own: Sequence[Row], *, top: int
) -> Expected:
    """Return what a teacher expects before the student's tokens, (B, L)."""
    if len(own) != len(rows):
        raise ValueError(f"a teacher has {len(own)} rows for {len(rows)} messages")
    pupil, chat = _chat(student, rows[0]), _chat(team, own[0])
    shared = pupil.tokenizer.get_vocab() == chat.tokenizer.get_vocab()
    read = [
        mine._replace(completion=one.completion if shared else in_own_tokens(one, pupil, chat))
        for one, mine in zip(rows, own, strict=True)
    ]
    batch = batch_of(team, read)
    ids, logprobs, of_tokens = top_candidates(
        team, batch, min(top, team.base_of(own[0].policy).vocab_size), temperature=1.0
    )
    probs = logprobs.softmax(-1) * batch.mask[..., None]
    cost = torch.where(batch.mask, -of_tokens, torch.inf)
    found = Expected(ids, probs, cost)
    device = tokens.device
    if not shared:
        found = _aligned(found, tokens, rows, read, pupil, chat)
    return Expected(*(part.to(device) for part in found))


def _chat(team: Team, row: Row) -> Chat:
    return team.base_of(row.policy).chat


def in_own_tokens(row: Row, pupil: Chat, chat: Chat) -> Completion:
    """Return a message of the student in a teacher's tokens, with the teacher's end if it ended."""
    ids = row.completion.ids
    ended = ids[-1] in pupil.stop_ids
    text = pupil.decode(ids[:-1] if ended else ids)
    own: TokenIds = tuple(chat.encode(text))
    if ended and chat.end_id is not None:
        own = (*own, chat.end_id)
    own = own or (chat.tokenizer.eos_token_id,)
    return Completion(own, (0.0,) * len(own), text, StopReason.LENGTH)


def starts(chat: Chat, ids: TokenIds) -> list[int]:
    """Return the character at which each token begins, an end counted as one character."""
    lengths = [0]
    for place in range(len(ids)):
        written = ids[: place + 1]
        ended = written[-1] in chat.stop_ids
        lengths.append(len(chat.decode(written[:-1] if ended else written)) + ended)
    return lengths[:-1]


def _aligned(
    found: Expected,
    tokens: Tensor,
    rows: Sequence[Row],
    read: Sequence[Row],
    pupil: Chat,
    chat: Chat,
) -> Expected:
    """Move what a teacher expects to the student's tokens that begin at the same characters."""
    shape = (*tokens.shape, found.ids.shape[2])
    ids = torch.zeros(shape, dtype=torch.long)
    probs = torch.zeros(shape, dtype=found.probs.dtype)
    cost = torch.full(tokens.shape, torch.inf, dtype=found.cost.dtype)
    known: dict[TokenIds, int | None] = {}
    for index, (row, own) in enumerate(zip(rows, read, strict=True)):
        places = {start: place for place, start in enumerate(starts(chat, own.completion.ids))}
        for place, start in enumerate(starts(pupil, row.completion.ids)):
            source = places.get(start)
            if source is None:
                continue
            before = own.completion.ids[max(0, source - 1) : source]
            mapped = [
                _mapped((*before, int(x)), chat, pupil, known) for x in found.ids[index, source]
            ]
            chances = found.probs[index, source].clone()
            chances[[x is None for x in mapped]] = 0.0
            if chances.sum() > 0:
                ids[index, place] = torch.tensor([x or 0 for x in mapped])
                probs[index, place] = chances / chances.sum()
                cost[index, place] = found.cost[index, source]
    return Expected(ids, probs, cost)


def _mapped(
    ids: TokenIds, chat: Chat, pupil: Chat, known: dict[TokenIds, int | None]
) -> int | None:
    """Return the first id in which the student writes the last of a teacher's one or two tokens.

    None if it cannot. The token before, if any, tells whether a space comes with the last one.
    """
    if ids not in known:
        if ids[-1] in chat.stop_ids:
            known[ids] = pupil.end_id
        else:
            before, both = chat.decode(ids[:-1]), chat.decode(ids)
            # A token that is a part of a character says nothing by itself.
            whole = "\ufffd" not in both and both.startswith(before)
            written = pupil.encode(both[len(before) :]) if whole else []
            able = bool(written) and written[0] != pupil.tokenizer.unk_token_id
            known[ids] = written[0] if able else None
    return known[ids]
