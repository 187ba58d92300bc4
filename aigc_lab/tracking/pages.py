"""MLflow's pages as `aigc-lab ui` serves them: read-only unless `WRITABLE` is set, with a login if `LOGIN` is set, and
without the assistant.

Requests are checked against an allow-list, so that features of later MLflow versions are refused until they are known
to change nothing.
"""

import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import cache
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: variables that tell the server's process how to serve, each "true" or absent
WRITABLE = "_AIGC_LAB_UI_WRITABLE"
LOGIN = "_AIGC_LAB_UI_LOGIN"

REFUSAL = "these pages are read-only; aigc-lab ui --writable lets them change what is stored"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
# Questions that are sent by POST, for they have much to say. GraphQL's mutations are searches.
_SEARCHES = re.compile(
    r"/graphql|/(ajax-)?api/\d\.\d/?mlflow/("
    r"(experiments|runs|logged-models|datasets|issues|traces|prompt-optimization/jobs)/search"
    r"|experiments/search-datasets|registered-models/get-latest-versions|artifacts/presigned-download-url"
    r"|traces/(batchGetInfos|calculate-filter-correlation|metrics))"
)
# What acts although it is asked by GET: the assistant runs commands on this machine, the gateway sends to others.
_ACTS = re.compile(r"/gateway(/|$)|/(ajax-)?api/\d\.\d/mlflow/(assistant|gateway-proxy)(/|$)")

# Charts ask which endpoints the gateway has, and a refusal would be shown over them. A server without one has none.
_ENDPOINTS = re.compile(r"/(ajax-)?api/\d\.\d/mlflow/gateway-proxy")


def reads(method: str, path: str) -> bool:
    """Whether a request to MLflow's server changes nothing."""
    if method in _READING:
        return _ACTS.match(path) is None
    return method == "POST" and _SEARCHES.fullmatch(path) is not None


def read_only(pages: Application) -> Application:
    """Pages that answer 403 and a sentence to every request that would change something."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and _ENDPOINTS.fullmatch(scope["path"]):
            await _answer(send, 200, {"endpoints": []})
            return
        if scope["type"] == "http" and not reads(scope["method"], scope["path"]):
            await _refuse(send, REFUSAL)
            return
        await pages(scope, receive, send)

    return guarded


# MLflow opens its assistant at the first look of a browser on this machine, over a third of the page, and has no
# setting against it. Here it is refused, so that its panel stays shut and its button is hidden.
_SHUT = (
    b"<script>try{localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1','true');"
    b"localStorage.setItem('mlflow.assistant.panelOpen_v1','false')}catch(error){}</script>"
    b"<style>button[data-assistant-ui]{display:none!important}</style>"
)
_ASSISTANT = re.compile(r"/(ajax-)?api/\d\.\d/mlflow/assistant(/|$)")


def without_assistant(pages: Application) -> Application:
    """Pages without MLflow's assistant, which runs commands on this machine for whoever opens them."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _ASSISTANT.match(scope["path"]):
            await _refuse(send, "these pages have no assistant: it runs commands on this machine")
        elif scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET":
            await pages(_whole(scope), receive, _Shut(send))
        else:
            await pages(scope, receive, send)

    return guarded


def _whole(scope: Scope) -> Scope:
    """The same request for the page as it is: one that a browser kept may be of another version."""
    kept = (b"if-none-match", b"if-modified-since", b"range", b"accept-encoding")
    return {**scope, "headers": [header for header in scope["headers"] if header[0].lower() not in kept]}


class _Shut:
    """Sends a page with `_SHUT` at the beginning of its head."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Any = None
        self._body = b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = self._body.replace(b"<head>", b"<head>" + _SHUT, 1)
        about = (b"content-length", b"etag", b"last-modified")
        headers = [header for header in self._start["headers"] if header[0].lower() not in about]
        headers.append((b"content-length", str(len(body)).encode()))
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, why: str) -> None:
    await _answer(send, 403, {"error_code": "PERMISSION_DENIED", "message": why})


async def _answer(send: Send, status: int, answer: Mapping[str, Any]) -> None:
    content = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@cache
def _pages() -> Application:
    if os.environ.get(LOGIN) == "true":
        from mlflow.server.auth import create_app

        pages: Any = create_app()
    else:
        from mlflow.server.fastapi_app import app as pages
    pages = without_assistant(pages)
    return pages if os.environ.get(WRITABLE) == "true" else read_only(pages)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application for uvicorn. MLflow is imported with the server's first event."""
    await _pages()(scope, receive, send)
