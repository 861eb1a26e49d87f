"""The learned verifier model: base model, adapter, and a linear head with one output.

    score(question, response) = sigmoid(head(state at the last token of the response))

The response is what was written, closed by the EOS token, so that it has a last token even when it
is empty. Training and scoring build their ids in one place, `LearnedVerifier.row`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maporl_agents import tiny
from maporl_agents.config import from_dict
from maporl_agents.models.bases import Base, FullBase, window_of
from maporl_agents.models.loading import Load, load_model
from maporl_agents.models.loading_check import check
from maporl_agents.models.sources.model_download import local_name
from maporl_agents.models.trunk import ANOTHER_MODEL, width_of
from maporl_agents.records import storage
from maporl_agents.records.storage import CheckpointError
from maporl_agents.types import TokenIds
from maporl_agents.verifier.config import VerifierConfig
from maporl_env.prompts import Template, opening
from maporl_env.types import Question

POLICY = "verifier"
"""Name of the adapter, and of the folder of the weights."""

MAX_ROWS = 64
"""The most answers in one forward pass of scoring; with `MAX_TOKENS` bounds memory."""
MAX_TOKENS = 32_768
"""The most tokens in it, padding included; a longer answer goes alone."""
MAX_TOKENS_ON_CPU = 2_048
"""The same on a processor, whose caches then hold the activations: twice as fast as `MAX_TOKENS`
for a model of 135 M parameters in bfloat16, the same for it in float32."""


class Row(NamedTuple):
    """One question and answer as token ids."""

    prompt: TokenIds
    response: TokenIds


class LearnedVerifier:
    """A language model that scores answers; a `maporl_env.verifiers.Verifier`.

    Args:
        config: its settings.
        template: the words around a question, the same in training and in service.
        seed: names the first weights of the adapter. The head begins at 0: every score is 0.5.
        load: where the model comes from.

    Raises:
        ValueError: the base cannot be loaded.
    """

    def __init__(
        self,
        config: VerifierConfig,
        template: Template | None = None,
        *,
        seed: int = 0,
        load: Load = load_model,
    ) -> None:
        self.config = config
        self.template = template if template is not None else Template()
        self.base = _make_base(config, seed, load)
        check(self.base, [POLICY], ANOTHER_MODEL)
        width = width_of(self.base.model)
        self.head = nn.utils.skip_init(nn.Linear, width, 1, device=self.base.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters of adapter (or model) and head, by name."""
        head = {f"head.{name}": p for name, p in self.head.named_parameters()}
        return self.base.trainable(POLICY) | head

    def row(self, question: Question, response: str) -> Row:
        """Return the ids of a question and an answer to it.

        Both are encoded as foreign text: nothing in them becomes a control token,
        and the answer's share of the ids depends on nothing but its text.
        """
        chat = self.base.chat
        prompt = chat.prompt_ids((("user", opening(self.template, question)),))
        return Row(prompt, (*chat.encode(response), chat.tokenizer.eos_token_id))

    def fits(self, row: Row) -> bool:
        """Whether an answer, with its question, fits the window of the model."""
        window = window_of(self.base.model) or math.inf
        return length_of(row) <= window

    def logits(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Return the head's output (N, S) float32, and (N, S) True where a response token stands.

        Rows are flush left; other positions hold undefined values.
        """
        hidden, columns = self._hidden(rows)
        starts = torch.tensor([len(row.prompt) for row in rows])
        lengths = torch.tensor([length_of(row) for row in rows])
        response = (columns >= starts[:, None]) & (columns < lengths[:, None])
        return self.head(hidden.float()).squeeze(-1), response.to(hidden.device)

    def _hidden(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Return the states (N, S, H) of rows flush left, and the column of each place, (N, S)."""
        texts = [row.prompt + row.response for row in rows]
        lengths = torch.tensor([len(text) for text in texts])
        ids = torch.full((len(rows), int(lengths.max())), self.base.chat.pad_id)
        for i, text in enumerate(texts):
            ids[i, : len(text)] = torch.tensor(text)
        columns = torch.arange(ids.shape[1]).expand_as(ids)
        real = (columns < lengths[:, None]).long()
        device = self.base.device
        hidden = self.base.hidden(
            ids.to(device), real.to(device), columns.to(device), [POLICY] * len(rows)
        )
        return hidden, columns

    @torch.inference_mode()
    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return one score in [0, 1] per response, None where it does not fit the window."""
        rows = [self.row(q, text) for q, text in zip(questions, responses, strict=True)]
        scores: list[float | None] = [None] * len(rows)
        order = [i for i, row in enumerate(rows) if self.fits(row)]
        order.sort(key=lambda i: length_of(rows[i]))
        most = MAX_TOKENS_ON_CPU if self.base.device.type == "cpu" else MAX_TOKENS
        for chosen in passes(order, [length_of(row) for row in rows], most):
            for i, score in zip(chosen, self._last([rows[i] for i in chosen]), strict=True):
                scores[i] = score
        return scores

    def _last(self, rows: Sequence[Row]) -> list[float]:
        hidden, _ = self._hidden(rows)
        ends = torch.tensor([length_of(row) - 1 for row in rows], device=hidden.device)
        last = hidden[torch.arange(len(rows), device=hidden.device), ends]
        return [float(score) for score in self.head(last.float())[:, 0].sigmoid()]

    def save(self, folder: Path, report: dict[str, Any] | None = None) -> None:
        """Write the verifier into a folder that is new or empty.

        Args:
            folder: receives `verifier.json`, written last, the head, and the weights.
            report: JSON-ready facts about its training, kept in `verifier.json`.

        Raises:
            ValueError: the folder has something in it.
        """
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty: name a new folder for the verifier")
        folder.mkdir(parents=True, exist_ok=True)
        self.base.save(folder)
        storage.save_tensors(folder / "head.safetensors", dict(self.head.state_dict()))
        about = {
            "config": asdict(_findable(self.config)),
            "template": asdict(self.template),
            "report": report or {},
        }
        storage.save_json(folder / "verifier.json", about)

    @classmethod
    def load(cls, folder: Path, device: str | None = None) -> LearnedVerifier:
        """Read what `save` wrote.

        Args:
            folder: of the verifier.
            device: where it is to run; None for what it was saved with.

        Raises:
            ValueError: the folder is no verifier, or its base is missing.
            CheckpointError: a file is damaged, or weights are missing, unknown or misshapen.
        """
        config, template = read_settings(folder)
        verifier = cls(_with(config, device=device or config.device), template)
        verifier._read(folder)
        return verifier

    def _read(self, folder: Path) -> None:
        """Load all saved weights, or none and raise."""
        own = self.head.state_dict()
        saved = storage.load_tensors(folder / "head.safetensors")
        if {n: w.shape for n, w in saved.items()} != {n: w.shape for n, w in own.items()}:
            raise CheckpointError(f"{folder}: the head does not fit the model's states")
        try:
            pairs = self.base.read(folder)
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{folder} does not fit its base: {error}") from error
        with torch.no_grad():
            for weight, given in [*pairs, *((own[name], saved[name]) for name in own)]:
                weight.copy_(given)
        self.base.refresh()


def length_of(row: Row) -> int:
    """Return the number of tokens of a question and its answer together."""
    return len(row.prompt) + len(row.response)


def passes(order: Sequence[int], lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Cut rows, the shortest first, into batches of at most `MAX_ROWS` and of `most` tokens."""
    part: list[int] = []
    for row in order:
        if part and (len(part) == MAX_ROWS or (len(part) + 1) * lengths[row] > most):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def read_settings(folder: Path) -> tuple[VerifierConfig, Template]:
    """Return the settings and the template of a saved verifier; reads no weights.

    Raises:
        ValueError: the folder is no verifier.
        CheckpointError: its `verifier.json` is damaged.
    """
    path = folder / "verifier.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} is no verifier: it has no verifier.json; make one with "
            "`maporl verifier train`"
        )
    about = storage.load_json(path)
    try:
        config = from_dict(VerifierConfig, about["config"])
        template = Template(**about["template"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not describe a verifier: {error}") from error
    if config.tuning == "full":
        config = _with(config, model=str(folder / POLICY))
    return config, template


def _findable(config: VerifierConfig) -> VerifierConfig:
    """Return the settings with the absolute path of the base model's folder."""
    folder = Path(config.model)
    return _with(config, model=str(folder.resolve())) if folder.is_dir() else config


def _with(config: VerifierConfig, **changes: Any) -> VerifierConfig:
    return VerifierConfig(**{**asdict(config), **changes})


def _make_base(config: VerifierConfig, seed: int, load: Load) -> Base:
    name = str(tiny.checkpoint(0)) if config.model == "tiny" else local_name(config.model)
    model, chat = load(name, config.team())
    recompute = config.gradient_checkpointing
    if config.tuning == "full":
        return FullBase(
            model, chat, [POLICY], trained=True, reference=model, gradient_checkpointing=recompute
        )
    from maporl_agents.models.lora import LoraBase, lora_settings  # with peft, slow to import

    lora = lora_settings(config.lora_rank, config.lora_alpha)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LoraBase(model, chat, [POLICY], lora, gradient_checkpointing=recompute)
