"""MTEB measures the server and the library alike, on tasks that are made here."""

import importlib.util
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from PIL import Image

from trimodal.models import TrimodalModel

ROOT = Path(__file__).parents[2]
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 70, 220),
    "white": (240, 240, 240),
}


class Colours(AbsTaskRetrieval):
    """Pictures by their names."""

    metadata = TaskMetadata(
        name="Colours",
        description="Pictures of a colour by its name.",
        reference=None,
        dataset={"path": "nowhere/colours", "revision": "1"},
        type="Any2AnyRetrieval",
        category="t2i",
        modalities=["text", "image"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation="",
    )

    def load_data(self, num_proc: int | None = None, *_: Any, **__: Any) -> None:
        """Made, not fetched."""
        pictures = [Image.new("RGB", (8, 8), colour) for colour in COLOURS.values()]
        names = list(COLOURS)
        self.dataset = {
            "default": {
                "test": {
                    "corpus": Dataset.from_dict(
                        {"id": names, "image": pictures, "modality": ["image"] * 4}
                    ),
                    "queries": Dataset.from_dict(
                        {"id": [f"q-{name}" for name in names], "text": names}
                    ),
                    "relevant_docs": {f"q-{name}": {name: 1} for name in names},
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True


@pytest.fixture(scope="module")
def encoders() -> Any:
    spec = importlib.util.spec_from_file_location("encoders", ROOT / "examples/mteb_encoders.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_server_scores_as_the_library_does(
    encoders: Any, served: str, model: TrimodalModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "model")
    scores = []
    for encoder in (
        encoders.LibraryEncoder(str(tmp_path / "model")),
        encoders.ServerEncoder(served, "tiny"),
    ):
        result = mteb.evaluate(encoder, Colours(), cache=None, show_progress_bar=False)
        (found,) = result.task_results[0].scores["test"]
        scores.append({key: value for key, value in found.items() if isinstance(value, float)})
    assert scores[0] == scores[1]
    assert 0 < scores[0]["ndcg_at_10"] <= 1


def test_rows_of_every_kind_have_the_same_vectors(
    encoders: Any, served: str, model: TrimodalModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "model")
    tone = 0.3 * np.sin(np.arange(4_000) * 0.1)
    batch = {
        "text": ["red"] * 33,
        "audio": [{"array": tone, "sampling_rate": 16_000}] * 33,
    }
    vectors = [
        encoder.encode([batch, {"image": [Image.new("L", (5, 4), 99)]}])
        for encoder in (
            encoders.LibraryEncoder(str(tmp_path / "model")),
            encoders.ServerEncoder(served, "tiny"),
        )
    ]
    assert vectors[0].shape == (34, 16)
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-5
