"""The HTTP routes.

app = create_app(engine, name="demo", max_body_bytes=32 * 1024**2)
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from trimodal_serving.engine import Embedding, Engine
from trimodal_serving.errors import ServingError, client_closed, internal, nonfinite
from trimodal_serving.guard import Guard
from trimodal_serving.inputs import Input
from trimodal_serving.protocol import model_not_found, parse_request, render_answer

CAPABILITIES = ("embed.text", "embed.image", "embed.audio")
T = TypeVar("T")

logger = logging.getLogger(__name__)

_REFUSALS = {
    400: ("bad_request", "the request cannot be served"),
    404: ("not_found", "there is nothing at this path; /v1/embeddings and /v1/models are served"),
    405: ("method_not_allowed", "this path does not answer this method"),
}


def create_app(
    engine: Engine,
    name: str,
    max_body_bytes: int,
    on_started: Callable[[asyncio.Task[None]], None] | None = None,
) -> Guard:
    """The server as an ASGI app; it answers while the model is still being loaded.

    Args:
        engine: started and closed with the app.
        name: what clients call the model.
        max_body_bytes: of a request.
        on_started: called when loading has ended, well or not.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(engine.start())
        if on_started is not None:
            starting.add_done_callback(on_started)
        yield
        starting.cancel()
        await engine.close()

    app = FastAPI(
        lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    for kind in (HTTPException, RequestValidationError, ServingError, Exception):
        app.add_exception_handler(kind, _answer)
    _add_health(app, engine)
    _add_models(app, engine, name)
    _add_embeddings(app, engine, name)
    return Guard(app, max_body_bytes)


def _answer(request: Request, error: Exception) -> Response:
    """Every error in our envelope, those of the framework included."""
    headers: dict[str, str] = {}
    shown = error if isinstance(error, ServingError) else internal()
    if error is shown and shown.status == 500:  # the guard logs what is not a ServingError
        logger.error("request %s failed", request.scope["request_id"], exc_info=error)
    if isinstance(error, RequestValidationError):
        shown = ServingError(422, "invalid_request", "the request does not fit this path")
    elif isinstance(error, HTTPException):
        code, message = _REFUSALS.get(error.status_code, _REFUSALS[400])
        shown = ServingError(error.status_code, code, message)
        headers.update(error.headers or {})
    return JSONResponse(shown.envelope(), shown.status, {**headers, **shown.headers()})


def _add_health(app: FastAPI, engine: Engine) -> None:
    @app.get("/livez")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        engine.check()
        return {"status": "ready"}


def _add_models(app: FastAPI, engine: Engine, name: str) -> None:
    created = int(time.time())

    def card() -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "trimodal",
            "capabilities": CAPABILITIES,
            "dimensions": engine.dimensions,
        }

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card()]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        if model != name:
            raise model_not_found(name)
        return card()


def _add_embeddings(app: FastAPI, engine: Engine, name: str) -> None:
    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        dimensions = engine.dimensions
        _check_content_type(request)
        # parsing and rendering of large requests would hold up every other one
        parsed = await asyncio.to_thread(parse_request, await request.body(), name, dimensions)
        embedded = await _unless_gone(request, engine.embed(parsed.inputs))
        vectors = _cut(embedded, parsed.inputs, parsed.dimensions)
        tokens = [embedding.tokens for embedding in embedded]
        body = await asyncio.to_thread(render_answer, parsed, name, vectors, tokens)
        return Response(body, media_type="application/json")


def _check_content_type(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise ServingError(
            415, "unsupported_content_type", "the content-type must be application/json"
        )


def _cut(embedded: list[Embedding], inputs: Sequence[Input], dimensions: int) -> np.ndarray:
    from trimodal.models import cut  # slow to import, but the model has done so by now

    vectors = cut(np.stack([embedding.vector for embedding in embedded]), dimensions)
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if broken.size:
        raise nonfinite(inputs[int(broken[0])].where)
    return vectors


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away."""
    task = asyncio.create_task(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise client_closed()
        return task.result()
    finally:
        for pending in (task, gone):
            pending.cancel()
