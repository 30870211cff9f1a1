"""A model that recognises the tiny data by rule, and a saved model of random weights.

def test_something(oracle: Oracle, corpus: Path) -> None: ...
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trimodal.batch import Medium, Modality, Sample
from trimodal.config import (
    ContrastiveConfig,
    DataConfig,
    ModelConfig,
    ObjectivesConfig,
    RunConfig,
    dump_config,
)
from trimodal.evaluation.report import write_report
from trimodal.processors import TrimodalProcessor
from trimodal.testing import (
    COLOURS,
    tiny_model,
    tiny_model_config,
    tiny_tokenizer,
    write_tiny_manifest,
)

METRICS = """{"step": 1, "loss": 3.5, "masked": {"text": 2.0}, "seconds": 2, "mfu": 0.25}
{"step": 2, "loss": 2.5, "masked": {"text": 1.0}, "seconds": 4, "mfu": 0.35, "note": "warm"}
{"step": 3, "loss": NaN, "tokens_per_second": 1500.0, "seconds": 6}
"""


@dataclass
class Oracle:
    """Gives every medium the unit vector of the colour it tells of, or what `answer` says."""

    architecture: ModelConfig
    processor: TrimodalProcessor | None
    class_labels: tuple[str, ...] = ()
    config: Any = field(
        default_factory=lambda: SimpleNamespace(
            class_inputs=["image", "speech"], generates=[], answers=None
        )
    )
    answer: Callable[[Modality, int], int] = lambda _, colour: colour
    batches: list[int] = field(default_factory=list)
    """Samples of each call of `embed_samples`."""

    def embed_samples(
        self, samples: Sequence[Sample], token_budget: int = 16_384
    ) -> dict[str, np.ndarray]:
        self.batches.append(len(samples))
        names = ("image", "text", "speech", "fused")
        shape = (len(samples), self.architecture.embedding_dim)
        vectors = {name: np.full(shape, np.nan, np.float32) for name in names}
        for i, sample in enumerate(samples):
            for modality, medium in sample.media.items():
                colour = self.answer(modality, self._colour(medium))
                vectors[modality.data_name][i] = np.eye(shape[1])[colour]
            known = [vectors[m.data_name][i] for m in sample.media]
            total = np.sum(known, axis=0)
            vectors["fused"][i] = total / np.linalg.norm(total)
        return vectors

    def classify_samples(self, samples: Sequence[Sample], token_budget: int = 16_384) -> np.ndarray:
        return self.embed_samples(samples)["fused"][:, : len(self.class_labels)]

    def _colour(self, medium: Medium) -> int:
        if medium.modality is Modality.TEXT:
            assert self.processor is not None
            text = self.processor.text.decode(medium.features.tolist())
            return next(i for i, (w, c) in enumerate(COLOURS.items()) if w in text or c[0] in text)
        if medium.modality is Modality.SPEECH:
            loudest = int(medium.features.mean(dim=0).argmax())
            return int(np.argmin([abs(loudest - mel) for mel in (1, 2, 5.5, 9)]))
        rgb = (medium.features.reshape(len(medium.features), 3, -1).mean(dim=(0, 2)) + 1) * 127.5
        return int(np.argmin([np.abs(rgb.numpy() - c[1]).sum() for c in COLOURS.values()]))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 32 rows, of which half lack a modality or two."""
    return write_tiny_manifest(tmp_path_factory.mktemp("corpus"), rows=32, name="test")


@pytest.fixture
def oracle() -> Oracle:
    """A model without mistakes."""
    architecture = tiny_model_config()
    return Oracle(architecture, TrimodalProcessor(architecture, tiny_tokenizer()))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of random weights."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture
def run_dir(tmp_path: Path, corpus: Path, model_folder: Path) -> Path:
    """A finished run on the tiny data, without results."""
    return _write_run(tmp_path / "run", corpus, model_folder)


@pytest.fixture(scope="session")
def reported_run(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, model_folder: Path
) -> Path:
    """The same with its report and results; not to be changed."""
    folder = _write_run(tmp_path_factory.mktemp("reported") / "run", corpus, model_folder)
    write_report(folder)
    return folder


def _write_run(folder: Path, corpus: Path, model_folder: Path) -> Path:
    folder.mkdir()
    config = RunConfig(
        run_dir=str(folder),
        data=DataConfig(train=(str(corpus),), tokenizer="text.model", test=str(corpus)),
        model=tiny_model_config(),
        objectives=ObjectivesConfig(contrastive=ContrastiveConfig()),
    )
    dump_config(config, folder / "config.yaml")
    (folder / "metrics.jsonl").write_text(METRICS, encoding="utf-8")
    (folder / "model").symlink_to(model_folder)
    return folder
