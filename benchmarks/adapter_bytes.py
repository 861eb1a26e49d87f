"""Bytes that a vLLM server is sent when the weights have changed, over those of its base model.

    .venv/bin/python benchmarks/adapter_bytes.py
    .venv/bin/python benchmarks/adapter_bytes.py --agents 3 --rank 8 --shapes smollm2-135m

The base has no weights here (torch's device "meta"); its adapters are real. A version of them is
published as a run does it, and a server that only counts is asked to load each: it adds up the
request and every file of the folder that the request names. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from compared.material import save_tokenizer
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import LlamaConfig, Qwen2Config

from maporl_agents.config import TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.planning.sketch import load_sketch
from maporl_agents.play.vllm_client import VLLMClient
from maporl_agents.play.weight_sync import Published

SHAPES: Mapping[str, Any] = {
    "smollm2-135m": LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    ),
    "qwen2.5-0.5b": Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
    ),
    "qwen2.5-7b": Qwen2Config(
        vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28,
        num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False,
    ),
}  # fmt: skip
"""As the models' own config.json."""


class Counting(ThreadingHTTPServer):
    """A server that loads adapters as vLLM does, and only counts their bytes.

    Attributes:
        received: bytes of requests and of the files that these name.
        adapters: their number.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.received = self.adapters = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Counting

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = len(self.raw_requestline) + len(self.headers.as_bytes())
        folder = Path(json.loads(body)["lora_path"])
        files = sum(len(path.read_bytes()) for path in folder.iterdir())
        self.server.received += head + len(body) + files
        self.server.adapters += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def counting() -> Iterator[Counting]:
    """Run a counting server inside the block."""
    server = Counting()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def team_of(folder: Path, config: Any, *, agents: int, rank: int, dtype: str) -> Team:
    """Return a team with adapters on a base without weights.

    Args:
        folder: where the settings of the base are written.
        config: these settings.
        agents: number of adapters.
        rank: of each.
        dtype: of the base.
    """
    config.save_pretrained(folder)
    save_tokenizer(folder, config.vocab_size)
    settings = TeamConfig(
        model=(str(folder),), tuning="lora", lora_rank=rank, dtype=dtype, device="cpu"
    )
    team = make_team(
        settings, num_agents=agents, num_turns=1, seed=0, load=load_sketch, critics=False
    )
    for layer in team.bases[0].model.modules():
        if isinstance(layer, LoraLayer):
            for part in (*layer.lora_A.values(), *layer.lora_B.values()):
                part.weight = nn.Parameter(torch.zeros_like(part.weight, device="cpu"))
    return team


def base_bytes(team: Team) -> int:
    """Return the bytes of the weights that a server holds: the base without adapters."""
    model = team.bases[0].model
    return sum(
        weight.numel() * weight.element_size()
        for name, weight in model.named_parameters()
        if "lora_" not in name
    )


def published_bytes(team: Team, folder: Path) -> int:
    """Return the bytes that one server receives for one version of a team's adapters."""
    published = Published(team, folder, kept=1)
    with counting() as server:
        client = VLLMClient(server.url, timeout_seconds=60, retries=0)
        for adapter, name in published.add().names.items():
            client.load(name, published.folder / name, published.rank(adapter))
        assert server.adapters == len(published.adapters())
        return server.received


def row_of(name: str, given: argparse.Namespace) -> str:
    """Return a line of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        more = {"agents": given.agents, "rank": given.rank, "dtype": given.dtype}
        team = team_of(folder / "base", SHAPES[name], **more)
        sent, base = published_bytes(team, folder / "adapters"), base_bytes(team)
    each = sent / given.agents
    cells = (f"{base / 1e6:,.0f}", f"{sent / 1e6:,.1f}", f"{each / base:.2%}", f"{sent / base:.2%}")
    return f"| {name} | " + " | ".join(cells) + " |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=[*SHAPES])
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args(argv)
    print(f"{given.agents} adapters of rank {given.rank}, base in {given.dtype}\n")
    print("| base | base, MB | sent to a server, MB | one adapter | all |\n|---|---|---|---|---|")
    for name in given.shapes:
        print(row_of(name, given), flush=True)


if __name__ == "__main__":
    main()
