"""What a model finds: a few queries of each kind with their nearest items, ready for a page.

kinds = find_examples(processor, rows, vectors)
"""

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from trimodal.data import Row
from trimodal.data.row import CONTROL, language_of
from trimodal.evaluation.embedding import PAIRS, SINGLES, present
from trimodal.evaluation.retrieval import nearest
from trimodal.processors import TrimodalProcessor
from trimodal.storage import Source
from trimodal.streams import permutation

NUM_QUERIES = 6
NUM_RESULTS = 5
MOST_SECONDS = 6.0
PICTURE_SIDE = 96
TINY_SIDE = 64
"""A picture up to this size is shown enlarged, its pixels as squares."""
PALETTE = 128
UNSHOWN = "\N{REPLACEMENT CHARACTER}"
"""Stands for the control characters that a model writes."""
MP3_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True)
class Card:
    """One medium of one row, as a page shows it."""

    kind: str
    """`image`, `text` or `speech`."""
    id: str
    caption: str
    lang: str | None = None
    """Language of the caption."""
    source: str = ""
    """A data URI; empty for text."""
    tiny: bool = False
    seconds: float = 0.0
    """Length of the recording, of which at most `MOST_SECONDS` are kept."""


@dataclass(frozen=True)
class Result:
    """One found item."""

    card: Card
    score: float
    """Cosine."""
    right: bool
    """Whether it belongs to the query: the same group, or the same label."""


@dataclass(frozen=True)
class Example:
    """One query, of one medium or of two, with what it finds, best first."""

    query: list[Card]
    results: list[Result]


@dataclass(frozen=True)
class Kind:
    """The examples of one direction."""

    direction: str
    query: str
    gallery: str
    gallery_size: int
    examples: list[Example]

    @property
    def right(self) -> int:
        """Queries whose first result is right."""
        return sum(example.results[0].right for example in self.examples)


class Album:
    """Turns media into small data URIs; nothing of a file is passed on as it is."""

    def __init__(self, processor: TrimodalProcessor) -> None:
        self.processor = processor
        self._cards: dict[tuple[str, str], Card] = {}

    def card(self, row: Row, kind: str) -> Card:
        """What is shown for one medium of a row."""
        key = (row.id, kind)
        if key not in self._cards:
            self._cards[key] = self._make(row, kind)
        return self._cards[key]

    def question(self, row: Row, kind: str) -> Card:
        """What is shown for the question of a row, written or spoken."""
        card = Card(kind, row.id, row.question or "", language_of(row.question or ""))
        if kind != "speech" or row.question_speech is None:
            return card
        source, seconds = self._heard(row.question_speech)
        return replace(card, source=source, seconds=seconds)

    def made(self, row: Row, kind: str, output: Any, lang: str | None = None) -> Card:
        """What is shown for something that a model made from a row.

        Args:
            row: what it was made from.
            kind: what was made.
            output: a text, an (H, W, 3) uint8 picture, or (S,) samples at the processor's rate.
            lang: of a text.
        """
        name = f"made from {row.id}"
        if kind == "image":
            source, tiny = _picture(output)
            return Card(kind, name, "", source=source, tiny=tiny)
        if kind == "speech":
            source, seconds = _recording(output, self.processor.speech.config.sample_rate)
            return Card(kind, name, "", source=source, seconds=seconds)
        return Card(kind, name, CONTROL.sub(UNSHOWN, output), lang)

    def _make(self, row: Row, kind: str) -> Card:
        lang, text = next(iter(row.texts.items()), (None, row.label or ""))
        if kind == "speech" and row.speech_lang in row.texts:
            lang, text = row.speech_lang, row.texts[row.speech_lang]
        card = Card(kind, row.id, text, lang)
        if kind == "image" and row.image is not None:
            pixels = self.processor.vision.decode(row.image).permute(1, 2, 0).numpy()
            source, tiny = _picture(pixels)
            return Card(kind, row.id, text, lang, source, tiny)
        if kind == "speech" and row.speech is not None:
            source, seconds = self._heard(row.speech)
            return Card(kind, row.id, text, lang, source, seconds=seconds)
        return card

    def _heard(self, path: Source) -> tuple[str, float]:
        waveform = self.processor.speech.decode(path).numpy()
        return _recording(waveform, self.processor.speech.config.sample_rate)


def _picture(pixels_HW3: np.ndarray) -> tuple[str, bool]:
    """A data URI, and whether the picture is tiny."""
    image = Image.fromarray(pixels_HW3)
    tiny = max(image.size) <= TINY_SIDE
    if not tiny:
        image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
        image = image.quantize(PALETTE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return _uri("image/png", buffer.getvalue()), tiny


def _recording(waveform_S: np.ndarray, rate: int) -> tuple[str, float]:
    """A data URI of the first `MOST_SECONDS`, and how many seconds there are."""
    seconds = len(waveform_S) / rate
    waveform_S = waveform_S[: int(MOST_SECONDS * rate)]
    waveform_S = waveform_S / np.abs(waveform_S).max(initial=1.0)
    buffer = io.BytesIO()
    if rate in MP3_RATES:
        soundfile.write(
            buffer,
            waveform_S,
            rate,
            format="MP3",
            subtype="MPEG_LAYER_III",
            compression_level=0.8,
        )
        return _uri("audio/mpeg", buffer.getvalue()), seconds
    soundfile.write(buffer, waveform_S, rate, format="FLAC")
    return _uri("audio/flac", buffer.getvalue()), seconds


def _uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def find_examples(
    processor: TrimodalProcessor, rows: Sequence[Row], vectors: Mapping[str, np.ndarray]
) -> list[Kind]:
    """A few queries of every direction, of as many labels or groups as there are.

    Which queries is a pure function of the manifest, so nothing is picked for its looks. Equal
    texts stand in the gallery once.

    Args:
        processor: decodes the media that are shown.
        rows: N.
        vectors: (N, E) by name, see `embed_rows`.
    """
    album = Album(processor)
    directions = [(a, b) for a in SINGLES for b in SINGLES if a != b]
    directions += [(pair, third) for pair, third in PAIRS.items() if pair in vectors]
    kinds = (_kind(album, rows, vectors, query, gallery) for query, gallery in directions)
    return [kind for kind in kinds if kind is not None]


def _kind(
    album: Album, rows: Sequence[Row], vectors: Mapping[str, np.ndarray], query: str, gallery: str
) -> Kind | None:
    items = _gallery(rows, vectors, gallery)
    chosen = _queries(rows, vectors[query], [row for item in items for row in item])
    if not chosen:
        return None
    places = {row.id: i for i, row in enumerate(rows)}
    gallery_GE = vectors[gallery][[places[item[0].id] for item in items]]
    found, scores = nearest(vectors[query][chosen], gallery_GE, NUM_RESULTS)
    examples = [
        Example(
            [album.card(rows[i], kind) for kind in query.split("+")],
            [
                Result(
                    album.card(items[g][0], gallery),
                    float(score),
                    any(_belong(rows[i], row) for row in items[g]),
                )
                for g, score in zip(found[n], scores[n], strict=True)
            ],
        )
        for n, i in enumerate(chosen)
    ]
    return Kind(f"{query}->{gallery}", query, gallery, len(items), examples)


def _gallery(rows: Sequence[Row], vectors: Mapping[str, np.ndarray], name: str) -> list[list[Row]]:
    """The items of a gallery, each with the rows it stands for."""
    items: dict[str, list[Row]] = {}
    for row, has_it in zip(rows, present(vectors[name]), strict=True):
        if has_it:
            key = next(iter(row.texts.values())) if name == "text" else row.id
            items.setdefault(key, []).append(row)
    return list(items.values())


def _queries(rows: Sequence[Row], query_NE: np.ndarray, gallery: Sequence[Row]) -> list[int]:
    """Rows with the query and something to find, of different labels or groups first."""
    findable = {key for row in gallery for key in (row.key("group"), row.key("label"))}
    has_it = present(query_NE)
    able = {
        i
        for i, row in enumerate(rows)
        if has_it[i] and (row.key("group") in findable or row.key("label") in findable)
    }
    return choose(rows, able)


def choose(rows: Sequence[Row], able: Collection[int]) -> list[int]:
    """A few of the places `able`, of different labels or groups first, sorted by label.

    A pure function of the manifest.
    """
    mixed = [int(i) for i in permutation(len(rows), "examples") if i in able]
    first: dict[str, int] = {}
    for i in mixed:
        first.setdefault(rows[i].key("label"), i)
    fresh = list(first.values())
    taken = set(fresh)
    chosen = (fresh + [i for i in mixed if i not in taken])[:NUM_QUERIES]
    return sorted(chosen, key=lambda i: (rows[i].label or "", i))


def _belong(a: Row, b: Row) -> bool:
    return a.key("group") == b.key("group") or (a.label is not None and a.label == b.label)
