"""API keys (bearer tokens) of services: read from the environment, kept out of errors and logs.

A key is never among the settings of a run, so no run folder holds it. It goes to one address alone
(redirects are not followed, see `http_json.Service`), to another machine only by https, and is cut
out of what a service answers before that stands in an error.
"""

from __future__ import annotations

import os

MODEL_KEY = "OPENAI_API_KEY"
"""Environment variable with the key of an OpenAI-compatible server, see `bridges.endpoint`."""
SERVER_KEY = "MAPORL_SERVER_TOKEN"
"""Environment variable with the key of the vLLM servers that write messages in training."""
VERIFIER_KEY = "MAPORL_VERIFIER_TOKEN"
"""Environment variable with the token of a remote verifier or judge."""

HIDDEN = "(token)"


def key_from_environment(variable: str) -> str | None:
    """Return the key that an environment variable holds; None if it is empty or not set."""
    return os.environ.get(variable) or None


def authorization_header(key: str | None) -> dict[str, str]:
    """Return the header of a request with a key, none without; ValueError if it can be no key."""
    if key is None:
        return {}
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("a token is printable ASCII without spaces: look for a stray line end")
    return {"Authorization": f"Bearer {key}"}


def require_encrypted(key: str | None, service: str, *, encrypted: bool) -> None:
    """Raise ValueError if a key would cross the network in plain text.

    Args:
        key: None for a service that asks for none.
        service: its name, for the error.
        encrypted: whether it is asked by https, or is on this machine.
    """
    if key is not None and not encrypted:
        raise ValueError(
            f"the token for {service} would cross the network in plain text: use https://, "
            "a tunnel to 127.0.0.1, or no token"
        )


def without_key(text: str, key: str | None) -> str:
    """Return a text for errors and logs without the key, should a service have repeated it."""
    return text.replace(key, HIDDEN) if key else text
