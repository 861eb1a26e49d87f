"""The verifier service under load: what it answers, how fast, and whether its memory grows.

    .venv/bin/python benchmarks/verifier_service.py      # about a minute on 2 cores; Linux

Starts `maporl verifier serve key` as a process of its own and sends it as many malformed as valid
requests over many connections, from threads of this process. Scoring by key costs next to nothing,
so the times are those of the service (and of this client, which shares the cores).
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

MALFORMED = [b"", b"{", b"[" * 5000, b'{"questions": [], "responses": ["a"]}', b"\xff\xfe", b"null"]


def resident_mib(process: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def valid(index: int) -> tuple[bytes, list[float]]:
    """Return a request whose scores belong to it alone: the bits of its number."""
    bits = [float(index >> place & 1) for place in range(14)]
    question = {"prompt": "?", "answer": "1"}
    texts = [f"\\boxed{{{int(bit)}}}" for bit in bits]
    return json.dumps({"questions": [question] * 14, "responses": texts}).encode(), bits


class Load:
    """Requests sent from several threads, and their results."""

    def __init__(self, port: int, number: int, connections: int) -> None:
        self.port = port
        self.number = number
        self.connections = connections
        self.wrong = 0
        self.seconds: list[float] = []

    def run(self) -> float:
        """Send everything; return the seconds it took."""
        start = time.perf_counter()
        threads = [threading.Thread(target=self.work, args=(i,)) for i in range(self.connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start

    def work(self, me: int) -> None:
        """Send every `connections`-th request over one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        order = [(i, kind) for i in range(me, self.number, self.connections) for kind in (0, 1)]
        random.Random(me).shuffle(order)
        for index, kind in order:
            body, bits = valid(index) if kind else (MALFORMED[index % len(MALFORMED)], [])
            start = time.perf_counter()
            connection.request("POST", "/score", body)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            self.seconds.append(time.perf_counter() - start)
            fine = (answer.status, content) == (200, {"scores": bits})
            self.wrong += not (fine if kind else answer.status == 400 and "error" in content)
        connection.close()


def report(name: str, load: Load, memory: float) -> None:
    """Print one line."""
    took = load.run()
    load.seconds.sort()
    half, late = (load.seconds[int(len(load.seconds) * share)] * 1000 for share in (0.5, 0.99))
    print(
        f"{name}: {len(load.seconds)} requests, {load.connections} connections, {took:.1f} s, "
        f"{load.wrong} answered wrongly; median {half:.1f} ms, 99 % within {late:.1f} ms; "
        f"service {memory:.0f} MiB before",
        flush=True,
    )


def main() -> None:
    """Start the service, load it, stop it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=10_000, help="valid ones; as many malformed")
    parser.add_argument("--connections", type=int, default=64)
    args = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["verifier", "serve", "key", "--port", str(port)]
    service = subprocess.Popen([sys.executable, "-m", "maporl_agents.cli", *command])
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.2)
        report("warm-up", Load(port, 500, args.connections), resident_mib(service.pid))
        report("one by one", Load(port, 500, 1), resident_mib(service.pid))
        report("all at once", Load(port, args.number, args.connections), resident_mib(service.pid))
        print(f"service {resident_mib(service.pid):.0f} MiB after")
    finally:
        service.terminate()
        service.wait()


if __name__ == "__main__":
    main()
