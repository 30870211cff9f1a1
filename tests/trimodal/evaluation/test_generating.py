"""Generation for the rows of a manifest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trimodal.batch import Modality
from trimodal.data import Row, read_manifest
from trimodal.errors import DataError
from trimodal.evaluation import generating
from trimodal.evaluation.generating import generate_rows, row_seed
from trimodal.models import TrimodalModel
from trimodal.models.decoding import Decoding
from trimodal.models.generation import Generation, Request, generate
from trimodal.testing import tiny_model, write_tiny_manifest

V, T, S = Modality
SHORT = Decoding(max_tokens=4)


@pytest.fixture(scope="module")
def model() -> TrimodalModel:
    return tiny_model()


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    return read_manifest(write_tiny_manifest(tmp_path, rows=4, complete=True))


def made(
    model: TrimodalModel,
    rows: list[Row],
    sources: list[Modality],
    request: Request,
    seed: int = 0,
    source_lang: str | None = None,
) -> list[Generation]:
    found: list[Generation] = []
    for start, part in generate_rows(
        model, rows, sources, request, SHORT, seed=seed, source_lang=source_lang
    ):
        assert start == len(found)
        found += part
    assert len(found) == len(rows)
    return found


def same(first: list[Generation], second: list[Generation]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(a.target.ids.tolist() == b.target.ids.tolist() for a, b in pairs)


@pytest.mark.parametrize("to", list(Modality))
def test_a_row_depends_on_its_id_and_the_seed_alone(
    model: TrimodalModel, rows: list[Row], to: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(to=to, size=(4, 8) if to is V else None)
    together = made(model, rows, [V], request)
    assert same(made(model, rows[::-1], [V], request)[::-1], together)
    assert same(made(model, rows[1:2], [V], request), together[1:2])
    monkeypatch.setattr(generating, "ROWS_A_CHUNK", 3)
    assert same(made(model, rows, [V], request), together)
    assert not same(made(model, rows, [V], request, seed=1), together)
    assert len({row_seed(0, row) for row in rows} | {row_seed(1, row) for row in rows}) == 8


@pytest.mark.parametrize("sources", [[V], [T], [S], [V, S], [V, T, S]])
def test_only_the_sources_are_observed(
    model: TrimodalModel, rows: list[Row], sources: list[Modality]
) -> None:
    processor, request = model.processor, Request(to=T)
    assert processor is not None
    found = made(model, rows, sources, request)
    media = {V: [r.image for r in rows], S: [r.speech for r in rows]}
    media[T] = [next(iter(r.texts.values())) for r in rows]  # pyright: ignore[reportArgumentType]
    columns = {m.data_name: media[m] for m in sources}
    seeds = [row_seed(0, row) for row in rows]
    samples = processor(**columns)  # pyright: ignore[reportArgumentType]
    assert same(found, generate(model, samples, request, SHORT, seeds))
    lost = [replace(row, image=Path("nowhere.png")) for row in rows]
    if V not in sources:
        assert same(made(model, lost, sources, request), found)


def test_a_text_is_observed_in_the_language_that_is_asked_for(
    model: TrimodalModel, rows: list[Row]
) -> None:
    both = [replace(rows[0], texts={"en": "a red square", "zh": "红色的方块"})]
    for lang, text in both[0].texts.items():
        alone = [replace(rows[0], texts={lang: text})]
        request = Request(to=S)
        expected = made(model, alone, [T], request)
        assert same(made(model, both, [T], request, source_lang=lang), expected)
    chinese = [replace(rows[0], texts={"zh": "红色的方块"})]
    with pytest.raises(DataError, match=r"train\.jsonl:1: has no text to generate from"):
        made(model, chinese, [T], Request(to=S), source_lang="en")


def test_an_answer_observes_the_question_in_place_of_the_text(
    model: TrimodalModel, rows: list[Row]
) -> None:
    asking = [replace(row, question="is it red?") for row in rows]
    request = Request(to=T, answer=True)
    found = made(model, asking, [V, T], request)
    other = [replace(row, texts={"en": "another text"}) for row in asking]
    assert same(made(model, other, [V, T], request), found)
    processor = model.processor
    assert processor is not None
    samples = processor(image=[r.image for r in rows], text=["is it red?"] * len(rows))
    seeds = [row_seed(0, row) for row in rows]
    assert same(generate(model, samples, request, SHORT, seeds), found)
    with pytest.raises(DataError, match=r"train\.jsonl:1: has no text question to generate from"):
        made(model, rows, [V, T], request)


def test_a_row_without_a_source_is_named(model: TrimodalModel, rows: list[Row]) -> None:
    lacking = [rows[0], replace(rows[1], speech=None)]
    with pytest.raises(DataError, match=r"train\.jsonl:2: has no speech to generate from"):
        made(model, lacking, [V, S], Request(to=T))
    assert isinstance(rows[1].image, Path)
    rows[1].image.write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"train\.jsonl:2: image is not a PNG"):
        made(model, rows, [V], Request(to=T))


def test_outputs_are_finished(model: TrimodalModel, rows: list[Row]) -> None:
    (text, *_) = made(model, rows, [V], Request(to=T))
    assert isinstance(text.output, str)
    (picture, *_) = made(model, rows, [T], Request(to=V))
    assert isinstance(picture.output, np.ndarray)
    assert picture.output.shape == (12, 16, 3)
