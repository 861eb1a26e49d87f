"""The cost of the turns of a debate: one call of the sampler each, and the caches that are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from transformers import Cache, DynamicCache

from maporl_agents.models.bases import Base
from maporl_agents.models.caches.row_caches import PREFILL_TOKENS
from maporl_agents.models.caches.row_storage import RowCache
from maporl_agents.models.generation import VALUED_AT_ONCE, Drawing, next_tokens
from maporl_agents.models.team import Team
from maporl_agents.planning.ledger import Cost, Ledger, sketching
from maporl_agents.planning.sketch import META, owned, places
from maporl_agents.types import TokenIds


@dataclass(frozen=True)
class Turn:
    """The rows of one turn that one base writes, in one debate, or at one node of a tree.

    Attributes:
        policies: of each row.
        distinct: the policy that reads each distinct prompt.
        width: tokens of the longest prompt.
        new: tokens of the longest message.
        read: tokens of the prompts that are in caches of earlier turns.
        critics: critic -> tokens that it values while they are sampled.
        kept_before: tokens of all kept caches of the debate as the turn begins.
        idle: those among them that the turn does not use.
        kept_after: tokens of all kept caches after the turn.
        nodes: number of such nodes in a tree; 1 for a debate.
    """

    policies: tuple[str, ...]
    distinct: tuple[str, ...]
    width: int
    new: int
    read: int = 0
    critics: Mapping[str, int] = field(default_factory=dict)
    kept_before: int = 0
    idle: int = 0
    kept_after: int = 0
    nodes: int = 1


class KeptTexts:
    """The texts whose caches are kept, as `models.caches.kept_caches` keeps those of one debate."""

    def __init__(self) -> None:
        self._texts: set[tuple[str, TokenIds]] = set()

    @property
    def tokens(self) -> int:
        """Tokens of all kept texts."""
        return sum(len(ids) for _, ids in self._texts)

    def take(self, reader: str, prompt: TokenIds) -> int:
        """Return the length of the longest kept text that begins a prompt; it leaves."""
        found = [key for key in self._texts if key == (reader, prompt[: len(key[1])])]
        if not found:
            return 0
        longest = max(found, key=lambda key: len(key[1]))
        self._texts.remove(longest)
        return len(longest[1])

    def put(self, reader: str, ids: TokenIds) -> None:
        """Keep a text."""
        self._texts.add((reader, ids))


def turn_cost(
    team: Team, base: Base, turn: Turn, debates: int, *, rows: int, temperature: float, room: float
) -> Cost:
    """Return the cost of one turn of equal debates.

    Args:
        team: the sketch.
        base: the base model that writes.
        turn: one debate's turn.
        debates: B.
        rows: the most rows of one call of the model.
        temperature: as in `Sampling`.
        room: bytes of caches that the base keeps.
    """
    speakers = list(turn.policies) * debates
    chunk = speakers[:rows]
    share = len(chunk) / len(speakers)
    distinct = (list(turn.distinct) * debates)[: len(chunk)]
    with torch.inference_mode(), sketching(Ledger(owned(team))) as ledger:
        cache, prefill, began = _prefill(base, chunk, distinct, turn, temperature, ledger)
        step, stored = Cost(), ledger.live_bytes
        if turn.new > 1:
            _lengthen(cache, turn.width, turn.new - 2)
            before = ledger.live_bytes
            ledger.start()
            # The last step, which costs most, stands for all: it reads the whole text.
            _say(base, chunk, (1, turn.width + turn.new - 1), cache, temperature)
            step, stored = ledger.cost(), ledger.live_bytes
            decode = before + step.peak_bytes
        else:
            decode = stored
        waiting, values = _values(team, base, turn, debates * share, ledger)
    work = prefill.then(step.times(turn.new - 1))
    size = token_bytes(team, base) if room else 0.0

    def kept(tokens: float) -> float:
        return min(room, tokens * debates * size)

    # Caches of rows that wait for their call, or have had it, are there beside the rows of this.
    others = turn.idle + (1 - share) * (max(turn.kept_before, turn.kept_after) - turn.idle)
    heights = (
        kept(turn.kept_before) + began,
        kept(others) + max(prefill.peak_bytes, decode + waiting),
        kept(turn.kept_after) + stored + values,
    )
    return Cost(work.flops / share, work.moved_bytes / share, work.ops / share, int(max(heights)))


def _prefill(
    base: Base,
    policies: Sequence[str],
    distinct: Sequence[str],
    turn: Turn,
    temperature: float,
    ledger: Ledger,
) -> tuple[Cache, Cost, int]:
    """Read the prompts; return the cache, the cost, and the bytes of the storage it begins with."""
    unread = turn.width - turn.read
    cache: Cache = DynamicCache(config=base.model.config)
    if not base.packs:
        _say(base, policies, (unread, turn.width), cache, temperature)
        return cache, ledger.cost(), ledger.live_bytes
    stored = RowCache(len(cache.layers), len(policies), turn.width, turn.width + turn.new - 1)
    at_once = min(len(distinct), max(1, PREFILL_TOKENS // unread))
    stored.rows, stored.length = slice(0, at_once), turn.read
    _say(base, distinct[:at_once], (unread, turn.width), stored, temperature)
    stored.rows = slice(0, len(policies))
    one = ledger.cost()
    passes = len(distinct) / at_once
    return stored, one.times(passes), ledger.live_bytes


def _values(team: Team, base: Base, turn: Turn, debates: float, ledger: Ledger) -> tuple[int, int]:
    """Return the bytes of states that wait for their values, and the most while critics run."""
    if not turn.critics:
        return 0, 0
    width = base.model.config.get_text_config().hidden_size
    before = ledger.live_bytes
    tokens = {critic: int(count * debates) for critic, count in turn.critics.items()}
    total = sum(tokens.values())
    part = min(1.0, (VALUED_AT_ONCE / width + len(turn.policies) * debates) / max(total, 1))
    ledger.start()
    states = torch.empty(int(total * part), width, dtype=base.model.dtype, device=META)
    waiting = ledger.live_bytes - before
    for critic, count in tokens.items():
        own = torch.zeros(int(count * part), dtype=torch.long, device=META)
        team.critics[critic](states[own])
    return waiting, max(2 * waiting, ledger.cost().peak_bytes)


def _say(
    base: Base, policies: Sequence[str], shape: tuple[int, int], cache: Cache, temperature: float
) -> None:
    """Run the model on (ids per row, columns with those cached); draw a token per row."""
    width, columns = shape
    ids = places(len(policies), width)
    seen = places(len(ids), columns)
    hidden = base.hidden(ids, seen, ids, policies, cache=cache, at_end=True)
    numbers = torch.empty(len(ids), dtype=torch.float64, device=META)
    next_tokens(base, hidden[:, -1], Drawing(temperature), numbers)


def token_bytes(team: Team, base: Base) -> float:
    """Return the bytes of one token in a key-value cache of plain attention."""
    cache = RowCache(len(DynamicCache(config=base.model.config).layers), 1, 1, 1)
    with torch.inference_mode(), sketching(Ledger(owned(team))):
        ids = places(1, 1)
        base.hidden(ids, torch.ones_like(ids), ids, base.policies[:1], cache=cache)
    return float(sum(whole.nbytes for layer in cache.layers for whole in layer.stored))


def _lengthen(cache: Cache, prompt: int, tokens: int) -> None:
    """Append `tokens` tokens to a cache that holds a prompt."""
    if isinstance(cache, RowCache):
        cache.length = prompt + max(tokens, 0)
        return
    for index, layer in enumerate(cache.layers):
        if tokens > 0:
            rows, heads, _, size = layer.keys.shape
            more = layer.keys.new_empty(rows, heads, tokens, size)
            cache.update(more, more, index)
