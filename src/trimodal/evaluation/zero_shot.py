"""Classification by class prompts alone, as in CLIP (Radford et al., 2021).

prompts = find_prompts(None, manifest, rows)
scores = zero_shot(vectors["image"], labels, embed_prompts(model, prompts), "en")
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trimodal.data import Row
from trimodal.data.manifest import manifest_of
from trimodal.errors import DataError, StorageError
from trimodal.evaluation.classification import classification_scores
from trimodal.evaluation.embedding import (
    TOKEN_BUDGET,
    Embedder,
    present,
    processor_of,
    text_sample,
)
from trimodal.evaluation.retrieval import TIE
from trimodal.models import cut
from trimodal.storage import beside, is_file, read_bytes

FILE = "prompts.json"
FROM_ROWS = "the manifest's texts"


@dataclass(frozen=True)
class Prompts:
    """What each class is called."""

    source: str
    """The file, or `FROM_ROWS`."""
    texts: Mapping[str, Mapping[str, Sequence[str]]]
    """By label, by language, at least one."""

    @property
    def languages(self) -> list[str]:
        """Those in which two classes or more have prompts, sorted."""
        every = sorted({lang for texts in self.texts.values() for lang in texts})
        return [lang for lang in every if len(self.classes(lang)) > 1]

    def classes(self, lang: str) -> list[str]:
        """The labels that have prompts in a language, sorted."""
        return sorted(label for label, texts in self.texts.items() if lang in texts)


def find_prompts(path: str | Path | None, manifest: str | Path, rows: Sequence[Row]) -> Prompts:
    """The prompts of `path`, else of `prompts.json` beside the manifest, else of the rows.

    From the rows, the prompts of a class are the distinct texts of its rows.

    Raises:
        DataError: the file is not `{"label": {"en": ["text", ...], ...}, ...}`, or a row has a
            label that is not in it.
    """
    found = beside(manifest_of(manifest), FILE)
    if path is None and not is_file(found):
        return Prompts(FROM_ROWS, _texts_of(rows))
    prompts = read_prompts(found if path is None else path)
    for row in rows:
        if row.label is not None and row.label not in prompts.texts:
            raise DataError(f"{row.where}: label {row.label!r} has no prompts in {prompts.source}")
    return prompts


def read_prompts(path: str | Path) -> Prompts:
    """Read a file of prompts.

    Raises:
        DataError: as `find_prompts`.
    """
    try:
        tree = json.loads(read_bytes(path))
    except StorageError as error:
        raise DataError(f"prompts {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"prompts {path}: not JSON: {error}") from error
    if not isinstance(tree, dict) or not tree:
        raise DataError(f"prompts {path}: expected an object with a key for each label")
    for label, languages in tree.items():
        if not isinstance(languages, dict) or not languages:
            raise DataError(f"prompts {path}: {label!r} must hold an object of languages")
        for lang, texts in languages.items():
            strings = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
            if not strings or not texts:
                raise DataError(f"prompts {path}: {label!r}, {lang!r} must be a list of texts")
    return Prompts(str(path), tree)


def _texts_of(rows: Sequence[Row]) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        if row.label is not None:
            for lang, text in row.texts.items():
                found.setdefault(row.label, {}).setdefault(lang, set()).add(text)
    return {
        label: {lang: sorted(texts) for lang, texts in languages.items()}
        for label, languages in found.items()
    }


@dataclass(frozen=True)
class PromptVectors:
    """Vectors of all prompts; `class_vectors` makes one of each class."""

    prompts: Prompts
    vectors: Mapping[tuple[str, str], np.ndarray]
    """By label and language, (prompts, E) unit norm."""

    def class_vectors(self, lang: str, dim: int, bare: bool = False) -> np.ndarray:
        """(C, dim) unit norm: the mean of each class's prompts, or its first prompt if `bare`."""
        means = []
        for label in self.prompts.classes(lang):
            vectors = cut(self.vectors[label, lang], dim)
            means.append(vectors[0] if bare else vectors.mean(axis=0))
        return cut(np.stack(means), dim)

    def has_bare(self, lang: str) -> bool:
        """Whether a first prompt has a meaning of its own: given in a file, and one of several."""
        several = any(len(self.vectors[label, lang]) > 1 for label in self.prompts.classes(lang))
        return several and self.prompts.source != FROM_ROWS


def embed_prompts(
    model: Embedder, prompts: Prompts, token_budget: int = TOKEN_BUDGET
) -> PromptVectors:
    """Embed every prompt.

    Raises:
        DataError: a prompt is empty or too long; the message names label and language.
    """
    processor = processor_of(model)
    keys = [
        (label, lang)
        for label, languages in prompts.texts.items()
        for lang, texts in languages.items()
        for _ in texts
    ]
    samples = [
        text_sample(processor, text, f"{prompts.source}: {label!r}, {lang!r}")
        for label, languages in prompts.texts.items()
        for lang, texts in languages.items()
        for text in texts
    ]
    vectors = model.embed_samples(samples, token_budget)["text"] if samples else ()
    grouped: dict[tuple[str, str], list[np.ndarray]] = {}
    for key, vector in zip(keys, vectors, strict=True):
        grouped.setdefault(key, []).append(vector)
    return PromptVectors(prompts, {key: np.stack(rows) for key, rows in grouped.items()})


def zero_shot(
    vectors_NE: np.ndarray, labels: Sequence[str | None], prompted: PromptVectors, lang: str
) -> dict[str, Any] | None:
    """Give every row the class whose prompts are nearest; a tie counts as a mistake.

    Args:
        vectors_NE: of one modality, NaN where absent; E may be shorter than the model's.
        labels: N; rows without one, or whose class has no prompts in `lang`, take no part.
        prompted: the prompts' vectors.
        lang: the language of the prompts.

    Returns:
        `classification_scores`, and `bare` if the classes have several prompts: the accuracy with
        the first one alone. None if no row takes part.
    """
    classes = prompted.prompts.classes(lang)
    index = {label: i for i, label in enumerate(classes)}
    label_N = np.array([index.get(label, -1) if label else -1 for label in labels])
    takes_part_N = (label_N >= 0) & present(vectors_NE)
    if not takes_part_N.any():
        return None
    vectors_NE, label_N = vectors_NE[takes_part_N], label_N[takes_part_N]
    dim = vectors_NE.shape[1]
    scores = classification_scores(
        _decide(vectors_NE, label_N, prompted.class_vectors(lang, dim)), label_N, classes
    )
    if prompted.has_bare(lang):
        decided_N = _decide(vectors_NE, label_N, prompted.class_vectors(lang, dim, bare=True))
        scores["bare"] = float(np.mean(decided_N == label_N))
    return scores


def _decide(vectors_NE: np.ndarray, label_N: np.ndarray, class_CE: np.ndarray) -> np.ndarray:
    """The class of the highest score, (N,); the true one loses ties."""
    score_NC = vectors_NE @ class_CE.T
    score_NC[np.arange(len(label_N)), label_N] -= TIE
    return score_NC.argmax(axis=1)
