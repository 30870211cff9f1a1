"""Where everything is answered: methods and paths, without a web library.

for route in ROUTES: app.add_route(route.path, …)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trimodal_serving import (
    chat,
    cohere,
    embeddings,
    indexing,
    kserve,
    openapi,
    pictures,
    searching,
    similarity,
    speech,
    tei,
    tokens,
    transcription,
    voyage,
)
from trimodal_serving.calls import Call, Handler
from trimodal_serving.replies import Answer, Reply, rendered


@dataclass(frozen=True)
class Route:
    """One operation."""

    method: str
    path: str
    handler: Handler


def _generating(answer: Answer) -> Handler:
    async def handler(call: Call) -> Reply:
        kind = call.headers.get("content-type", "")
        return await answer(call.engine, call.served, kind, call.body)

    return handler


async def _voices(_: Call) -> Reply:
    return rendered(speech.VOICES)


async def _document(call: Call) -> Reply:
    return rendered(openapi.document(call.served))


ROUTES: Sequence[Route] = (
    Route("POST", "/v1/embeddings", embeddings.answer),
    Route("POST", "/embeddings", embeddings.answer),
    Route("POST", "/v1/chat/completions", _generating(chat.answer)),
    Route("POST", "/v1/audio/transcriptions", _generating(transcription.transcribe)),
    Route("POST", "/v1/audio/translations", _generating(transcription.translate)),
    Route("POST", "/v1/audio/speech", _generating(speech.answer)),
    Route("GET", "/v1/audio/voices", _voices),
    Route("POST", "/v1/images/generations", _generating(pictures.answer)),
    Route("POST", "/v1/similarity", similarity.answer),
    Route("POST", "/v1/tokens/encode", tokens.encode),
    Route("POST", "/v1/tokens/decode", tokens.decode),
    Route("POST", "/v1/multimodalembeddings", voyage.answer),
    Route("POST", "/v2/embed", cohere.answer),
    Route("POST", "/embed", tei.answer),
    Route("GET", "/info", tei.info),
    Route("GET", "/v2", kserve.server),
    Route("GET", "/v2/health/live", kserve.live),
    Route("GET", "/v2/health/ready", kserve.ready),
    Route("POST", "/v2/models/{model:path}/infer", kserve.infer),
    Route("GET", "/v2/models/{model:path}/ready", kserve.model_ready),
    Route("GET", "/v2/models/{model:path}", kserve.model),
    Route("GET", "/v1/indexes", indexing.listed),
    Route("POST", "/v1/indexes", indexing.create),
    Route("GET", "/v1/indexes/{name}", indexing.describe),
    Route("DELETE", "/v1/indexes/{name}", indexing.drop),
    Route("POST", "/v1/indexes/{name}/items", indexing.put),
    Route("POST", "/v1/indexes/{name}/items/delete", indexing.delete),
    Route("GET", "/v1/indexes/{name}/items/{id:path}", indexing.get),
    Route("POST", "/v1/search", searching.answer),
    Route("GET", "/openapi.json", _document),
)
"""In the order in which paths are compared; health and models are `app`'s own."""
