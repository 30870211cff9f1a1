from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trimodal.batch import Sample
from trimodal.models import TrimodalModel
from trimodal.testing import tiny_model


@pytest.fixture
def model() -> TrimodalModel:
    return tiny_model()


@pytest.fixture
def media() -> dict[str, Any]:
    """Nine rows of ragged media; every non-empty subset of the modalities occurs."""
    rng = np.random.default_rng(0)
    present = ["its", "it", "is", "ts", "i", "t", "s", "its", "its"]
    sizes = [(8, 12), (5, 5), (64, 4), (4, 4), (28, 28), (4, 4), (4, 4), (33, 17), (100, 100)]
    texts = ["seven", "红色的方块在左边", "a", "the square", "x", "红", "y", "white " * 9, "?"]
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    waves = [
        ((0.1 * rng.standard_normal(1000 * (i + 1))).astype(np.float32), 8000 + 1000 * i)
        for i in range(9)
    ]
    return {
        "image": [p if "i" in s else None for p, s in zip(pictures, present, strict=True)],
        "text": [t if "t" in s else None for t, s in zip(texts, present, strict=True)],
        "speech": [w if "s" in s else None for w, s in zip(waves, present, strict=True)],
    }


@pytest.fixture
def lively(request: pytest.FixtureRequest) -> TrimodalModel:
    """In double precision, with weights so large that every input changes every output.

    The parameter says whether its trunk sees summaries.
    """
    model = tiny_model(summaries=getattr(request, "param", True))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=2 * parameter.shape[1] ** -0.5)
    return model.double()


@pytest.fixture
def conditions(lively: TrimodalModel, media: dict[str, Any]) -> list[Sample]:
    """The nine rows as `lively` takes them."""
    assert lively.processor is not None
    found = []
    for sample in lively.processor(**media):
        doubled = {
            modality: replace(medium, features=medium.features.double())
            if medium.features.is_floating_point()
            else medium
            for modality, medium in sample.media.items()
        }
        found.append(replace(sample, media=doubled))
    return found
