"""A model behind an OpenAI-compatible address, as a function `prompts -> texts`.

    model = Endpoint("http://127.0.0.1:8000/v1", model="my-model", parallel=16)
    env = gymnasium.make("maporl/Debate-v0", num_agents=2, partners=model)

vLLM, SGLang, llama.cpp, Ollama, and the hosted services speak this protocol: each prompt is one
`POST /chat/completions` with one user message, and its answer one choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

from maporl_env.reading.written_values import parts_behind
from maporl_env.services.api_keys import MODEL_KEY, key_from_environment
from maporl_env.services.http_json import Attempts, chat_service, completion_of


class Endpoint:
    """Asks a model for one text per prompt, several at a time.

    Args:
        url: up to and without `/chat/completions`, e.g. "http://127.0.0.1:8000/v1".
        model: the name the service knows the model by.
        system: a system message before every prompt; "" for none.
        options: further fields of the request, e.g. {"temperature": 0.7, "max_tokens": 300}.
        token: sent as a bearer token, to this address alone, and to another machine only by https;
            None takes $OPENAI_API_KEY, or none if that is empty; "" sends none.
        parallel: requests under way at the same time.
        timeout_seconds: for one attempt.
        retries: further attempts after the first, with pauses that double, or as long as the
            service asks for (at most a minute).
        pause_seconds: before the first repetition.

    Raises:
        ValueError: settings that cannot work.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        system: str = "",
        options: Mapping[str, Any] = MappingProxyType({}),
        token: str | None = None,
        parallel: int = 8,
        timeout_seconds: float = 120.0,
        retries: int = 2,
        pause_seconds: float = 0.5,
    ) -> None:
        self.model = model
        self.system = system
        self.options = dict(options)
        self.parallel = parallel
        token = (key_from_environment(MODEL_KEY) if token is None else token) or None
        attempts = Attempts(timeout_seconds, retries, pause_seconds)
        self.service = chat_service(
            url, "model", token, attempts, parallel=parallel, options=options
        )

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Return the model's answer to each prompt, in their order.

        Raises:
            RemoteTimeout: the last attempt of a request took too long.
            RemoteUnavailable: it failed otherwise.
            RemoteRefused: the service will not answer this (token, model, length).
            RemoteGarbage: its answer is no chat completion.
        """
        if not prompts:
            return []
        with ThreadPoolExecutor(min(self.parallel, len(prompts))) as pool:
            return list(pool.map(self._ask, prompts))

    def _ask(self, prompt: str) -> str:
        messages = [{"role": "user", "content": str(prompt)}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        request = {**self.options, "model": self.model, "messages": messages}
        answer = self.service.post(json.dumps(request).encode("ascii"))
        return completion_of(answer, self.service.name).text


PARTS = ("model", "temperature", "max_tokens")
"""What may stand behind the address of a named endpoint."""


def endpoint_named(written: str) -> Endpoint:
    """Return the endpoint of `URL,model=NAME`, and as wanted `,temperature=0.7,max_tokens=300`.

    Raises:
        ValueError: no address or model, a part that there is not, or one that is no number.
    """
    url, parts = parts_behind(written, PARTS, "an endpoint")
    if "model" not in parts:
        raise ValueError(f"an endpoint is named with its model: {url},model=NAME")
    options: dict[str, float] = {}
    try:
        if "temperature" in parts:
            options["temperature"] = float(parts["temperature"])
        if "max_tokens" in parts:
            options["max_tokens"] = int(parts["max_tokens"])
    except ValueError as error:
        raise ValueError(f"temperature and max_tokens of {url} are numbers: {error}") from error
    return Endpoint(url.strip(), parts["model"], options=options)
