"""One server of vLLM's API: token ids in, token ids and log-probabilities out.

    server = VLLMClient("http://127.0.0.1:8000", timeout_seconds=600, retries=3)
    model = server.model()                       # GET  /v1/models
    server.load("agent_0@3-1f2e", folder)        # POST /v1/load_lora_adapter
    written = server.write(Ask(...))             # POST /v1/completions
    server.unload("agent_0@3-1f2e")              # POST /v1/unload_lora_adapter

Drops, late answers and 5xx are tried again (`http_json.Service`); 4xx is a refusal and is raised at
once with the server's words. What a server answers is checked before anything is made of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from maporl_agents.types import TokenIds
from maporl_env.services.http_json import (
    Attempts,
    RemoteError,
    RemoteGarbage,
    RemoteRefused,
    RemoteUnavailable,
    Service,
)

START = (
    "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and `vllm serve MODEL --enable-lora "
    "--logprobs-mode processed_logprobs`"
)
"""How a server must be started."""
_MAX_ANSWER_BYTES = 64_000_000
_ROUNDING = 1e-3
"""By which the log-probability of a certain token may exceed 0."""
_WHOLE_DISTRIBUTION = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "min_tokens": 0} | {
    f"{kind}_penalty": value
    for kind, value in {"repetition": 1.0, "presence": 0.0, "frequency": 0.0}.items()
}
"""All that a server may take from a model's own generation settings is said."""
_ONE_ANSWER_IN_IDS = {
    "n": 1,
    "stream": False,
    "ignore_eos": True,  # the ids that end a message are those of the team's chat template
    "include_stop_str_in_output": True,
    "skip_special_tokens": False,
    "logprobs": 0,
    "return_token_ids": True,
}


class Model(NamedTuple):
    """The base model of a server: its name there, and its window in tokens (None: not said)."""

    name: str
    window: int | None


class Ask(NamedTuple):
    """One message to be written; `stop_ids` end it, and so do `stops`, texts.

    `seed` names the random numbers, of servers that draw by it.
    """

    model: str
    prompt: TokenIds
    limit: int
    temperature: float
    seed: int
    stop_ids: Collection[int]
    stops: Sequence[str] = ()


class Written(NamedTuple):
    """The answer: sampled ids, their log-probabilities, and whether the limit ended them."""

    ids: TokenIds
    logprobs: tuple[float, ...]
    cut: bool


class VLLMClient:
    """A server of vLLM's API, shared by several threads.

    Args:
        url: `http://host:port`; a path is put before `/v1`, and a final `/v1` is left out.
        timeout_seconds: limit of one attempt.
        retries: further attempts.
        pause_seconds: before the second attempt; it doubles.
        token: API key, see `http_json.Service`.

    Attributes:
        name: "the vLLM server at http://...", for messages.
        lost: why it is not asked any more; "" while it is.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        retries: int,
        pause_seconds: float = 0.5,
        token: str | None = None,
    ) -> None:
        root = url.rstrip("/").removesuffix("/v1")

        attempts = Attempts(timeout_seconds, retries, pause_seconds)
        service = partial(
            Service,
            root,
            what="vLLM server",
            remedy="see that it runs and that its address is right (sampling.url)",
            token=token,
            attempts=attempts,
            max_answer_bytes=_MAX_ANSWER_BYTES,
        )
        self._models = service("/v1/models")
        self._completions = service("/v1/completions")
        self._load = service("/v1/load_lora_adapter")
        once = attempts._replace(retries=0, timeout_seconds=min(10.0, timeout_seconds))
        self._unload = service("/v1/unload_lora_adapter", attempts=once)
        self.name = self._models.name
        self.lost = ""

    def model(self) -> Model:
        """Return the base model that it holds.

        Raises:
            RemoteError: it does not answer, or names no model.
        """
        answer = self._json(self._models.get())
        try:
            base = next(one for one in answer["data"] if not one.get("parent"))
            window = base.get("max_model_len")
            return Model(str(base["id"]), None if window is None else int(window))
        except (KeyError, TypeError, ValueError, StopIteration, AttributeError) as error:
            raise RemoteGarbage(f"{self.name} names no model under /v1/models: {START}") from error

    def load(self, name: str, folder: Path, rank: int) -> None:
        """Load an adapter from a folder that the server sees under the same path.

        Raises:
            RemoteRefused: it loads none, or not this one; with its words.
            RemoteUnavailable: it does not answer, or fails (vLLM: 500 where it cannot load one).
        """
        try:
            self._load.post(_body(lora_name=name, lora_path=str(folder)))
        except (RemoteRefused, RemoteUnavailable) as error:
            if not error.status:
                raise
            if error.status == 404 and name not in str(error):
                why = f"it loads no adapters: {START}"
            else:
                why = (
                    f"it did not take the adapter {name!r} of rank {rank} from {folder}: it must "
                    f"see that folder (sampling.adapters) and allow the rank (--max-lora-rank "
                    f"{rank})"
                )
            found = type(error)(f"{error}; {why}")
            found.status = error.status
            raise found from error

    def unload(self, name: str) -> None:
        """Unload an adapter; no error if the server has lost it or does not answer."""
        try:
            self._unload.post(_body(lora_name=name))
        except RemoteError:
            return  # nothing is asked of this name any more

    def write(self, ask: Ask) -> Written:
        """Return a sampled message.

        Raises:
            RemoteRefused: it refused the request; with its words.
            RemoteGarbage: the answer is not what was asked for.
            RemoteError: it did not answer.
        """
        body = _body(
            model=ask.model,
            prompt=list(ask.prompt),
            max_tokens=ask.limit,
            temperature=ask.temperature,
            seed=ask.seed,
            stop_token_ids=sorted(ask.stop_ids),
            stop=list(ask.stops),
            **_WHOLE_DISTRIBUTION,
            **_ONE_ANSWER_IN_IDS,
        )
        return self._read(self._json(self._completions.post(body)), ask)

    def _json(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RemoteGarbage(f"{self.name} answered no JSON") from error

    def _read(self, answer: Any, ask: Ask) -> Written:
        """Return the message of an answer, once it is known to be one."""
        try:
            choice = answer["choices"][0]
            ids, read = choice.get("token_ids"), choice.get("prompt_token_ids")
            if ids is None:
                raise RemoteGarbage(
                    f"{self.name} gave no token ids (return_token_ids): it needs vLLM 0.10.2 or "
                    "newer"
                )
            logprobs = choice["logprobs"]["token_logprobs"]
            cut = choice.get("finish_reason") == "length"
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise RemoteGarbage(f"{self.name} answered in another form than vLLM's") from error
        if read is not None and list(read) != list(ask.prompt):
            raise RemoteGarbage(f"{self.name} read another prompt than it was sent: it cut it")
        self._require(_whole_numbers(ids), "ids that are no whole numbers")
        self._require(0 < len(ids) <= ask.limit, f"{len(ids)} tokens of at most {ask.limit}")
        same = isinstance(logprobs, list) and len(logprobs) == len(ids)
        self._require(same, "another number of log-probabilities than of tokens")
        self._require(all(map(_logarithm, logprobs)), "log-probabilities that are none")
        bounded = [min(float(one), 0.0) for one in logprobs]
        return Written(tuple(ids), tuple(bounded), cut)

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise RemoteGarbage(f"{self.name} answered {what}")


def without_answer(error: RemoteError) -> bool:
    """Whether an error means that a server is gone, and not that it refuses or talks nonsense."""
    return isinstance(error, RemoteUnavailable | TimeoutError)


def _whole_numbers(ids: Any) -> bool:
    return isinstance(ids, list) and all(type(one) is int and one >= 0 for one in ids)


def _logarithm(value: Any) -> bool:
    """Whether a value is the logarithm of a probability."""
    return type(value) in (int, float) and math.isfinite(value) and value <= _ROUNDING


def _body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()
