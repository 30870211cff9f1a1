"""A tiny real model, media of every kind, and a server on loopback for the tests of serving.

def test_something(base_url: str, png: bytes) -> None: ...
"""

import asyncio
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import openai
import pytest
import soundfile
import torch
from PIL import Image

import trimodal
from trimodal.batch import Modality, Sample
from trimodal.config import ModelConfig
from trimodal.models import TrimodalConfig, TrimodalModel
from trimodal.processors import TrimodalProcessor
from trimodal.schema import to_dict
from trimodal.testing import GENERATES, tiny_model_config, tiny_tokenizer, tiny_tokenizers
from trimodal.tokenizers import Vocoder, VocoderConfig
from trimodal_serving.app import create_app
from trimodal_serving.command import http_server
from trimodal_serving.engine import Engine
from trimodal_serving.nursery import LastingNursery
from trimodal_serving.openapi import named, schema_of
from trimodal_serving.operations import FORM, Operation
from trimodal_serving.service import Service


class ScriptedModel:
    """The tiny model, made to fail, to wait, or to remember what it was asked."""

    def __init__(self, model: TrimodalModel) -> None:
        self._model = model
        self.batches: list[list[str]] = []
        """The ids of the samples of each batch, which say where in the request they stood."""
        self.raises: Callable[[Sample], bool] = lambda _: False
        self.broken: Callable[[Sample], bool] = lambda _: False
        self.fails_at = 0
        """The step of generation that raises."""
        self.gate = threading.Event()
        """While it is not set, batches wait."""
        self.gate.set()
        self.entered = threading.Event()
        self.steps = 0
        """How often the next pieces or codes were computed."""

    @property
    def processor(self) -> TrimodalProcessor | None:
        return self._model.processor

    @property
    def architecture(self) -> ModelConfig:
        return self._model.architecture

    @property
    def config(self) -> Any:
        return self._model.config

    def __getattr__(self, name: str) -> Any:
        """What generation needs besides is the model's."""
        return getattr(self._model, name)

    def continuations(self, h_ND: torch.Tensor) -> torch.Tensor:
        self._step()
        return self._model.continuations(h_ND)

    def code_logits(self, h_TD: torch.Tensor, modality: Modality) -> torch.Tensor:
        self._step()
        return self._model.code_logits(h_TD, modality)

    def _step(self) -> None:
        self.steps += 1
        self.entered.set()
        self.gate.wait(20)
        if self.steps == self.fails_at:
            raise RuntimeError("secret of the library at 0x7f0000000000")

    def embed_samples(
        self, samples: Sequence[Sample], token_budget: int = 16_384
    ) -> dict[str, np.ndarray]:
        self.batches.append([sample.id for sample in samples])
        self.entered.set()
        self.gate.wait(20)
        if any(map(self.raises, samples)):
            raise RuntimeError("secret of the library at 0x7f0000000000")
        vectors = self._model.embed_samples(samples, token_budget)
        for i, sample in enumerate(samples):
            if self.broken(sample):
                vectors["fused"][i] = np.nan
        return vectors


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model; every weight is random, so that a mixed-up row is a different vector."""
    torch.manual_seed(0)
    architecture = tiny_model_config()
    model = TrimodalModel(TrimodalConfig(architecture=to_dict(architecture), generates=GENERATES))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.processor = TrimodalProcessor(architecture, tiny_tokenizer(), tiny_tokenizers())
    folder = tmp_path_factory.mktemp("tiny") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(model_folder: Path) -> TrimodalModel:
    return trimodal.load(model_folder)


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.Runner]:
    """For tests that share what belongs to one event loop."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def nursery(loop: asyncio.Runner) -> Iterator[LastingNursery]:
    """Forks real processes; it is shared, as it imports for seconds, and ends when it is closed."""
    lasting = LastingNursery()
    yield lasting
    last = lasting._nursery
    loop.run(lasting.close())
    if last is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(last._process.pid, 0)


@pytest.fixture
def voiced(model: TrimodalModel, monkeypatch: pytest.MonkeyPatch) -> TrimodalModel:
    """The model with a vocoder; its utterances have the 15 codes that there is room for."""
    assert model.processor is not None
    codes = model.processor.codes
    assert codes is not None
    config = VocoderConfig(width=8, depth=0, kernel=3, speech_input=codes.config.speech_input)
    vocoder = Vocoder(config).eval()
    monkeypatch.setattr(codes, "tokenizers", replace(codes.tokenizers, vocoder=vocoder))
    monkeypatch.setattr("trimodal.models.generation.draw_length", lambda *given: given[-1])
    return model


class Turned:
    """A model with every vector turned round, which so is another one."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_samples(self, *args: Any, **kwargs: Any) -> Any:
        return {"fused": -self._model.embed_samples(*args, **kwargs)["fused"]}


@pytest.fixture(scope="session")
def turned(model: TrimodalModel) -> Turned:
    return Turned(model)


@pytest.fixture
def scripted(model: TrimodalModel) -> Iterator[ScriptedModel]:
    scripted = ScriptedModel(model)
    yield scripted
    scripted.gate.set()


@pytest.fixture(scope="session")
def text_sample(model: TrimodalModel) -> Callable[[str], Sample]:
    """Makes a sample of a text, whose id is the text."""
    processor = model.processor
    assert processor is not None
    return lambda text: Sample(text, {Modality.TEXT: processor.medium(Modality.TEXT, text)}, 0)


@pytest.fixture(scope="session")
def png() -> bytes:
    """A picture of 9 x 7 pixels."""
    pixels = np.arange(9 * 7 * 3, dtype=np.uint8).reshape(7, 9, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def wav() -> bytes:
    """Half a second of a tone at 16 kHz."""
    stream = io.BytesIO()
    tone = 0.3 * np.sin(np.arange(8_000) * 0.1)
    soundfile.write(stream, tone, 16_000, format="WAV", subtype="PCM_16")
    return stream.getvalue()


@pytest.fixture(scope="session")
def serve() -> Callable[..., "Server"]:
    """Makes a server, to be used in a `with` statement."""
    return Server


class Server:
    """A model behind a real socket, in a thread of this process."""

    def __init__(
        self,
        engine: Engine,
        max_body_bytes: int = 1 << 20,
        services: Mapping[str, Service] | None = None,
        **options: Any,
    ) -> None:
        every = {"tiny": engine, **(services or {})}
        self._server = http_server(create_app(every, max_body_bytes, **options))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)

    def wait_until_ready(self, key: str | None = None) -> "Server":
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        transport = httpx.HTTPTransport(retries=5)
        with httpx.Client(transport=transport) as client:
            for _ in range(1000):
                if client.get(f"{self.url}/readyz", headers=headers).status_code == 200:
                    return self
                time.sleep(0.01)
        raise AssertionError("the server did not become ready")


@pytest.fixture(scope="session")
def sdk(base_url: str) -> Iterator[openai.OpenAI]:
    """OpenAI's client of the shared server."""
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def base_url(model: TrimodalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that is shared by tests which leave it healthy."""
    indexes = tmp_path_factory.mktemp("indexes")
    with Server(Engine(lambda: model), indexes=indexes) as server:
        yield server.wait_until_ready().url


@pytest.fixture(scope="session")
def replay(base_url: str, wav: bytes) -> Callable[[Operation], httpx.Response]:
    """Sends the example of an operation, and holds the answer against what is said of it."""

    def replay(operation: Operation) -> httpx.Response:
        path = operation.path
        for key, value in named(dict(operation.path_example), "tiny").items():
            path = path.replace(f"{{{key}}}", value)
        body = named(dict(operation.example or {}), "tiny")
        sent: dict[str, Any] = {"json": body} if operation.example else {}
        if operation.kind == FORM:
            sent = {"data": body, "files": {"file": ("a.wav", wav)}}
        answer = httpx.request(operation.method, f"{base_url}{path}", timeout=30, **sent)
        assert answer.status_code == operation.status, answer.text
        assert answer.headers["content-type"].startswith(operation.answer_kind)
        if operation.answer is not None:
            jsonschema.validate(answer.json(), schema_of(operation.answer, operation.optional))
        return answer

    return replay
