"""API keys: where they are read from, where they may go, and what errors say of them."""

from __future__ import annotations

import pytest

from maporl_env.services.api_keys import (
    authorization_header,
    key_from_environment,
    require_encrypted,
    without_key,
)


def test_an_empty_variable_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "")
    assert key_from_environment("SOME_KEY") is None
    monkeypatch.setenv("SOME_KEY", "abc")
    assert key_from_environment("SOME_KEY") == "abc"
    assert key_from_environment("NO_SUCH_KEY") is None


def test_a_key_becomes_a_bearer_token() -> None:
    assert authorization_header(None) == {}
    assert authorization_header("abc") == {"Authorization": "Bearer abc"}


@pytest.mark.parametrize("key", ["", "abc\n", "a b", "ä"])
def test_what_can_be_no_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as error:
        authorization_header(key)
    assert not key or key not in str(error.value)


def test_a_key_is_cut_out_of_what_a_service_answers() -> None:
    assert without_key("no user abc, abc", "abc") == "no user (token), (token)"
    assert without_key("no user abc", None) == "no user abc"


def test_a_key_does_not_cross_the_network_in_plain_text() -> None:
    require_encrypted("abc", "the model", encrypted=True)
    require_encrypted(None, "the model", encrypted=False)
    with pytest.raises(ValueError, match="the model would cross") as error:
        require_encrypted("abc", "the model", encrypted=False)
    assert "abc" not in str(error.value)
