"""`maporl export --push`: the model card, and uploads to a hub on this machine."""

from __future__ import annotations

import base64
import json
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import http_servers
import pytest
import yaml
from small_runs import SMALL, maporl

from maporl_agents.commands import model_card
from maporl_agents.config import TeamConfig
from maporl_agents.records.run_log import RunLog
from maporl_agents.records.storage import save_json
from maporl_agents.training import experiment


def turn(vote: float, agents: list[float]) -> dict[str, Any]:
    return {"vote": vote, "vote_interval": 0.04, "accuracy": agents}


def stage(vote: float) -> dict[str, Any]:
    return {"num_questions": 1234, "turns": [turn(0.2, [0.1, 0.3]), turn(vote, [0.5, 0.25])]}


RESULTS = {
    "before": {"sampled": stage(0.3), "greedy": stage(0.5)},
    "after": {"sampled": stage(0.875), "greedy": stage(0.55)},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the built-in models with a checkpoint and a final measurement."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    _, learner = experiment.build(SMALL)
    with RunLog.create(folder, SMALL):
        experiment.save_checkpoint(folder, 1, learner)
    save_json(folder / "results.json", RESULTS)
    save_json(folder / "questions.json", {"held-out": {"count": 1234, "sha256": "ab" * 32}})
    alarm = json.dumps({"step": 1, "name": "no signal", "where": "", "text": ""})
    (folder / "alarms.jsonl").write_text(f"{alarm}\n{alarm}\n", "utf-8")
    return folder


def pushed(run: Path, to: Path, *flags: str) -> int:
    return maporl("export", run, "--to", to, "--push", "me/debaters", *flags)


def parts_of(card: str) -> tuple[dict[str, Any], str]:
    _, metadata, text = card.split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_a_dry_run_writes_the_card_and_needs_no_network(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert pushed(run, tmp_path / "out", "--merge", "--dry-run") == 0
    assert "nothing was uploaded" in capsys.readouterr().out
    metadata, text = parts_of((tmp_path / "out" / "README.md").read_text("utf-8"))
    assert metadata["license"] == "mit"
    assert metadata["library_name"] == "transformers"
    metrics = [m for r in metadata["model-index"][0]["results"] for m in r["metrics"]]
    assert {m["value"] for m in metrics} == {0.875, 0.55}
    assert "| after training | sampled | 1,234 | 2 | 0.875 ± 0.040 | 0.500, 0.250 |" in text
    assert "Questions, held-out: 1,234 (SHA-256 abababababab...)" in text
    assert "(greedy) changed from 0.500 to 0.550: no gain" in text
    assert "(sampled) changed" not in text
    assert "Early warnings during training: no signal (2)" in text
    assert 'from_pretrained("me/debaters", subfolder="agent_0")' in text
    assert str(tmp_path) not in text
    assert str(run) not in text


def test_licences_and_paths_of_other_models() -> None:
    config = {
        "seed": 3,
        "steps": 7,
        "game": {
            "task": "/home/someone/mine.jsonl", "train_split": "", "num_agents": 2,
            "num_turns": 1, "protocol": "debate", "verifier": "learned:/home/someone/judge",
        },
        "team": {"model": ["Qwen/Qwen3-0.6B", "/home/someone/own"], "tuning": "lora"},
    }  # fmt: skip
    assert model_card.licence_of(config) == "other"
    assert model_card._base_models(config) == ["Qwen/Qwen3-0.6B"]
    assert "licences hold" in model_card._licence(config, "")
    assert "`apache-2.0`" in model_card._licence(config, "apache-2.0")
    written = json.dumps(model_card._public(config)) + model_card._sentence(config, ["a"], "x")
    assert "mine.jsonl" in written
    assert "learned:judge" in written
    assert "someone" not in written
    assert (
        model_card.public_name("judge:http://h:1/v1,rubric=/a/b/r.md")
        == "judge:http://h:1/v1,rubric=r.md"
    )


class Handler(http_servers.Handler):
    """The part of a hub that takes a new model and one commit."""

    server: Hub

    def do_POST(self) -> None:
        body = self.read()
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.server.refuses:
            self.send({"error": "no write access"}, 403)
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.send({"url": f"{self.server.origin}/me/debaters", "name": "me/debaters"})
        elif self.path == "/api/validate-yaml":
            self.send({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
            ]
            self.send({"files": files})
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content
            self.send(
                {
                    "commitOid": "0" * 40,
                    "commitUrl": f"{self.server.origin}/me/debaters/commit/{'0' * 40}",
                    "hookOutput": "",
                }
            )
        else:
            self.send({"error": self.path}, 404)

    def do_GET(self) -> None:
        self.send({"error": self.path}, 404)

    do_HEAD = do_GET


class Hub(http_servers.Server):
    def __init__(self, refuses: bool) -> None:
        super().__init__(Handler)
        self.refuses = refuses
        self.asked: list[tuple[str, str | None]] = []
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}


def hub(refuses: bool = False) -> AbstractContextManager[Hub]:
    return http_servers.running(Hub(refuses))


def test_a_push_uploads_every_file_of_the_export(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_real_one")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    out = tmp_path / "out"
    with hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.origin)
        assert pushed(run, out, "--merge", "--private", "--license", "apache-2.0") == 0
    assert re.search(r"pushed\s+http://127", capsys.readouterr().out)
    assert server.created[0]["name"] == "debaters"
    assert server.created[0].get("private") or server.created[0].get("visibility") == "private"
    here = {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()}
    assert server.files == here
    assert parts_of(here["README.md"].decode())[0]["license"] == "apache-2.0"
    assert any(name.endswith("/model.safetensors") for name in here)


def test_a_hub_that_refuses_or_is_silent_leaves_the_export(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with hub(refuses=True) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.origin)
        assert pushed(run, tmp_path / "out", "--merge") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "did not take me/debaters" in error
    assert "hf upload me/debaters" in error
    assert (tmp_path / "out" / "agent_0" / "model.safetensors").is_file()


def test_wrong_flags_are_refused_before_anything_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "out"
    for flags, complaint in (
        (("--push", "debaters"), "OWNER/NAME"),
        (("--push", "me/../you"), "OWNER/NAME"),
        (("--dry-run",), "belong to --push"),
        (("--license", "mit"), "belong to --push"),
    ):
        assert maporl("export", run, "--to", to, *flags) == 2
        assert complaint in " ".join(capsys.readouterr().err.split())
    assert not to.exists()


def test_adapters_of_a_base_in_a_folder_of_this_machine_are_not_pushed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    config = replace(SMALL, team=replace(TeamConfig(device="cpu"), tuning="lora"))
    _, learner = experiment.build(config)
    with RunLog.create(tmp_path / "run", config):
        experiment.save_checkpoint(tmp_path / "run", 1, learner)
    assert pushed(tmp_path / "run", tmp_path / "out", "--dry-run") == 2
    assert "add --merge" in " ".join(capsys.readouterr().err.split())
