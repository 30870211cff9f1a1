"""Clients that embed, as their makers publish them, get the vectors of the library."""

import base64
import io
from typing import Any

import cohere
import numpy as np
import openai
import pytest
import tritonclient.http
import tritonclient.utils
import voyageai
import voyageai.error
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from PIL import Image
from pydantic import SecretStr

from trimodal.models import TrimodalModel, cut

TEXTS = ["a red square", "红色的方块", "blue"]


@pytest.fixture(scope="module")
def texts(model: TrimodalModel) -> np.ndarray:
    return model.embed(text=TEXTS)["text"]


def near(found: Any, expected: np.ndarray) -> bool:
    vectors = np.array(found, np.float32)
    return vectors.shape == expected.shape and bool(np.abs(vectors - expected).max() < 1e-5)


def url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_openai(served: str, model: TrimodalModel, texts: np.ndarray, png: bytes) -> None:
    with openai.OpenAI(base_url=f"{served}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="tiny", input=TEXTS)
        assert near([item.embedding for item in answer.data], texts)
        short = client.embeddings.create(model="tiny", input=TEXTS, dimensions=8)
        assert near([item.embedding for item in short.data], cut(texts, 8))
        body = {"modality": "image"}
        seen = client.embeddings.create(model="tiny", input=[url(png)], extra_body=body)
        assert near([item.embedding for item in seen.data], model.embed(image=[png])["image"])
        with pytest.raises(openai.BadRequestError, match="token ids") as caught:
            client.embeddings.create(model="tiny", input=[[1, 2]])
        assert (caught.value.code, caught.value.param) == ("token_ids_not_supported", "input")
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="other", input="a")


def test_langchain(served: str, texts: np.ndarray) -> None:
    options: dict[str, Any] = {
        "model": "tiny",
        "base_url": f"{served}/v1",
        "api_key": SecretStr("none"),
    }
    client = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    assert near(client.embed_documents(TEXTS), texts)
    assert near([client.embed_query(TEXTS[0])], texts[:1])
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        OpenAIEmbeddings(**options, tiktoken_enabled=True).client.create(
            model="tiny", input=[[5, 6]]
        )


def test_llama_index(served: str, texts: np.ndarray) -> None:
    client = OpenAILikeEmbedding(model_name="tiny", api_base=f"{served}/v1", api_key="none")
    assert near(client.get_text_embedding_batch(TEXTS), texts)
    assert near([client.get_query_embedding(TEXTS[0])], texts[:1])


def test_cohere(served: str, model: TrimodalModel, texts: np.ndarray, png: bytes) -> None:
    client = cohere.ClientV2(api_key="none", base_url=served)
    types: Any = ["float", "int8", "ubinary"]
    answer = client.embed(
        model="tiny", input_type="search_document", texts=TEXTS, embedding_types=types
    )
    assert near(answer.embeddings.float_, texts)
    assert answer.embeddings.ubinary == np.packbits(texts >= 0, axis=1).tolist()
    assert np.abs(np.array(answer.embeddings.int8)).max() == 127
    assert answer.texts == TEXTS
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    seen = client.embed(
        model="tiny",
        input_type="image",
        images=[url(png)],
        embedding_types=["float"],
        output_dimension=8,
    )
    assert near(seen.embeddings.float_, cut(model.embed(image=[png])["image"], 8))
    with pytest.raises(cohere.NotFoundError):
        client.embed(model="other", input_type="search_query", texts=["a"])


def test_voyage(served: str, model: TrimodalModel, texts: np.ndarray, png: bytes) -> None:
    client: Any = voyageai.Client(api_key="none", base_url=f"{served}/v1")  # pyright: ignore[reportPrivateImportUsage]
    answer = client.embed(TEXTS, model="tiny", input_type="document")
    assert near(answer.embeddings, texts)
    assert answer.total_tokens > 3
    bits = client.embed(TEXTS, model="tiny", output_dtype="ubinary", output_dimension=8)
    assert bits.embeddings == np.packbits(cut(texts, 8) >= 0, axis=1).tolist()
    picture = Image.open(io.BytesIO(png))
    fused = client.multimodal_embed([["a red square", picture], [picture]], model="tiny")
    expected = model.embed(text=["a red square", None], image=[png, png])["fused"]
    assert near(fused.embeddings, expected)
    assert (fused.text_tokens > 0, fused.image_pixels > 0) == (True, True)
    with pytest.raises(voyageai.error.APIError, match="there is no model of that name here"):
        client.embed(["a"], model="other")


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient(served: str, texts: np.ndarray, binary: bool) -> None:
    client = tritonclient.http.InferenceServerClient(served.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.get_model_metadata("tiny")["outputs"][0]["name"] == "embedding"
    tensor = tritonclient.http.InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array(TEXTS, dtype=object), binary_data=binary)
    outputs = [tritonclient.http.InferRequestedOutput("embedding", binary_data=binary)]
    for wanted in (outputs, None):
        result = client.infer("tiny", [tensor], outputs=wanted)
        assert near(result.as_numpy("embedding"), texts)
    with pytest.raises(tritonclient.utils.InferenceServerException) as caught:
        client.infer("other", [tensor])
    # the envelope is that of all paths, which this client hands on as it is
    assert caught.value.status() == "404"
    assert caught.value.message()["code"] == "model_not_found"
    client.close()


def test_tritonclient_sends_files_as_they_are(
    served: str, model: TrimodalModel, png: bytes, wav: bytes
) -> None:
    client = tritonclient.http.InferenceServerClient(served.removeprefix("http://"))
    tensors = []
    for name, data in (("image", png), ("audio", wav)):
        tensor = tritonclient.http.InferInput(name, [1], "BYTES")
        tensor.set_data_from_numpy(np.array([data], dtype=object))
        tensors.append(tensor)
    found = client.infer("tiny", tensors).as_numpy("embedding")
    client.close()
    assert near(found, model.embed(image=[png], speech=[wav])["fused"])
