"""The compose file of a trainer and two servers: flags exist, addresses and paths meet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from maporl_agents.cli import _command
from maporl_agents.commands.train import Train
from maporl_agents.play.vllm_client import START

FOLDER = Path(__file__).parents[3] / "deploy" / "compose"
SET = {"MODEL": "some/model"}
VLLM_FLAGS = {
    *("--enable-lora", "--max-lora-rank", "--max-loras", "--max-cpu-loras", "--logprobs-mode"),
    *("--generation-config", "--host", "--port"),
}
"""Options of `vllm serve` 0.32 that the file may use."""


def filled(text: str) -> str:
    """Return a text with its variables replaced, as compose does: ${NAME}, ${NAME:-value}."""

    def value(match: re.Match[str]) -> str:
        name, mark, given = match[1], match[2], match[3]
        if name in SET:
            return SET[name]
        assert mark == ":-", f"{name} has no value"
        return given

    return re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", value, text)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(filled((FOLDER / "compose.yaml").read_text()))
    return found["services"]


def servers(services: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in services.items() if name != "trainer"}


def trained(services: dict[str, Any]) -> Train:
    words = services["trainer"]["command"]
    assert words[0] == "maporl"
    made = _command(words[1:])
    assert isinstance(made, Train)
    return made


def test_the_trainers_flags_make_a_served_run(services: dict[str, Any]) -> None:
    config = trained(services).config
    assert config.sampling.engine == "vllm"
    assert config.team.tuning == "lora"
    assert config.team.model == ("some/model",)


def test_it_asks_both_servers_at_their_addresses(services: dict[str, Any]) -> None:
    ports = {
        name: next(w for w in one["command"] if w.startswith("--port=")).partition("=")[2]
        for name, one in servers(services).items()
    }
    assert len(ports) == 2
    assert trained(services).config.sampling.url == tuple(
        f"http://{name}:{port}" for name, port in ports.items()
    )
    assert set(services["trainer"]["depends_on"]) == set(ports)


def test_servers_are_started_as_the_client_asks_for(services: dict[str, Any]) -> None:
    config = trained(services).config
    for one in servers(services).values():
        model, *words = one["command"]
        flags = dict(word.partition("=")[::2] for word in words)
        assert model == config.team.model[0]
        assert set(flags) <= VLLM_FLAGS
        assert int(flags["--max-lora-rank"]) >= config.team.lora_rank
        assert int(flags["--max-loras"]) >= config.game.num_agents * (1 + config.sampling.lag)
        assert one["environment"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
        for word in re.findall(r"--[\w-]+", START):
            assert word in flags


def test_adapters_lie_under_the_same_path_for_all(services: dict[str, Any]) -> None:
    folder = trained(services).config.sampling.adapters
    for name, one in services.items():
        mounts = dict(mount.split(":")[:2] for mount in one["volumes"])
        assert mounts["adapters"] == folder, name


def test_each_has_a_gpu_of_its_own(services: dict[str, Any]) -> None:
    ids = [
        one["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for one in services.values()
    ]
    assert sorted(each for [each] in ids) == ["0", "1", "2"]


def test_the_trainers_image_has_what_the_package_is_built_from() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    root = FOLDER.parents[1]
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.M) for word in line.split()[:-1]]
    assert copied
    assert all((root / name).exists() for name in copied)
    assert '"/src[train]"' in text
