"""One batch on the model; samples that make it fail are found and fail alone.

results = Worker(model, token_budget=16_384)(samples)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trimodal.batch import Sample
from trimodal.config import ModelConfig
from trimodal_serving.errors import ServingError, internal, nonfinite

if TYPE_CHECKING:
    from trimodal.processors import TrimodalProcessor


class Embedder(Protocol):
    """What the server needs of a model."""

    @property
    def processor(self) -> "TrimodalProcessor | None":
        """Turns media into numbers, exactly as in training."""
        ...

    @property
    def architecture(self) -> ModelConfig:
        """The sizes of the model."""
        ...

    @property
    def config(self) -> Any:
        """Says in `generates` what the model learnt to generate."""
        ...

    def embed_samples(
        self, samples: Sequence[Sample], token_budget: int = 16_384
    ) -> dict[str, np.ndarray]:
        """(N, E) float32 under `fused`: the unit-norm embedding of all that a sample holds."""
        ...


class Worker:
    """Computes batches; is only ever called from one thread."""

    def __init__(self, model: Embedder, token_budget: int) -> None:
        self._model = model
        self._token_budget = token_budget

    def __call__(self, samples: Sequence[Sample]) -> list[np.ndarray | ServingError]:
        """An embedding (E,) or an error for each sample.

        A batch that raises is halved until the samples that raise are alone, each with an error
        that has the exception as its cause; a sample whose vector is not a unit vector is tried
        once more by itself.
        """
        try:
            vectors = self._model.embed_samples(samples, self._token_budget)["fused"]
            norms = np.linalg.norm(vectors, axis=1)
            healthy = np.isfinite(vectors).all(axis=1) & (abs(norms - 1) < 0.01)
            results = [
                self._accept(*row, len(samples))
                for row in zip(samples, vectors, healthy, strict=True)
            ]
        except Exception as error:
            if len(samples) > 1:
                half = len(samples) // 2
                return self(samples[:half]) + self(samples[half:])
            return [internal(cause=error)]
        return results

    def _accept(
        self, sample: Sample, vector: np.ndarray, healthy: bool, batch_size: int
    ) -> np.ndarray | ServingError:
        if healthy:
            return vector
        if batch_size > 1:
            return self([sample])[0]
        return nonfinite()
