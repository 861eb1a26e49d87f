"""Teams without weights and the cost of their work: the code of training, run on shapes alone.

A sketch is an ordinary `Team` whose models lie on torch's device "meta". Its weights can be
counted, and it can be run: a `Ledger` then counts the bytes, products and operators of each part of
a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from maporl_agents.config import GameConfig, TeamConfig
from maporl_agents.models.bases import Base
from maporl_agents.models.critics import critic_adapter
from maporl_agents.models.lean_layers import gathered
from maporl_agents.models.loading import examine, make_team
from maporl_agents.models.mixed_precision import dtype_of
from maporl_agents.models.packed_texts import PackedTexts, pack_texts
from maporl_agents.models.team import Team
from maporl_agents.planning.ledger import Cost, Ledger, sketching
from maporl_agents.text.chat import Chat
from maporl_agents.text.vocabulary import rows_of
from maporl_agents.update.layout import in_order, lay_out, nest, pack, texts_from
from maporl_agents.update.read_out import read_out
from maporl_agents.verifier.model import LearnedVerifier, read_settings

META = torch.device("meta")


@dataclass
class Sketch:
    """A team without weights.

    Attributes:
        team: on the device "meta".
        packed_bytes: bytes that quantisation saves of its bases.
        unpacked_bytes: bytes of the largest quantised layer, unpacked while it is used.
    """

    team: Team
    packed_bytes: float
    unpacked_bytes: float


def sketch_team(config: TeamConfig, game: GameConfig, *, critics: bool = True) -> Sketch:
    """Return the team of a run without its weights; with `critics`, it has value heads.

    Raises:
        ValueError: as `loading.make_team`, e.g. a hub name that cannot be read for want of network.
    """
    packed, unpacked = 0.0, 0.0

    def load(name: str, settings: TeamConfig) -> tuple[PreTrainedModel, Chat]:
        nonlocal packed, unpacked
        model, chat = load_sketch(name, settings)
        kind, double = _how_kept(name, model.config, settings)
        if kind != "none":
            layers = quantised_layers(model)
            packed += sum(
                nbytes([layer.weight]) - packed_size(layer, kind, double) for layer in layers
            )
            unpacked = max([unpacked, *(nbytes([layer.weight]) for layer in layers)])
        return model, chat

    team = make_team(
        config,
        num_agents=game.num_agents,
        num_turns=game.num_turns,
        seed=0,
        load=load,
        critics=critics,
    )
    for base in team.bases:
        with _same_parameters():
            base.model.to(META)  # adapters are made on the CPU
    return Sketch(team, packed, unpacked)


@contextmanager
def _same_parameters() -> Iterator[None]:
    """Let modules keep their parameter objects, which others hold too, when they change device."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def load_sketch(name: str, config: TeamConfig) -> tuple[PreTrainedModel, Chat]:
    """Return a model without weights, by its settings alone, and its chat border.

    Raises:
        ValueError: as `bare_model`.
    """
    model, tokenizer = bare_model(name, config, META)
    return model, Chat(tokenizer, embeddings=rows_of(model.config))


def bare_model(
    name: str, config: TeamConfig, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a model with random weights on a device, and its tokenizer; reads no weights.

    Raises:
        ValueError: the model's settings or tokenizer cannot be read, or do not suit `config`.
    """
    tokenizer, architecture = examine(name, config)
    try:
        with device:
            model = AutoModelForCausalLM.from_config(
                architecture,
                dtype=dtype_of(config.dtype),
                attn_implementation=None if config.attention == "auto" else config.attention,
                trust_remote_code=False,
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"cannot read the settings of the model {name!r}: {line}") from error
    return model, tokenizer


def _how_kept(name: str, architecture: PreTrainedConfig, settings: TeamConfig) -> tuple[str, bool]:
    """Return "none", "nf4" or "int8", and whether scales are packed again.

    A checkpoint may be quantised already.
    """
    given = getattr(architecture, "quantization_config", None)
    if given is None:
        return settings.quantization, settings.double_quant
    said = given if isinstance(given, dict) else given.to_dict()
    if said.get("load_in_8bit"):
        return "int8", False
    if said.get("load_in_4bit"):
        return "nf4", bool(said.get("bnb_4bit_use_double_quant"))
    raise ValueError(
        f"{name!r} is quantised by {said.get('quant_method', 'a method of its own')}, which a plan "
        "cannot count: plan with the unquantised model, and quantization='nf4' or 'int8'"
    )


def quantised_layers(model: PreTrainedModel) -> list[nn.Linear | Conv1D]:
    """Return the layers that quantisation packs: linear ones, but for the output head."""
    head = model.get_output_embeddings()
    return [m for m in model.modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head]


def packed_size(layer: nn.Linear | Conv1D, kind: str, double: bool) -> int:
    """Return the bytes of a layer's weight as bitsandbytes keeps it.

    - int8: a byte per weight and a float32 scale per output.
    - nf4: half a byte per weight, a float32 scale per 64, a table of 16 float32; with `double`, a
      byte per scale, a float32 per 256 scales, and one more table, of 256, and a mean.
    """
    count = layer.weight.numel()
    if kind == "int8":
        outputs = layer.weight.shape[1 if isinstance(layer, Conv1D) else 0]
        return count + 4 * outputs
    scales = -(-count // 64)
    tables = 4 * 16
    if double:
        return count // 2 + scales + 4 * -(-scales // 256) + tables + 4 * 256 + 4
    return count // 2 + 4 * scales + tables


def verifier_bytes(folder: Path) -> int:
    """Return the bytes of the weights of a learned verifier, by its settings alone.

    Raises:
        ValueError: the folder is no verifier, or its base cannot be read.
        CheckpointError: its settings are damaged.
    """
    config, _ = read_settings(folder)
    verifier = LearnedVerifier(config, load=load_sketch)
    model, head = verifier.base.model, verifier.head
    return nbytes([*model.parameters(), *model.buffers(), *head.parameters()])


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, each counted once however often it is named."""
    unique = {id(tensor): tensor for tensor in tensors}
    return sum(tensor.numel() * tensor.element_size() for tensor in unique.values())


def owned(team: Team) -> list[Tensor]:
    """Return all weights and buffers of a team, float32 copies of shorter weights included."""
    modules: list[nn.Module] = [team.critics]
    for base in team.bases:
        modules += [base.model, getattr(base, "reference", base.model)]
    trained = [p for named in team.trainable().values() for p in named.values()]
    return [*trained, *(one for m in modules for one in (*m.parameters(), *m.buffers()))]


def places(rows: int, width: int) -> Tensor:
    """Return ids (rows, width) without content."""
    return torch.zeros(rows, width, dtype=torch.long, device=META)


@dataclass(frozen=True)
class Pass:
    """The shape of one forward pass of training, that of one micro-batch on one base.

    Attributes:
        owners: the policy of each sequence.
        width: tokens of the longest sequence.
        padded: whether some sequences are shorter.
        tokens: number of sampled tokens.
        critics: critic -> number of sampled tokens whose values it computes.
        critic_owners: as `owners`, where critics have a trunk of their own.
        packed: the texts as policies, reference policies and critics of their own read them, if
            the base reads packed texts.
    """

    owners: tuple[str, ...]
    width: int
    padded: bool
    tokens: int
    critics: dict[str, int]
    critic_owners: tuple[str, ...] = ()
    packed: tuple[PackedTexts, ...] = ()

    @property
    def padded_tokens(self) -> int:
        """Tokens that the policies read, padding included."""
        return len(self.packed[0].ids) if self.packed else len(self.owners) * self.width


def scoring_cost(team: Team, base: Base, shape: Pass, temperature: float) -> Cost:
    """Return the cost of the pass before the update: policy, critics, reference."""
    total = Cost()
    for reference in (False, True):
        with torch.no_grad(), sketching(Ledger(owned(team), padded=shape.padded)) as ledger:
            _score(team, base, shape, temperature, reference=reference)
            total = total.then(ledger.cost())
    return total


def update_cost(team: Team, base: Base, shape: Pass, temperature: float, *, again: bool) -> Cost:
    """Return the cost of one forward and backward pass.

    The peak includes the base's gradients; with `again`, those of an earlier pass exist already.
    """
    with sketching(Ledger(owned(team), padded=shape.padded)) as ledger:
        for _ in range(2 if again else 1):
            before = ledger.live_bytes
            ledger.start()
            torch.autograd.backward([x.sum() for x in _score(team, base, shape, temperature)])
        cost = ledger.cost()
        for tensor in owned(team):
            tensor.grad = None
    return Cost(cost.flops, cost.moved_bytes, cost.ops, cost.peak_bytes + before)


def _score(
    team: Team, base: Base, shape: Pass, temperature: float, *, reference: bool = False
) -> list[Tensor]:
    """Run a micro-batch as `token_logprobs.score_tokens` does; return log-probabilities, values."""
    states = _states(base, shape, 1 if reference else 0)
    ids = torch.zeros(shape.tokens, dtype=torch.long, device=META)
    logprobs, _ = read_out(
        base, states, ids, temperature, reference=reference, with_entropy=torch.is_grad_enabled()
    )
    if reference:
        return [logprobs]
    if shape.critic_owners:
        states = _states(base, shape, 2)
    if not shape.critics:
        return [logprobs]
    parts = states.split(list(shape.critics.values()))
    values = [team.critics[name](part) for name, part in zip(shape.critics, parts, strict=True)]
    return [logprobs, *values]


def _states(base: Base, shape: Pass, reader: int) -> Tensor:
    """Run a trunk; `reader` is 0 for policies, 1 for reference policies, 2 for critics."""
    reference = reader == 1
    if shape.packed:
        found = base.states(shape.packed[reader], reference=reference)
        return gathered(torch.zeros(shape.tokens, dtype=torch.long, device=META), found)
    owners = shape.critic_owners if reader == 2 else shape.owners
    ids = places(len(owners), shape.width)
    hidden = base.hidden(ids, torch.ones_like(ids), ids, owners, reference=reference)
    cells = torch.zeros(shape.tokens, dtype=torch.long, device=META)
    return hidden[cells, cells]


MessageRow = tuple[tuple[int, ...], int, str, str | None]
"""(prompt and completion, length of the completion, policy, critic or None) of a message."""


def passes_of(base: Base, rows: Sequence[MessageRow], tokens: int) -> list[Pass]:
    """Return the passes in which a base reads messages, of at most `tokens` padded tokens."""
    texts = texts_from([row[0] for row in rows])
    hosts, leaders = nest(texts, [row[2] for row in rows])
    if base.reads_packed:
        units = hosts.tolist()
        chosen_rows = in_order([r[0] for r in rows], [r[2] for r in rows], units, tokens)
        return [pass_of(base, [rows[i] for i in sorted(chosen)]) for chosen in chosen_rows]
    members: list[list[MessageRow]] = [[] for _ in leaders]
    for row, host in zip(rows, hosts.tolist(), strict=True):
        members[host].append(row)
    units = [(1, length) for length in texts.lengths[leaders].tolist()]
    return [
        pass_of(base, [row for unit in chosen for row in members[unit]])
        for chosen in pack(units, tokens)
    ]


def largest(passes: Sequence[Pass]) -> Pass:
    """Return the pass with the most tokens."""
    return max(passes, key=lambda one: one.padded_tokens)


def pass_of(base: Base, rows: Sequence[MessageRow]) -> Pass:
    """Return the shape of one pass over messages."""

    def laid(owners: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
        layout = lay_out(texts_from([row[0] for row in rows]), owners, 0)
        return tuple(owners[leader] for leader in layout.leaders.tolist()), layout.attention

    owners, attention = laid([row[2] for row in rows])
    critics: dict[str, int] = {}
    for _, tokens, _, critic in rows:
        if critic is not None:
            critics[critic] = critics.get(critic, 0) + tokens
    names = [critic_adapter(row[3]) for row in rows if row[3] is not None]
    own_trunks = laid(names)[0] if base.critics else ()
    packed: list[PackedTexts] = []
    if base.reads_packed:
        readers = [(rows, [row[2] for row in rows])]
        readers.append((rows, [base.weights_of_reference(row[2]) for row in rows]))
        if own_trunks:
            readers.append(([row for row in rows if row[3] is not None], names))
        packed = [_packed(some, own) for some, own in readers]
    total, padded = sum(row[1] for row in rows), not bool(attention.all())
    return Pass(owners, attention.shape[1], padded, total, critics, own_trunks, tuple(packed))


def _packed(rows: Sequence[MessageRow], owners: Sequence[str]) -> PackedTexts:
    """Return messages packed for their owners, as `token_logprobs.packed_of` does."""
    asked = [range(len(row[0]) - row[1] - 1, len(row[0]) - 1) for row in rows]
    return pack_texts([row[0] for row in rows], owners, asked, META)[0]
