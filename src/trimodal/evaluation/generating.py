"""Generation for the rows of a manifest, a chunk at a time.

for start, outputs in generate_rows(model, rows, ["image"], Request(to=Modality.TEXT)): ...
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trimodal.batch import Modality, Sample
from trimodal.data import Row
from trimodal.errors import DataError
from trimodal.evaluation.embedding import TOKEN_BUDGET, only, processor_of, read_sample
from trimodal.streams import digest

if TYPE_CHECKING:
    from trimodal.models import TrimodalModel
    from trimodal.models.decoding import Decoding
    from trimodal.models.generation import Generation, Request

ROWS_A_CHUNK = 256


def row_seed(seed: int, row: Row) -> int:
    """The seed of one row's draws, whatever other rows there are."""
    return digest("generate", seed, row.id) >> 1


def generate_rows(
    model: "TrimodalModel",
    rows: Sequence[Row],
    sources: Sequence[Modality],
    request: "Request",
    decoding: "Decoding",
    *,
    seed: int = 0,
    source_lang: str | None = None,
    token_budget: int = TOKEN_BUDGET,
) -> Iterator[tuple[int, list["Generation"]]]:
    """The index of the first row of each chunk, and the outputs of its rows.

    Args:
        model: with its processor.
        rows: those that have all sources.
        sources: which media of a row are observed; for an answer, its written question takes the
            place of its text and its spoken one that of its speech.
        request: what to generate.
        decoding: how ids are chosen.
        seed: with the id of a row, decides its draws.
        source_lang: the language of observed texts, where a row has several.
        token_budget: tokens held at once.

    Raises:
        DataError: `FILE:LINE: cause`, a row lacks a source or it cannot be used.
    """
    from trimodal.models.generation import generate

    for start in range(0, len(rows), ROWS_A_CHUNK):
        chunk = rows[start : start + ROWS_A_CHUNK]
        samples = [_sample(model, row, sources, request.answer, source_lang) for row in chunk]
        seeds = [row_seed(seed, row) for row in chunk]
        yield start, generate(model, samples, request, decoding, seeds, token_budget=token_budget)


def _sample(
    model: "TrimodalModel",
    row: Row,
    sources: Sequence[Modality],
    answer: bool,
    lang: str | None,
) -> Sample:
    texts, speech = row.texts, row.speech
    if answer:
        texts, speech = {} if row.question is None else {"": row.question}, row.question_speech
    elif lang is not None:
        texts = {name: text for name, text in row.texts.items() if name == lang}
    has = {Modality.VISION: row.image, Modality.TEXT: texts, Modality.SPEECH: speech}
    for modality in sources:
        if not has[modality]:
            question = answer and modality is not Modality.VISION
            name = f"{modality.data_name} question" if question else modality.data_name
            raise DataError(f"{row.where}: has no {name} to generate from")
    chosen = replace(
        row,
        image=row.image if Modality.VISION in sources else None,
        texts=texts if Modality.TEXT in sources else {},
        speech=speech if Modality.SPEECH in sources else None,
    )
    return only(read_sample(processor_of(model), chosen), set(sources))
