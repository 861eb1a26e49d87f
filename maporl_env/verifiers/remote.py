"""A verifier that runs elsewhere, asked over HTTP: the client of ``maporl verifier serve``.

    verifier = RemoteVerifier("http://127.0.0.1:8000")
    scores = verifier.score(questions, responses)

One request is `POST /score` with `{"questions": [{"id", "prompt", "kind"}], "responses": [...]}`;
the answer is `{"scores": [...]}`: one number in [0, 1] per response, null where there is none. A
question that has a reference for verifiers brings it as "hidden"; private texts are never sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from maporl_env.services.http_json import (
    Attempts,
    RemoteGarbage,
    Service,
    require_number,
)
from maporl_env.types import Question


class RemoteVerifier:
    """Scores answers by asking a service. Several threads may share one.

    Attempts, pauses and limits are those of `http_json.Service`; an answer of the wrong form is not
    asked for again. A call takes at most ceil(n / max_items) * (retries + 1) * timeout_seconds and
    the pauses.

    Args:
        url: `http://host:port` or `https://...` of the service; a path is put before `/score`.
        token: bearer token, see `http_json.Service`.
        timeout_seconds: limit for one attempt, see `http_json.Service`.
        retries: number of attempts after the first.
        pause_seconds: pause before the second attempt.
        max_items: responses per request; more are sent in several requests, in order.
        send_answers: also send the gold answers, for a service that works by the key.

    Raises:
        ValueError: settings that cannot work.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_seconds: float = 30.0,
        retries: int = 2,
        pause_seconds: float = 0.2,
        max_items: int = 256,
        send_answers: bool = False,
    ) -> None:
        require_number("max_items", max_items, above=0)
        self.service = Service(
            url,
            "/score",
            what="verifier",
            remedy="start it with `maporl verifier serve`, or correct the address",
            token=token,
            attempts=Attempts(timeout_seconds, retries, pause_seconds),
        )
        self.url = url
        self.max_items = max_items
        self._fields = ("id", "prompt", "kind", *(("answer",) if send_answers else ()))

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float | None]:
        """Return one score per response, None where the service has none.

        Raises:
            RemoteTimeout: the last attempt took too long.
            RemoteUnavailable: the last attempt failed otherwise.
            RemoteRefused: the service will not answer this.
            RemoteGarbage: its answer is no list of scores.
        """
        pairs = list(zip(questions, responses, strict=True))
        scores: list[float | None] = []
        for start in range(0, len(pairs), self.max_items):
            part = pairs[start : start + self.max_items]
            scores += _scores(self.service.post(self._body(part)), len(part), self.url)
        return scores

    def _body(self, pairs: Sequence[tuple[Question, str]]) -> bytes:
        questions = [self._told(question) for question, _ in pairs]
        request = {"questions": questions, "responses": [str(text) for _, text in pairs]}
        return json.dumps(request).encode("ascii")

    def _told(self, question: Question) -> dict[str, str]:
        """Return the fields of a question that are sent; `hidden` is made for verifiers."""
        fields = {name: getattr(question, name) for name in self._fields}
        return {**fields, "hidden": question.hidden} if question.hidden else fields


def _scores(content: bytes, count: int, url: str) -> list[float | None]:
    try:
        scores = json.loads(content)["scores"]
        if not isinstance(scores, list):
            raise TypeError("scores is no list")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RemoteGarbage(f'{url} answered without {{"scores": [...]}}: {error}') from error
    if len(scores) != count:
        raise RemoteGarbage(f"{url} answered {len(scores)} scores for {count} responses")
    return [_sound(score, url) for score in scores]


def _sound(score: Any, url: str) -> float | None:
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise RemoteGarbage(
            f"{url} answered the score {str(score)[:40]}: it is no number in [0, 1]"
        )
    return float(score)
