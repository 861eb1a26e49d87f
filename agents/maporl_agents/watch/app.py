"""The web server of a watched debate.

    GET  /TOKEN/           the page
    GET  /TOKEN/version    {"version": N}, as soon as it is another one than `after`
    POST /TOKEN/act        a decision, as a form

Without the token every path is a 403 with one sentence. Nothing is loaded from elsewhere, and
paths, which hold the token, stand in no log.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import socket
import time
from collections.abc import Callable
from importlib.resources import files
from urllib.parse import parse_qs, urlencode

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maporl_agents.verifier.serve import make_server, read_body
from maporl_agents.verifier.service_queue import Limits, Refusal
from maporl_agents.watch.page import Visit, page
from maporl_agents.watch.session import Refused, Session

STATIC = files("maporl_agents.watch") / "static"
TYPES = {"watch.css": "text/css", "watch.js": "text/javascript"}
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
NO_TOKEN = "This page opens only by the whole address, with its token, that `maporl watch` printed."
WAIT_SECONDS = 20.0
"""The longest time that a browser waits for news in one request."""
LIMITS = Limits(answer_seconds=30.0)


def make_app(
    session: Session,
    token: str,
    *,
    who: str = "",
    show_private: bool = False,
    stopping: Callable[[], bool] = bool,
) -> ASGIApp:
    """Return the page as an ASGI application.

    Args:
        session: the debate.
        token: the first part of every path.
        who: the name that decisions are recorded under, until a visitor gives another.
        show_private: see `page`.
        stopping: whether the server is to stop: then nobody is kept waiting.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(Exception)
    async def failed(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse("The page could not be made; nothing was lost.\n", 500)

    def shown(visit: Visit, status: int = 200) -> HTMLResponse:
        with session.changed:
            return HTMLResponse(page(session, visit, show_private=show_private), status)

    @app.get("/")
    async def show(request: Request) -> HTMLResponse:
        name = request.query_params.get("who", who)
        return await run_in_threadpool(shown, Visit(name))

    @app.get("/version")
    async def version(after: int = -1) -> JSONResponse:
        until = time.monotonic() + WAIT_SECONDS
        while session.version == after and time.monotonic() < until and not stopping():
            await asyncio.sleep(0.1)
        return JSONResponse({"version": session.version})

    @app.post("/act")
    async def act(request: Request) -> Response:
        form: dict[str, str] = {}
        try:
            form = _form(await read_body(request, LIMITS))
            await run_in_threadpool(_act, session, form, who)
        except Refusal as error:
            return PlainTextResponse(f"{error.message}\n", error.status)
        except Refused as refused:
            typed = tuple(filter(None, (form.get("text", ""), form.get("note", ""))))
            visit = Visit(form.get("who", who), str(refused), typed)
            return await run_in_threadpool(shown, visit, 409)
        name = urlencode({"who": form.get("who", who)})
        return RedirectResponse(f"./?{name}#now", 303)

    @app.get("/{name}")
    async def static(name: str) -> Response:
        if name not in TYPES:
            return PlainTextResponse("There is no such page here.\n", 404)
        return Response((STATIC / name).read_bytes(), media_type=TYPES[name])

    return Gate(app, token)


def _form(body: bytes) -> dict[str, str]:
    """Return the fields of a form, line ends as everywhere else; Refused if it is none of ours."""
    text = body.decode("utf-8", "replace")
    try:
        found = parse_qs(text, keep_blank_values=True, max_num_fields=20, errors="replace")
    except ValueError as error:
        raise Refused("The form is none of this page: load the page again.") from error
    return {name: values[-1].replace("\r\n", "\n") for name, values in found.items()}


def _act(session: Session, form: dict[str, str], who: str) -> None:
    """Do what a form asks for; Refused if that cannot be done."""
    action = form.get("action", "")
    if action == "again":
        session.again()
    elif action in ("run", "pause"):
        session.let_run(action == "run")
    elif action in ("approve", "edit", "veto", "send_back", "say"):
        session.decide(
            _whole(form, "n"),
            _whole(form, "tries"),
            action,
            text=form.get("text", ""),
            note=form.get("note", ""),
            who=form.get("who", who),
        )
    else:
        raise Refused("This is nothing that can be done with a message.")


def _whole(form: dict[str, str], name: str) -> int:
    text = form.get(name, "")
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise Refused("The form does not say which message it is about: load the page again.")
    return int(text)


class Gate:
    """ASGI middleware: asks for the token in the path, takes it off, and sets the headers."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        _, first, *rest = [*scope["path"].split("/", 2), ""][:3]
        given = first.encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self.token.encode("ascii")):
            await PlainTextResponse(f"{NO_TOKEN}\n", 403)(scope, receive, headed)
            return
        if "/" not in scope["path"][1:]:
            await RedirectResponse(f"/{self.token}/", 307)(scope, receive, headed)
            return
        path = f"/{rest[0]}"
        inner = {**scope, "path": path, "raw_path": path.encode("utf-8", "surrogateescape")}
        await self.app(inner, receive, headed)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ValueError: the address cannot be had; one sentence.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if not 0 <= port < 1 << 16:
            raise OSError(errno.EINVAL, "a port is a number from 0 to 65535")
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"cannot listen on {host}, port {port} ({reason}): choose another --port, 0 for any "
            "that is free, or another --host"
        ) from error


def server_of(
    session: Session, listener: socket.socket, token: str, *, who: str, show_private: bool
) -> uvicorn.Server:
    """Return the web server of a session, not yet running."""
    servers: list[uvicorn.Server] = []
    app = make_app(
        session,
        token,
        who=who,
        show_private=show_private,
        stopping=lambda: servers[0].should_exit,
    )
    host, port = listener.getsockname()[:2]
    servers.append(make_server(app, host, port, LIMITS))  # type: ignore[arg-type]
    return servers[0]
