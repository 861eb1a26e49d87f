r"""An endpoint as agent: a served model debates with a function, nothing is trained.

    python examples/11_endpoint_as_agent.py --demo     # two seconds; starts a toy server by itself
    python examples/11_endpoint_as_agent.py --url http://127.0.0.1:8000/v1 --model my-model

You learn: that whatever answers an OpenAI-compatible `/chat/completions` (vLLM, SGLang, llama.cpp,
Ollama, hosted services) is an agent like any other; a key is read from $OPENAI_API_KEY. A server
that fails raises an error: it never turns into an empty message that would count as wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from maporl_env.bridges.endpoint import Endpoint
from maporl_env.bridges.speakers import play
from maporl_env.rendering import plain_text
from maporl_env.services.http_json import RemoteError
from maporl_env.types import Question

QUESTIONS = [
    Question("q1", "A pen costs 6 and a hat 8. How much are 3 pens and 2 hats?", "34"),
    Question("q2", "A cup costs 3 and a map 11. How much are 2 cups and 5 maps?", "61"),
]


def copycat(prompts: Sequence[str]) -> list[str]:
    """An agent that knows nothing, and says again what it read last."""
    read = [re.findall(r"boxed.(\d+)", prompt) or ["0"] for prompt in prompts]
    return [rf"\boxed{{{boxes[-1]}}}" for boxes in read]


class ToyModel(BaseHTTPRequestHandler):
    """Stands in for a language model behind an address: adds the bill up, in chat completions."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        p, q, n, m = map(int, re.findall(r"\d+", request["messages"][-1]["content"])[:4])
        text = rf"{n} * {p} + {m} * {q} = \boxed{{{n * p + m * q}}}"
        answer = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", action="store_true", help="start a toy server and ask that")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="up to /chat/completions")
    parser.add_argument("--model", default="my-model", help="the name the server knows it by")
    args = parser.parse_args()

    if args.demo:
        server = ThreadingHTTPServer(("127.0.0.1", 0), ToyModel)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        args.url = f"http://127.0.0.1:{server.server_port}/v1"

    model = Endpoint(args.url, args.model, options={"temperature": 0.7, "max_tokens": 300})
    try:
        played = play([model, copycat], QUESTIONS, num_turns=2)
    except RemoteError as error:
        parser.error(str(error))
    for transcript, debate in zip(played.transcripts, played.debates, strict=True):
        print(plain_text.heading(transcript.question) + plain_text.lines(transcript.messages))
        votes = " or ".join(map(str, debate.outcome()))
        print(f"the team answers {votes}; the key is {transcript.question.answer}\n")


if __name__ == "__main__":
    main()
