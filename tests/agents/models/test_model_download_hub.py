"""`maporl fetch` from a hub that answers: a server on this machine in its place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import http_servers
import huggingface_hub
import pytest
from made_ggufs import origin_of, write_gguf

from maporl_agents.models.sources import model_download
from maporl_agents.models.sources.model_download import FETCHABLE, fetch

FILE = "mini.gguf"
REVISION = "0" * 40


class Hub(http_servers.Server):
    """A hub with one file; it remembers what was asked for."""

    def __init__(self, content: bytes, status: int) -> None:
        super().__init__(Answer)
        self.content, self.status = content, status
        self.asked: list[str] = []


class Answer(http_servers.Handler):
    server: Hub

    def do_HEAD(self) -> None:
        self.reply(with_body=False)

    def do_GET(self) -> None:
        self.reply(with_body=True)

    def reply(self, *, with_body: bool) -> None:
        hub = self.server
        hub.asked.append(f"{self.command} {self.path}")
        known = self.path == f"/somebody/mini-GGUF/resolve/{REVISION}/{FILE}"
        self.send_response(hub.status if known else 404)
        if known and hub.status == 200:
            self.send_header("ETag", f'"{hashlib.sha256(hub.content).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", str(len(hub.content)))
            self.end_headers()
            if with_body:
                self.wfile.write(hub.content)
        else:
            self.send_header("Content-Length", "0")
            self.end_headers()


@pytest.fixture(scope="module")
def file(checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / FILE, checkpoint("llama", templated=True))


@pytest.fixture
def start(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Return what starts a hub with some content, in the place of the real one."""
    made: list[Hub] = []
    monkeypatch.setitem(FETCHABLE, "mini", origin_of(file))
    monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def no_pip(*_: object, **__: object) -> None:
        raise AssertionError("pip was asked")

    def begin(content: bytes, status: int = 200) -> Hub:
        hub = Hub(content, status)
        made.append(hub)
        hub.start()
        address = hub.origin
        constants, template = huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE"
        usual = constants.HUGGINGFACE_CO_URL_TEMPLATE
        monkeypatch.setattr(constants, template, usual.replace(constants.ENDPOINT, address))
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(model_download, "_from_wheel", no_pip)
        return hub

    yield begin
    for hub in made:
        hub.stop()


def test_a_model_comes_from_the_hub(start, file: Path) -> None:
    hub = start(file.read_bytes())
    said: list[str] = []
    folder = fetch("mini", said.append)
    assert (folder / "model.safetensors").is_file()
    assert f"GET /somebody/mini-GGUF/resolve/{REVISION}/{FILE}" in hub.asked
    assert f"downloading {FILE} (a miniature) from somebody/mini-GGUF ..." in said
    asked = len(hub.asked)
    assert fetch("mini", said.append) == folder
    assert len(hub.asked) == asked  # it is there


def test_another_file_of_the_hub_is_refused_and_nothing_is_kept(start, tmp_path: Path) -> None:
    start(b"GGUF of somebody else")
    with pytest.raises(ValueError, match="so it is another file: nothing was kept"):
        fetch("mini", print)
    there = [path.name for path in (tmp_path / "cache").rglob("*")]
    assert [name for name in there if not name.startswith(".lock-")] == ["models"]


@pytest.mark.parametrize("status", [403, 404])
def test_a_hub_that_refuses_leads_to_pip(start, file: Path, status: int) -> None:
    start(file.read_bytes(), status)
    said: list[str] = []
    with pytest.raises(AssertionError, match="pip was asked"):
        fetch("mini", said.append)
    assert any(line.startswith("the hub did not give it: ") for line in said)
