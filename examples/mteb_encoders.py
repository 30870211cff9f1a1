"""Evaluate a model with MTEB, from the library or behind its server.

python examples/mteb_encoders.py runs/demo/model STS12
python examples/mteb_encoders.py http://127.0.0.1:8000 STS12 --name demo
"""

import argparse
import base64
import json
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import mteb
import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from PIL import Image

import trimodal
from trimodal.processors.encoding import picture_bytes, speech_bytes

Row = dict[str, Any]
COLUMNS = ("text", "image", "audio")
UNKNOWN = (
    "revision",
    "release_date",
    "languages",
    "n_parameters",
    "memory_usage_mb",
    "max_tokens",
    "embed_dim",
    "license",
    "open_weights",
    "public_training_code",
    "public_training_data",
    "use_instructions",
    "training_datasets",
)
"""What MTEB would like to know of a model, and its folder does not say."""


def rows_of(batch: Mapping[str, Sequence[Any]]) -> list[Row]:
    """What each row of a batch of MTEB's holds: a text, bytes of a picture, bytes of speech."""
    columns = {name: batch[name] for name in COLUMNS if name in batch}
    encode = {"text": str, "image": _picture, "audio": _speech}
    size = len(next(iter(columns.values())))
    return [
        {name: encode[name](column[i]) for name, column in columns.items()} for i in range(size)
    ]


def _picture(image: Image.Image) -> bytes:
    return picture_bytes(np.asarray(image.convert("RGB")))


def _speech(audio: Mapping[str, Any]) -> bytes:
    samples = np.asarray(audio["array"], np.float32)
    return speech_bytes(samples, int(audio["sampling_rate"]))


class Encoder(AbsEncoder):
    """What MTEB asks of a model; a row with several media has one fused vector."""

    def __init__(self, name: str) -> None:
        """Tell MTEB what is evaluated.

        Args:
            name: under which results are kept.
        """
        self.mteb_model_meta = ModelMeta(
            loader=None,
            name=f"trimodal/{name}",
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.COSINE,
            modalities=["text", "image", "audio"],
            **dict.fromkeys(UNKNOWN),
        )

    def encode(self, inputs: Iterable[Mapping[str, Sequence[Any]]], **_: Any) -> np.ndarray:
        """(N, E) float32 vectors of all rows of all batches."""
        return np.concatenate([self.vectors(rows_of(batch)) for batch in inputs])

    def vectors(self, rows: Sequence[Row]) -> np.ndarray:
        """(N, E) float32 vectors of some rows."""
        raise NotImplementedError


class LibraryEncoder(Encoder):
    """A model folder."""

    def __init__(self, folder: str) -> None:
        super().__init__("library")
        self._model = trimodal.load(folder)

    def vectors(self, rows: Sequence[Row]) -> np.ndarray:
        """(N, E) float32 vectors of some rows."""
        columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
        return self._model.embed(
            text=columns["text"], image=columns["image"], speech=columns["audio"]
        )["fused"]


class ServerEncoder(Encoder):
    """A server, which is asked over HTTP with nothing but Python's own client."""

    MOST = 32

    def __init__(self, url: str, name: str) -> None:
        super().__init__("server")
        self._url, self._name = url, name

    def vectors(self, rows: Sequence[Row]) -> np.ndarray:
        """(N, E) float32 vectors of some rows."""
        parts = [rows[i : i + self.MOST] for i in range(0, len(rows), self.MOST)]
        return np.concatenate([self._asked(part) for part in parts])

    def _asked(self, rows: Sequence[Row]) -> np.ndarray:
        inputs = [
            {k: v if k == "text" else base64.b64encode(v).decode() for k, v in row.items()}
            for row in rows
        ]
        tree = {"model": self._name, "input": inputs, "truncate": True}
        headers = {"content-type": "application/json", "accept": "application/octet-stream"}
        request = urllib.request.Request(  # noqa: S310 - the address is the user's own
            f"{self._url}/v1/embeddings", json.dumps(tree).encode(), headers
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            shape = [int(size) for size in answer.headers["x-embedding-shape"].split(",")]
            return np.frombuffer(answer.read(), "<f4").reshape(shape)


def main() -> None:
    """Print the main score of each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a model folder, or the address of a server")
    parser.add_argument("tasks", nargs="+", help="names of MTEB's tasks")
    parser.add_argument("--name", default="demo", help="what the server calls its model")
    options = parser.parse_args()
    remote = options.model.startswith("http")
    encoder = (
        ServerEncoder(options.model, options.name) if remote else LibraryEncoder(options.model)
    )
    tasks = mteb.get_tasks(tasks=options.tasks)
    for result in mteb.evaluate(cast("Any", encoder), tasks, cache=None).task_results:
        print(result.task_name, f"{result.get_score():.4f}")


if __name__ == "__main__":
    main()
