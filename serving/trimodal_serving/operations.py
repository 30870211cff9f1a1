"""What operations that embed take and answer, with an example that the tests send.

for operation in EMBEDDINGS: operation.path, operation.example
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

JSON = "application/json"
FORM = "multipart/form-data"
NAME = "demo"
"""What examples call the model; the document has the name that is served in its place."""
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGM8ISfHwMDAxMDAwMDAAAANBAEIfXHK"
    "ZgAAAABJRU5ErkJggg=="
)
"""A picture of 2 x 2 pixels in base64."""
WAV = "UklGRiwAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQgAAACAgICAgICAgA=="
"""Eight samples of silence in base64."""
PICTURE = f"data:image/png;base64,{PNG}"
SOUND = f"data:audio/wav;base64,{WAV}"


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    tag: str
    summary: str
    answer: Any
    """An example; its form is that of all answers. None for what is no JSON."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Of the body, as `type: what for`; those that must be there have a type that ends in `!`."""
    example: Mapping[str, Any] | None = None
    """A body that is answered."""
    kind: str = JSON
    """The content type of the body."""
    answer_kind: str = JSON
    status: int = 200
    path_example: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    """Fields of the answer, at any depth, that not all answers have."""
    also: Sequence[str] = ()
    """Other content types that answers may have."""


MODEL = {"model": "string!: the name that GET /v1/models lists"}
LENGTH = "integer: the first components, brought back to unit norm; one that the model lists"
INPUTS = 'any!: strings, objects such as {"image": "data:…"}, or lists of parts'
VECTOR = [0.6, 0.8]
USAGE = {
    "prompt_tokens": 4,
    "total_tokens": 4,
    "prompt_tokens_details": {"image_tokens": 0, "text_tokens": 4, "audio_tokens": 0},
}
CARD = {
    "id": NAME,
    "object": "model",
    "created": 0,
    "owned_by": "trimodal",
    "capabilities": ["embed.text"],
    "generates": ["text"],
    "dimensions": [64],
}

HEALTH = (
    Operation("GET", "/livez", "health", "The process lives", {"status": "live"}),
    Operation("GET", "/readyz", "health", "Requests are answered", {"status": "ready"}),
    Operation("GET", "/v1/models", "models", "What is served", {"object": "list", "data": [CARD]}),
    Operation(
        "GET", "/v1/models/{model}", "models", "One model", CARD, path_example={"model": NAME}
    ),
    Operation("GET", "/openapi.json", "models", "This document", {"openapi": "3.1.0"}),
    Operation("GET", "/metrics", "health", "Series for Prometheus", None, answer_kind="text/plain"),
)

EMBEDDINGS = (
    Operation(
        "POST",
        "/v1/embeddings",
        "embeddings",
        "Embed texts, pictures and speech (OpenAI, Voyage)",
        {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": VECTOR, "modality": "text"}],
            "model": NAME,
            "usage": USAGE,
        },
        MODEL
        | {
            "input": INPUTS.replace("!", ""),
            "messages": "array: messages of the user in the place of input",
            "modality": "string: what strings are: text, image, audio",
            "dimensions": LENGTH,
            "output_dimension": "integer: Voyage's word for dimensions",
            "encoding_format": "string: float or base64",
            "embedding_dtype": "string: float32, int8, uint8, binary or ubinary",
            "output_dtype": "string: Voyage's word for it",
            "token_ids": "boolean: lists of numbers are texts in the pieces of this model",
            "truncate": "boolean: a text that is too long loses its end",
            "truncation": "boolean: Voyage's word for it",
            "input_type": "string: query or document; both are embedded alike",
            "normalize": "boolean: true",
            "user": "string: ignored",
        },
        {"model": NAME, "input": ["a dog", {"image": PICTURE}, {"audio": SOUND}]},
        also=("application/octet-stream",),
    ),
    Operation(
        "POST",
        "/v1/multimodalembeddings",
        "embeddings",
        "Embed lists of parts (Voyage)",
        {
            "object": "list",
            "data": [{"object": "embedding", "embedding": VECTOR, "index": 0}],
            "model": NAME,
            "usage": {
                "text_tokens": 4,
                "image_pixels": 64,
                "video_pixels": 0,
                "audio_tokens": 0,
                "total_tokens": 8,
            },
        },
        MODEL
        | {
            "inputs": "array!: objects with content, a list of parts",
            "output_dimension": LENGTH,
            "output_dtype": "string: float, int8, uint8, binary or ubinary",
            "output_encoding": "string: base64",
            "encoding_format": "string: base64",
            "truncation": "boolean: true unless it is said",
            "input_type": "string: query or document",
        },
        {
            "model": NAME,
            "inputs": [
                {
                    "content": [
                        {"type": "text", "text": "a dog"},
                        {"type": "image_base64", "image_base64": PICTURE},
                    ]
                }
            ],
        },
    ),
    Operation(
        "POST",
        "/v2/embed",
        "embeddings",
        "Embed texts, images or inputs (Cohere)",
        {
            "embeddings": {"float": [VECTOR], "ubinary": [[3]]},
            "id": "embd-1",
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"input_tokens": 4, "image_tokens": 0},
            },
            "response_type": "embeddings_by_type",
            "texts": ["a dog"],
        },
        MODEL
        | {
            "texts": "array: strings; one of texts, images and inputs",
            "images": "array: data URLs",
            "inputs": "array: objects with content, a list of parts",
            "input_type": "string: search_document, search_query, classification and so on",
            "embedding_types": "array: float, int8, uint8, binary, ubinary, base64",
            "output_dimension": LENGTH,
            "truncate": "string: END, START or NONE",
            "max_tokens": "integer: not supported",
            "priority": "integer: 0",
        },
        {"model": NAME, "texts": ["a dog"], "embedding_types": ["float", "ubinary"]},
        optional=frozenset({"float", "ubinary", "texts"}),
    ),
    Operation(
        "POST",
        "/embed",
        "embeddings",
        "Embed inputs (Text Embeddings Inference)",
        [VECTOR],
        {
            "inputs": INPUTS,
            "dimensions": LENGTH,
            "truncate": "boolean: a text that is too long loses an end",
            "truncation_direction": "string: Right or Left",
            "normalize": "boolean: true",
            "prompt_name": "string: not supported",
        },
        {"inputs": ["a dog", "a cat"]},
    ),
    Operation(
        "GET",
        "/info",
        "embeddings",
        "What is served (Text Embeddings Inference)",
        {"model_id": NAME, "max_input_length": 512, "max_client_batch_size": 2048, "version": "0"},
    ),
    Operation(
        "POST",
        "/v1/similarity",
        "embeddings",
        "The cosines of all queries with all documents",
        {"object": "similarity", "similarities": [VECTOR], "model": NAME, "usage": USAGE},
        MODEL
        | {
            "queries": INPUTS,
            "documents": INPUTS,
            "dimensions": LENGTH,
            "truncate": "boolean: a text that is too long loses its end",
            "user": "string: ignored",
        },
        {"model": NAME, "queries": "a dog", "documents": [{"image": PICTURE}, "a cat"]},
    ),
)

TOKENS = (
    Operation(
        "POST",
        "/v1/tokens/encode",
        "tokens",
        "The codes of a picture or speech, the pieces of a text",
        {
            "object": "tokens",
            "model": NAME,
            "modality": "text",
            "codes": [[5, 7]],
            "codebook_sizes": [300],
            "usage": {"prompt_tokens": 2, "total_tokens": 2},
        },
        MODEL
        | {
            "modality": "string!: text, image or audio",
            "data": "string!: a text, a data URL or base64",
        },
        {"model": NAME, "modality": "text", "data": "a dog"},
    ),
    Operation(
        "POST",
        "/v1/tokens/decode",
        "tokens",
        "The picture, speech or text of codes",
        {"object": "medium", "model": NAME, "modality": "image", "data": PNG, "format": "png"},
        MODEL
        | {
            "modality": "string!: text, image or audio",
            "codes": "array!: as encode answers them",
            "format": "string: of the file: png, webp, jpeg; wav, mp3, flac, ogg, opus, pcm",
        },
        {"model": NAME, "modality": "image", "codes": [[0, 1], [2, 3]]},
    ),
)

ALIASES = (
    replace(HEALTH[1], path="/health", summary="/readyz (infinity, Text Embeddings Inference)"),
    replace(HEALTH[2], path="/models", summary="/v1/models (infinity)"),
    replace(
        EMBEDDINGS[0],
        path="/embeddings",
        summary="/v1/embeddings (infinity, Text Embeddings Inference)",
    ),
)
"""Other paths of operations, at which clients of others look for them."""

PATH = {"model": NAME}
KSERVE = (
    Operation(
        "GET",
        "/v2",
        "kserve",
        "The server (KServe V2)",
        {"name": "trimodal", "version": "0", "extensions": ["binary_tensor_data"]},
    ),
    Operation("GET", "/v2/health/live", "kserve", "The process lives", {"live": True}),
    Operation("GET", "/v2/health/ready", "kserve", "Requests are answered", {"ready": True}),
    Operation(
        "GET",
        "/v2/models/{model}",
        "kserve",
        "The tensors of the model",
        {
            "name": NAME,
            "versions": ["1"],
            "platform": "trimodal",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, 64]}],
        },
        path_example=PATH,
    ),
    Operation(
        "GET",
        "/v2/models/{model}/ready",
        "kserve",
        "The model answers",
        {"name": NAME, "ready": True},
        path_example=PATH,
    ),
    Operation(
        "POST",
        "/v2/models/{model}/infer",
        "kserve",
        "Embed the rows of tensors text, image and audio",
        {
            "model_name": NAME,
            "model_version": "1",
            "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [1, 2], "data": VECTOR}],
            "id": "1",
        },
        {
            "id": "string: given back",
            "inputs": "array!: tensors of BYTES",
            "outputs": "array: embedding",
            "parameters": "object: dimensions, binary_data_output",
        },
        {
            "id": "1",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a dog"]}],
        },
        path_example=PATH,
        optional=frozenset({"id", "data"}),
        also=("application/octet-stream",),
    ),
)
