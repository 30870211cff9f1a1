"""Vectors of the rows of a manifest, a chunk at a time, so that media never fill the memory.

vectors = embed_rows(model, read_manifest("test.jsonl"))["image"]
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trimodal.batch import Modality, Sample
from trimodal.config import ModelConfig
from trimodal.data import Row
from trimodal.errors import DataError, NumericError, StorageError
from trimodal.processors import TrimodalProcessor
from trimodal.progress import Progress
from trimodal.workers import Workers

if TYPE_CHECKING:
    from trimodal.models import TrimodalModel

TOKEN_BUDGET = 16_384
BUDGETS_A_CHUNK = 4
"""Token budgets whose media are in memory at once: enough for the packer to choose from."""
ROWS = 1024
"""Of a part that one worker does."""
SINGLES = ("image", "text", "speech")
NAMES = (*SINGLES, "fused")
PAIRS = {"image+text": "speech", "image+speech": "text", "speech+text": "image"}
"""Two modalities fused, and the third that they are to find."""


class Embedder(Protocol):
    """What evaluation needs of a model; see `trimodal.models.TrimodalModel`."""

    @property
    def architecture(self) -> ModelConfig:
        """Its sizes, among them the lengths at which a vector may be cut."""
        ...

    @property
    def processor(self) -> TrimodalProcessor | None:
        """What turns media into numbers for it."""
        ...

    @property
    def config(self) -> Any:
        """The configuration that is saved with it; `class_inputs` are what its head looks at."""
        ...

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The classes of its classification head; empty if it has none."""
        ...

    def embed_samples(
        self, samples: Sequence[Sample], token_budget: int = TOKEN_BUDGET
    ) -> dict[str, np.ndarray]:
        """`image`, `text`, `speech` and `fused` (N, E), unit norm, NaN rows where absent."""
        ...

    def classify_samples(
        self, samples: Sequence[Sample], token_budget: int = TOKEN_BUDGET
    ) -> np.ndarray:
        """Probabilities (N, C) of `class_labels`."""
        ...


def load_model(folder: str | Path, weights: str = "fp32", device: str = "auto") -> "TrimodalModel":
    """The model of a folder, on the GPU if there is one.

    Args:
        folder: of the model.
        weights: what its matrices are kept in, see `trimodal.load`.
        device: `cpu` or `cuda` instead.

    Raises:
        ConfigError: there is no such device.
        StorageError: the folder is not a trimodal model, or damaged.
    """
    from trimodal.models.loading import chosen_device, load

    return load(folder, chosen_device(device), weights)


def processor_of(model: Embedder) -> TrimodalProcessor:
    """The model's processor.

    Raises:
        StorageError: it has none, so it was not read from a model folder.
    """
    if model.processor is None:
        raise StorageError("this model has no processor; load it with trimodal.load")
    return model.processor


def text_sample(processor: TrimodalProcessor, text: str, where: str) -> Sample:
    """A text alone.

    Raises:
        DataError: the text cannot be used; the message starts with `where`.
    """
    try:
        medium = processor.medium(Modality.TEXT, text)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return Sample(where, {Modality.TEXT: medium}, 0)


def read_sample(processor: TrimodalProcessor, row: Row, index: int = 0) -> Sample:
    """Everything a row has, its text in the row's own language.

    Raises:
        DataError: `FILE:LINE: cause`, a medium cannot be used.
    """
    sources = (row.image, next(iter(row.texts.values()), None), row.speech)
    try:
        media = {
            modality: processor.medium(modality, source)
            for modality, source in zip(Modality, sources, strict=True)
            if source is not None
        }
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from error
    return Sample(row.id, media, index)


def sample_chunks(
    processor: TrimodalProcessor, rows: Sequence[Row], token_budget: int
) -> Iterator[list[Sample]]:
    """The rows as samples, in order, in lists of a few token budgets.

    Raises:
        DataError: as `read_sample`.
    """
    chunk: list[Sample] = []
    tokens = 0
    for index, row in enumerate(rows):
        chunk.append(read_sample(processor, row, index))
        tokens += chunk[-1].num_tokens
        if tokens >= BUDGETS_A_CHUNK * token_budget:
            yield chunk
            chunk, tokens = [], 0
    if chunk:
        yield chunk


def only(sample: Sample, modalities: Collection[Modality]) -> Sample:
    """The sample without its other media."""
    return replace(sample, media={m: x for m, x in sample.media.items() if m in modalities})


def present(vectors_NE: np.ndarray) -> np.ndarray:
    """Which rows (N,) are there: those that are not NaN."""
    return np.asarray(np.isfinite(vectors_NE).all(axis=1))


def languages_of(rows: Sequence[Row]) -> list[str]:
    """The languages in which any row has a text, sorted."""
    return sorted({lang for row in rows for lang in row.texts})


def embed_rows(
    model: Embedder,
    rows: Sequence[Row],
    *,
    variants: bool = False,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Vectors (N, E) float32 by name, NaN where a row lacks what the name says.

    Args:
        model: computes them.
        rows: their media are read as they are needed.
        variants: besides `image`, `text` (in the row's own language), `speech` and `fused` (of
            all that a row has), also two modalities fused (`image+text`, ...) where the manifest
            has the third, and `text[LANG]` where it has several languages.
        token_budget: tokens computed at once.
        progress: say on stderr how far it is.

    Raises:
        DataError: `FILE:LINE: cause`, a medium cannot be used.
        NumericError: the model gives numbers that are not finite.
    """
    wanted = _wanted(rows, variants)
    with Progress(len(rows), "embedded", shown=progress) as bar:
        step = _Embedding(lambda: model, list(wanted), token_budget, bar.advance)
        return _joined(rows, map(step, _parts_of(rows)), wanted)


def embed_with(
    workers: Workers,
    make: Callable[[], Embedder],
    rows: Sequence[Row],
    *,
    variants: bool = False,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """As `embed_rows`, by workers, each of which makes a model of its own.

    Raises:
        DataError: `FILE:LINE: cause`, a medium cannot be used.
        NumericError: the model gives numbers that are not finite.
    """
    wanted = _wanted(rows, variants)
    step = partial(_Embedding, make, list(wanted), token_budget)
    with Progress(len(rows), "embedded", shown=progress) as bar:

        def counted() -> Iterator[dict[str, np.ndarray]]:
            for part in workers.map(step, _parts_of(rows), gpu=True):
                bar.advance(len(part["fused"]))
                yield part

        return _joined(rows, counted(), wanted)


def _parts_of(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Where they are cut decides what is packed together, so it depends on nothing else."""
    return [rows[first : first + ROWS] for first in range(0, max(1, len(rows)), ROWS)]


def _joined(
    rows: Sequence[Row], parts: Iterable[dict[str, np.ndarray]], wanted: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    done = list(parts)
    vectors = {name: np.concatenate([part[name] for part in done]) for name in wanted}
    _check(rows, vectors, wanted)
    return vectors


class _Embedding:
    """Rows to vectors (N, E) by name."""

    def __init__(
        self,
        make: Callable[[], Embedder],
        names: Sequence[str],
        token_budget: int,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.model = make()
        self.processor = processor_of(self.model)
        self.names, self.token_budget, self.progress = names, token_budget, progress

    def __call__(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        dim, done = self.model.architecture.embedding_dim, 0
        vectors = {name: np.full((len(rows), dim), np.nan, dtype=np.float32) for name in self.names}
        for samples in sample_chunks(self.processor, rows, self.token_budget):
            here = slice(done, done + len(samples))
            for name, part_NE in self.model.embed_samples(samples, self.token_budget).items():
                vectors[name][here] = part_NE
            parts = [
                (name, done + i, part)
                for i, sample in enumerate(samples)
                for name, part in _parts(self.processor, rows[done + i], sample, self.names)
            ]
            if parts:
                made = [part for *_, part in parts]
                fused = self.model.embed_samples(made, self.token_budget)["fused"]
                for (name, i, _), vector in zip(parts, fused, strict=True):
                    vectors[name][i] = vector
            done += len(samples)
            self.progress(len(samples))
        return vectors


def _wanted(rows: Sequence[Row], variants: bool) -> dict[str, np.ndarray]:
    """For each name of `embed_rows` the rows (N,) that have it."""
    has = {name: np.array([name in row.data_names for row in rows], bool) for name in SINGLES}
    wanted = {**has, "fused": np.ones(len(rows), bool)}
    languages = languages_of(rows)
    if variants:
        for pair, third in PAIRS.items():
            first, second = pair.split("+")
            if has[third].any() and (has[first] & has[second]).any():
                wanted[pair] = has[first] & has[second]
        for lang in languages if len(languages) > 1 else ():
            wanted[f"text[{lang}]"] = np.array([lang in row.texts for row in rows], bool)
    return wanted


def _parts(
    processor: TrimodalProcessor, row: Row, sample: Sample, names: Collection[str]
) -> Iterator[tuple[str, Sample]]:
    """The variants of one row, as samples of their own."""
    for pair in PAIRS:
        members = {Modality.of(name) for name in pair.split("+")}
        if pair in names and members <= sample.media.keys():
            yield pair, only(sample, members)
    for lang, text in row.texts.items():
        if f"text[{lang}]" in names:
            yield f"text[{lang}]", text_sample(processor, text, row.where)


def _check(
    rows: Sequence[Row], vectors: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]
) -> None:
    """A vector that is not finite must not pass for an absent one."""
    for name, has_N in wanted.items():
        broken = np.flatnonzero(has_N & ~present(vectors[name]))
        if broken.size:
            raise NumericError(
                f"{rows[broken[0]].where}: the model's {name} vector is not finite, "
                f"as {broken.size} of {int(has_N.sum())} are"
            )
