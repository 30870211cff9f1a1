"""The HTTP routes.

app = create_app({"demo": engine}, max_body_bytes=32 * 1024**2)
"""

import asyncio
import logging
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from trimodal_serving.access import Access
from trimodal_serving.calls import Call
from trimodal_serving.catalog import Catalog, Model
from trimodal_serving.deadline import Deadline
from trimodal_serving.errors import (
    CutError,
    ServingError,
    client_closed,
    internal,
)
from trimodal_serving.fetching import Fetching
from trimodal_serving.guard import Guard
from trimodal_serving.index_folders import IndexFolders
from trimodal_serving.ledger import Ledger, Visit
from trimodal_serving.metering import Metered
from trimodal_serving.metrics import CONTENT_TYPE, Metrics
from trimodal_serving.playground.files import PAGE, page_file
from trimodal_serving.replies import EVENTS, event
from trimodal_serving.routes import ROUTES, Route
from trimodal_serving.service import Service
from trimodal_serving.spans import Untold

if TYPE_CHECKING:
    from trimodal_serving.fetcher import Fetcher

EMBEDDING = ("embed.text", "embed.image", "embed.audio")
GENERATION = {
    "text": ("chat", "transcribe"),
    "image": ("image",),
    "speech": ("speech",),
    "answers": ("answer",),
}
"""What a model that learnt to generate one of these can do besides."""
T = TypeVar("T")

logger = logging.getLogger(__name__)

_REFUSALS = {
    400: ("bad_request", "the request cannot be served"),
    404: ("not_found", "there is nothing at this path; GET /v1/models says what is served"),
    405: ("method_not_allowed", "this path does not answer this method"),
}


def create_app(
    services: Mapping[str, Service],
    max_body_bytes: int,
    on_started: Callable[[asyncio.Task[None]], None] | None = None,
    indexes: Path | None = None,
    access: Access | None = None,
    ledger: Ledger | None = None,
    door: Callable[[], None] | None = None,
    on_closed: Callable[[], Awaitable[None]] | None = None,
    *,
    playground: bool = True,
    fetcher: "Fetcher | None" = None,
    request_seconds: float | None = None,
) -> Guard:
    """The server as an ASGI app; it answers while models are still being loaded.

    Args:
        services: an `Engine`, or what stands for one, by what clients call its model; started and
            closed with the app. The first is meant if none is named.
        max_body_bytes: of a request.
        on_started: called when loading has ended, well or not.
        indexes: the folder of the indexes; None keeps none.
        access: who may do what; None lets everybody do everything.
        ledger: where requests are written down, and what Prometheus sees.
        door: see `Guard`.
        on_closed: awaited when all services are closed.
        playground: whether there is a page for browsers.
        fetcher: fetches media that requests name by their addresses; None refuses these.
        request_seconds: from the head of a request until its answer is computed; None is for ever.
    """
    ledger = ledger or Ledger(Metrics())
    catalog = _catalog(services, ledger.metrics, fetcher)
    opened: list[IndexFolders] = []

    async def start() -> None:
        if indexes is not None:
            opened.append(await IndexFolders.open(indexes))
        await catalog.start()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(start())
        if on_started is not None:
            starting.add_done_callback(on_started)
        yield
        starting.cancel()
        await catalog.close()
        if fetcher is not None:
            fetcher.close()
        if on_closed is not None:
            await on_closed()

    app = _bare(lifespan)
    for route in ROUTES:  # a request is compared with one after the other
        _add_route(app, catalog, route, opened, request_seconds)
    _add_own(app, catalog, ledger.metrics, playground=playground)
    is_route = partial(_is_route, app)
    return Guard(app, max_body_bytes, access=access, ledger=ledger, door=door, is_route=is_route)


def _catalog(
    services: Mapping[str, Service], metrics: Metrics, fetcher: "Fetcher | None"
) -> Catalog:
    return Catalog(
        {name: Fetching(Metered(one, metrics.of(name)), fetcher) for name, one in services.items()}
    )


def _is_route(app: FastAPI, scope: MutableMapping[str, Any]) -> bool:
    return any(route.matches(scope)[0] is not Match.NONE for route in app.routes)


def _bare(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    """An app without routes, whose errors are ours."""
    app = FastAPI(
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # spans and durations, if --telemetry or the environment says where to; logs might hold more
        telemetry={"auto_configure": True, "logs": False},
    )
    app.add_middleware(Untold)
    for kind in (HTTPException, RequestValidationError, ServingError, Exception):
        app.add_exception_handler(kind, _answer)
    return app


async def _answer(request: Request, error: Exception) -> Response:
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
    request.scope["visit"].reason = shown.code
    return JSONResponse(shown.envelope(), shown.status, {**headers, **shown.headers()})


def _add_own(app: FastAPI, catalog: Catalog, metrics: Metrics, *, playground: bool) -> None:
    """What is answered without a model."""
    _add_health(app, catalog)
    _add_models(app, catalog)
    _add_metrics(app, metrics)
    if playground:
        _add_playground(app)


# Routes are Starlette's own: ours read their requests themselves, and what FastAPI does for each
# request to know its parameters is a tenth of what an answer of this server costs.
def _add_health(app: FastAPI, catalog: Catalog) -> None:
    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def ready(_: Request) -> Response:
        catalog.check()
        return JSONResponse({"status": "ready"})

    app.add_route("/livez", live)
    for path in ("/readyz", "/health"):
        app.add_route(path, ready)


def _add_metrics(app: FastAPI, metrics: Metrics) -> None:
    async def scrape(_: Request) -> Response:
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE})

    app.add_route("/metrics", scrape)


def _add_playground(app: FastAPI) -> None:
    async def page(request: Request) -> Response:
        return _file(request, request.path_params.get("name", PAGE))

    app.add_route("/", page)
    app.add_route("/playground/{name}", page)


def _file(request: Request, name: str) -> Response:
    reply = page_file(name, request.headers.get("if-none-match", ""))
    return Response(reply.body, reply.status, reply.headers, reply.media_type)


def _add_models(app: FastAPI, catalog: Catalog) -> None:
    created = int(time.time())

    def card(model: Model) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": created,
            "owned_by": "trimodal",
            "capabilities": _capabilities(model.service.generates),
            "generates": model.service.generates,
            "dimensions": model.service.dimensions,
        }

    async def models(_: Request) -> Response:
        cards: list[dict[str, Any]] = []
        absent: list[ServingError] = []
        for model in catalog.models:
            try:
                cards.append(card(model))
            except ServingError as error:  # others are loaded sooner
                absent.append(error)
        if not cards:
            raise absent[0]
        return JSONResponse({"object": "list", "data": cards})

    async def model(request: Request) -> Response:
        return JSONResponse(card(catalog.named(request.path_params["model"])))

    for path in ("/v1/models", "/models"):
        app.add_route(path, models)
    app.add_route("/v1/models/{model:path}", model)


def _capabilities(generates: Sequence[str]) -> list[str]:
    return [*EMBEDDING, *(word for kind in generates for word in GENERATION[kind])]


def _add_route(
    app: FastAPI,
    catalog: Catalog,
    route: Route,
    opened: Sequence[IndexFolders],
    request_seconds: float | None,
) -> None:
    async def endpoint(request: Request) -> Response:
        visit: Visit = request.scope["visit"]
        deadline = Deadline(request_seconds, visit.began)
        body = await request.body()
        model = await catalog.of(request.path_params, request.headers, body)
        call = Call(
            model.service,
            model.name,
            catalog.check,
            body,
            request.headers,
            request.path_params,
            opened[0] if opened else None,
        )
        reply = await _unless_gone(request, route.handler(call), deadline)
        headers = {"content-type": reply.media_type, **reply.headers}
        if isinstance(reply.body, bytes):
            return Response(reply.body, reply.status, headers)
        # ends what it sends when the client goes away, and with it what is generated
        told = reply.media_type == EVENTS
        body = _to_the_end(deadline.pieces(reply.body), visit, told=told)
        return StreamingResponse(body, reply.status, headers)

    app.add_route(route.path, endpoint, methods=[route.method])


async def _to_the_end(
    body: AsyncIterator[bytes], visit: Visit, *, told: bool
) -> AsyncIterator[bytes]:
    """A stream whose last event says what went wrong in it, if it has events.

    Raises:
        CutError: something did, and it has none.
    """
    try:
        async for chunk in body:
            yield chunk
    except ServingError as error:
        if error.status == 500:
            logger.error("request %s failed", visit.request_id, exc_info=error)
        visit.reason = error.code
        if not told:
            raise CutError from error
        yield event(error.envelope())


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T], deadline: Deadline) -> T:
    """The result of `work`, which is cancelled when the client goes away, or when it is late."""
    gone = asyncio.ensure_future(request.receive())
    end = asyncio.timeout(deadline.left)
    over = left = False

    def leave(_: object) -> None:
        nonlocal left
        if not over and not end.expired():
            left = True
            end.reschedule(0.0)

    try:
        async with end:
            gone.add_done_callback(leave)
            try:
                return await work
            finally:
                over = True
    except TimeoutError:
        if not end.expired():
            raise
        raise client_closed() if left else deadline.missed() from None
    finally:
        gone.cancel()
