"""MLflow's pages as `aigc-lab ui` serves them: read-only unless `WRITABLE` is set, with a login if `LOGIN` is set.

Requests are checked against an allow-list, so that features of later MLflow versions are refused until they are known
to change nothing.
"""

import json
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
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


def reads(method: str, path: str) -> bool:
    """Whether a request to MLflow's server changes nothing."""
    if method in _READING:
        return _ACTS.match(path) is None
    return method == "POST" and _SEARCHES.fullmatch(path) is not None


def read_only(pages: Application) -> Application:
    """Pages that answer 403 and a sentence to every request that would change something."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not reads(scope["method"], scope["path"]):
            content = json.dumps({"error_code": "PERMISSION_DENIED", "message": REFUSAL}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": content})
            return
        await pages(scope, receive, send)

    return guarded


@cache
def _pages() -> Application:
    if os.environ.get(LOGIN) == "true":
        from mlflow.server.auth import create_app

        pages: Any = create_app()
    else:
        from mlflow.server.fastapi_app import app as pages
    return pages if os.environ.get(WRITABLE) == "true" else read_only(pages)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application for uvicorn. MLflow is imported with the server's first event."""
    await _pages()(scope, receive, send)
