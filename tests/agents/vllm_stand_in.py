"""A server with the contract of vLLM's API, over real HTTP, for tests: transformers and peft speak.

It loads and unloads adapters from folders, takes token ids and gives token ids, draws by the seed
of a request, and can be told to fail in the ways servers do (`Faults`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import http_servers
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from maporl_agents.models.uniforms import draw, uniforms

Answer = tuple[int, Any]


@dataclass
class Faults:
    """What goes wrong; counts are used up.

    Attributes:
        drops: completions whose connection is closed without an answer.
        status: completions that are answered with `code` and the words `words`.
        slow: completions that are not answered before `release` is called.
        stale: adapters speak as the version before, where there is one.
        skips: adapters are "loaded" and then speak as the base.
        mixes: every adapter speaks as another agent's of the same version.
        no_lora: there is no address to load adapters at.
        max_rank: largest rank that is loaded.
        raw: log-probabilities at temperature 1, whatever the temperature.
        dies_after: completions after which the server is gone; None: it stays.
        forgets_after: completions after which all adapters are forgotten, as by a restart.
        spoil: changes an answer before it is sent.
        before: called with each request for a completion before it is answered.
    """

    drops: int = 0
    status: int = 0
    code: int = 503
    words: str = "engine is busy"
    slow: int = 0
    stale: bool = False
    skips: bool = False
    mixes: bool = False
    no_lora: bool = False
    max_rank: int = 64
    raw: bool = False
    dies_after: int | None = None
    forgets_after: int | None = None
    spoil: Callable[[dict[str, Any]], Any] | None = None
    before: Callable[[Mapping[str, Any]], None] | None = None


class StandIn:
    """The server's state: a model, its adapters, and what was asked.

    Attributes:
        url: address.
        faults: what goes wrong; may be changed while it runs.
        asked: bodies of all requests for completions, answered or not.
        loaded: names of adapters in the order of loading.
        unloaded: likewise.
    """

    def __init__(self, folder: Path, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.asked: list[dict[str, Any]] = []
        self.loaded: list[str] = []
        self.unloaded: list[str] = []
        self.release = threading.Event()
        self._base: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self._decode: Callable[[list[int]], str] = lambda ids: tokenizer.decode(
            ids, clean_up_tokenization_spaces=False
        )
        self._peft: PeftModel | None = None
        self._speaks_as: dict[str, str | None] = {}
        self._lock = threading.Lock()
        self._answered = 0
        self._http = _Http(self)
        self.url = self._http.origin

    # -- addresses ---------------------------------------------------------------------------

    def models(self) -> Answer:
        own = {"id": "served", "object": "model", "parent": None, "max_model_len": 2048}
        adapters = [{"id": name, "parent": "served"} for name in self._speaks_as]
        return 200, {"object": "list", "data": [*adapters, own]}

    def load(self, body: Mapping[str, Any]) -> Answer:
        name, folder = body["lora_name"], Path(body["lora_path"])
        if self.faults.no_lora:
            return 404, {"detail": "Not Found"}
        with self._lock:
            if name in self._speaks_as:
                return _error(400, f"The lora adapter '{name}' has already been loaded.")
            if not (folder / "adapter_config.json").is_file():
                return _error(404, f"Loading lora {name} failed: no adapter found for {folder}")
            rank = json.loads((folder / "adapter_config.json").read_text())["r"]
            if rank > self.faults.max_rank:
                limit = self.faults.max_rank
                return _error(500, f"LoRA rank {rank} is greater than max_lora_rank {limit}.")
            self._take(name, folder)
        self.loaded.append(name)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _take(self, name: str, folder: Path) -> None:
        if self._peft is None:
            self._peft = PeftModel.from_pretrained(self._base, str(folder), adapter_name=name)
        else:
            self._peft.load_adapter(str(folder), adapter_name=name)
        policy = name.partition("@")[0]
        before = [one for one in self.loaded if one.partition("@")[0] == policy]
        spoken: str | None = name
        if self.faults.skips:
            spoken = None
        elif self.faults.stale and before:
            spoken = self._speaks_as.get(before[-1], before[-1])
        self._speaks_as[name] = spoken

    def unload(self, body: Mapping[str, Any]) -> Answer:
        name = body["lora_name"]
        with self._lock:
            if self._speaks_as.pop(name, "") == "":
                return _error(404, f"The lora adapter '{name}' cannot be found.")
        self.unloaded.append(name)
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    def completions(self, body: dict[str, Any]) -> Answer | None:
        """Return the answer; None closes the connection."""
        faults = self.faults
        with self._lock:
            self.asked.append(body)
            number = len(self.asked)
        if faults.before is not None:
            faults.before(body)
        if faults.dies_after is not None and number > faults.dies_after:
            threading.Thread(target=self.stop).start()
            return None
        if faults.drops > 0:
            faults.drops -= 1
            return None
        if faults.status > 0:
            faults.status -= 1
            return _error(faults.code, faults.words)
        if faults.slow > 0:
            faults.slow -= 1
            self.release.wait()
            return None
        with self._lock:
            if faults.forgets_after is not None and number > faults.forgets_after:
                faults.forgets_after = None
                self._speaks_as.clear()
            if body["model"] not in ("served", *self._speaks_as):
                return _error(404, f"The model `{body['model']}` does not exist.")
            answer = self._written(body)
        return 200, answer if faults.spoil is None else faults.spoil(answer)

    # -- the model ---------------------------------------------------------------------------

    @torch.no_grad()
    def _written(self, body: Mapping[str, Any]) -> dict[str, Any]:
        heat, prompt = body["temperature"], list(body["prompt"])
        numbers = torch.from_numpy(uniforms([body["seed"]], body["max_tokens"]))[0]
        ids: list[int] = []
        logprobs: list[float] = []
        reason = "length"
        for number in numbers:
            logits = self._logits(body["model"], [*prompt, *ids])[-1:].float()
            drawn = (logits / heat if heat else logits).log_softmax(-1)
            token = int(draw(drawn, number[None]) if heat else drawn.argmax(-1))
            told = logits.log_softmax(-1) if self.faults.raw else drawn
            ids.append(token)
            logprobs.append(float(told[0, token]))
            text = self._decode(ids)
            if token in body["stop_token_ids"] or any(stop in text for stop in body["stop"]):
                reason = "stop"
                break
        choice: dict[str, Any] = {
            "index": 0,
            "text": self._decode(ids),
            "finish_reason": reason,
            "logprobs": {"token_logprobs": logprobs, "tokens": [], "text_offset": []},
        }
        if body.get("return_token_ids"):
            choice |= {"token_ids": ids, "prompt_token_ids": prompt}
        return {"id": "cmpl-1", "object": "text_completion", "choices": [choice]}

    def _logits(self, name: str, ids: list[int]) -> Tensor:
        text = torch.tensor([ids])
        adapter = self._speaks_as.get(name)
        if self._peft is None:
            return self._base(input_ids=text).logits[0]
        if adapter is None:
            with self._peft.disable_adapter():
                return self._peft(input_ids=text).logits[0]
        if self.faults.mixes:
            policy, number = adapter.split("-")[0].split("@")
            others = (one.split("-")[0].split("@") for one in self._speaks_as)
            other = next(p for p, n in others if n == number and p != policy)
            adapter = next(one for one in self._speaks_as if one.startswith(f"{other}@{number}-"))
        self._peft.set_adapter(adapter)
        return self._peft(input_ids=text).logits[0]

    # -- life --------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the server; connections are refused from then on."""
        self.release.set()
        self._http.stop()


class _Http(http_servers.Server):
    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        super().__init__(_Handler)
        self.start()


class _Handler(http_servers.Handler):
    server: _Http

    def do_GET(self) -> None:
        known = self.path == "/v1/models"
        self._answer(self.server.stand_in.models() if known else (404, {"detail": "Not Found"}))

    def do_POST(self) -> None:
        body = json.loads(self.read())
        here = self.server.stand_in
        work = {
            "/v1/completions": here.completions,
            "/v1/load_lora_adapter": here.load,
            "/v1/unload_lora_adapter": here.unload,
        }
        self._answer(work[self.path](body) if self.path in work else (404, {"detail": "Not Found"}))

    def _answer(self, answer: Answer | None) -> None:
        if answer is None:
            self.close_connection = True
            return
        status, content = answer
        self.send(content, status)


def _error(code: int, words: str) -> Answer:
    return code, {"error": {"message": words, "type": "BadRequestError", "code": code}}


@contextmanager
def running(folder: Path, faults: Faults | None = None) -> Iterator[StandIn]:
    """Run a server of the model in a folder inside the block."""
    server = StandIn(folder, faults)
    try:
        yield server
    finally:
        server.stop()
