"""What operations that generate or search take and answer, with an example that the tests send.

for operation in GENERATION: operation.path, operation.example
"""

from trimodal_serving.operations import (
    FORM,
    MODEL,
    NAME,
    PICTURE,
    PNG,
    USAGE,
    VECTOR,
    Operation,
)
from trimodal_serving.replies import EVENTS

FILTER = 'object: see docs/serving.md, such as {"year": {"gte": 2020}}'
EXTENSION = {"trimodal": "object: guidance, steps, schedule, choice_temperature, lang"}
SEED = {"seed": "integer: the same seed gives the same output; 0"}
SAMPLING = {"temperature": "number: from 0 to 2", "top_p": "number: up to 1"}
INDEX = {
    "object": "index",
    "name": "pets",
    "dimensions": 64,
    "fields": {"year": "integer"},
    "items": 0,
}
ITEM = {"object": "item", "id": "a1", "modality": "text", "metadata": {"year": 2024}}
PETS = {"name": "pets"}
OWN = frozenset({"year"})
"""Fields that an index has if it was made with them."""

GENERATION = (
    Operation(
        "POST",
        "/v1/chat/completions",
        "generation",
        "Describe, answer, complete, speak or draw (OpenAI)",
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": NAME,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "a dog"},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        },
        MODEL
        | {
            "messages": "array!: one message of the user",
            "modalities": "array: text, or text and audio, or text and image",
            "audio": "object: voice and format of speech",
            "max_tokens": "integer: of a text",
            "max_completion_tokens": "integer: of a text",
            "stream": "boolean: events of OpenAI's kind, texts alone",
            "stream_options": "object: include_usage",
        }
        | SAMPLING
        | SEED
        | EXTENSION,
        {
            "model": NAME,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "what is it?"},
                        {"type": "image_url", "image_url": {"url": PICTURE}},
                    ],
                }
            ],
            "max_tokens": 4,
        },
        also=(EVENTS,),
    ),
    *(
        Operation(
            "POST",
            f"/v1/audio/{name}",
            "generation",
            summary,
            {"text": "a dog", "usage": {"type": "tokens", "input_tokens": 9}},
            MODEL
            | {
                "file": "file!: WAV, FLAC, OGG or MP3",
                "response_format": "string: json, text or verbose_json",
                "temperature": "number: from 0 to 2",
            }
            | SEED
            | more,
            {"model": NAME},
            FORM,
            also=("text/plain", EVENTS),
        )
        for name, summary, more in (
            (
                "transcriptions",
                "What an utterance says (OpenAI)",
                {
                    "language": "string: en or zh",
                    "stream": "boolean: events of OpenAI's kind",
                },
            ),
            ("translations", "What an utterance says, in English (OpenAI)", {}),
        )
    ),
    Operation(
        "POST",
        "/v1/audio/speech",
        "generation",
        "Read a text aloud (OpenAI)",
        None,
        MODEL
        | {
            "input": "string!: the text",
            "voice": "string!: default",
            "response_format": "string: mp3, wav, flac, ogg, opus or pcm",
            "stream_format": "string: audio for the bytes of pcm and wav as they are made, "
            "sse for events of OpenAI's kind",
            "speed": "number: 1",
            "instructions": "string: not supported",
        }
        | SEED
        | {name: f"{kind}, earliness, partial_sounds" for name, kind in EXTENSION.items()},
        {"model": NAME, "input": "a dog", "voice": "default", "response_format": "wav"},
        answer_kind="audio/wav",
        also=("audio/mpeg", "audio/flac", "audio/ogg", "audio/pcm", EVENTS),
    ),
    Operation(
        "GET",
        "/v1/audio/voices",
        "generation",
        "The voices",
        {"voices": [{"id": "default", "name": "default"}]},
    ),
    Operation(
        "POST",
        "/v1/images/generations",
        "generation",
        "Draw a text (OpenAI)",
        {
            "created": 0,
            "data": [{"b64_json": PNG}],
            "output_format": "png",
            "size": "16x16",
            "usage": {"input_tokens": 4, "output_tokens": 12, "total_tokens": 16},
        },
        MODEL
        | {
            "prompt": "string!: the text",
            "n": "integer: from 1 to 10",
            "size": "string: WIDTHxHEIGHT or auto",
            "output_format": "string: png, webp or jpeg",
            "response_format": "string: b64_json",
            "stream": "boolean: events of OpenAI's kind, one a picture",
            "partial_images": "integer: from 0 to 3, pictures of a stream before each is done",
        }
        | SEED
        | EXTENSION,
        {"model": NAME, "prompt": "a red square", "trimodal": {"steps": 2}},
        also=(EVENTS,),
    ),
)

SEARCH = (
    Operation(
        "POST",
        "/v1/indexes",
        "search",
        "Make an index",
        INDEX,
        {
            "model": "string: the model of its vectors; the first if it is not there",
            "name": "string!: of a-z, 0-9, _ and -",
            "fields": "object: the fields of items by which they are found, and their types: "
            "string, integer, number or boolean",
            "dimensions": "integer: of the vectors; one that the model lists",
        },
        {"name": "pets", "fields": {"year": "integer"}},
        status=201,
        optional=OWN,
    ),
    Operation(
        "POST",
        "/v1/indexes/{name}/items",
        "search",
        "Embed items and put them in, in the place of those with their ids",
        {"object": "list", "index": "pets", "put": 2, "usage": USAGE},
        MODEL
        | {
            "items": "array!: objects with id, input (or vector and modality), metadata and payload"
        },
        {
            "model": NAME,
            "items": [
                {"id": "a1", "input": "a dog", "metadata": {"year": 2024}},
                {"id": "a2", "input": {"image": PICTURE}, "payload": {"file": "a.png"}},
            ],
        },
        path_example=PETS,
        optional=frozenset({"usage"}),
    ),
    Operation(
        "GET",
        "/v1/indexes",
        "search",
        "All indexes",
        {"object": "list", "data": [INDEX]},
        optional=OWN,
    ),
    Operation(
        "GET",
        "/v1/indexes/{name}",
        "search",
        "One index",
        INDEX,
        path_example=PETS,
        optional=OWN,
    ),
    Operation(
        "GET",
        "/v1/indexes/{name}/items/{id}",
        "search",
        "One item",
        ITEM | {"vector": VECTOR},
        path_example=PETS | {"id": "a1"},
        optional=OWN,
    ),
    Operation(
        "POST",
        "/v1/search",
        "search",
        "The items that are nearest to an input of any kind",
        {
            "object": "list",
            "model": NAME,
            "index": "pets",
            "data": [{"index": 0, "score": 0.7} | ITEM],
            "usage": USAGE,
        },
        MODEL
        | {
            "index": "string!: its name",
            "query": "any: an input as in /v1/embeddings; or vector",
            "vector": "array: numbers",
            "k": "integer: from 1 to 1000; 10",
            "filter": FILTER,
            "with_vectors": "boolean: whether items come with their vectors",
        },
        {"model": NAME, "index": "pets", "query": "a dog", "filter": {"year": {"gte": 2020}}},
        optional=OWN | {"usage"},
    ),
    Operation(
        "POST",
        "/v1/indexes/{name}/items/delete",
        "search",
        "Delete items by their ids or by a filter",
        {"object": "list", "index": "pets", "deleted": 1},
        {"ids": "array: strings; or filter", "filter": FILTER},
        {"filter": {"year": {"lt": 2025}}},
        path_example=PETS,
    ),
    Operation(
        "DELETE",
        "/v1/indexes/{name}",
        "search",
        "Delete an index with all its items",
        {"object": "index", "name": "pets", "deleted": True},
        path_example=PETS,
    ),
)
