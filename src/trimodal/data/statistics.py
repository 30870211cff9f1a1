"""What a corpus consists of, read from the headers of its media.

found = measure(read_manifest("corpus/train.jsonl"), tokenizer="runs/x/tokenizer/text.model")
print(found.summary())
"""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trimodal.data.row import Row
from trimodal.errors import DataError
from trimodal.storage import ShardFile, Source

QUANTILES = (0.05, 0.5, 0.95)


@dataclass
class Statistics:
    """Counts and sizes; a file that several rows name counts once."""

    rows: int = 0
    modalities: Counter[str] = field(default_factory=Counter)
    """Rows by what they have, such as `image+text`."""
    labels: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of utterances, by the language that `speech_lang` names."""
    speakers: dict[str, float] = field(default_factory=dict)
    """Seconds of each speaker."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Height and width of pictures in pixels."""
    characters: dict[str, list[int]] = field(default_factory=dict)
    """Of texts, by language."""
    tokens: dict[str, list[int]] = field(default_factory=dict)
    """Pieces of texts, by language; empty without a tokenizer."""
    bytes: Counter[str] = field(default_factory=Counter)
    """Of media as they are stored, by `image` and `speech`."""

    def tree(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "rows": self.rows,
            "modalities": dict(self.modalities),
            "labels": dict(self.labels),
            "hours": {lang: sum(each) / 3600 for lang, each in self.seconds.items()},
            "speakers": {name: each / 3600 for name, each in self.speakers.items()},
            "seconds": {lang: _quantiles(each) for lang, each in self.seconds.items()},
            "pixels": {
                "height": _quantiles([height for height, _ in self.sizes]),
                "width": _quantiles([width for _, width in self.sizes]),
            },
            "characters": {lang: _quantiles(each) for lang, each in self.characters.items()},
            "tokens": {
                lang: {"sum": sum(each), **_quantiles(each)} for lang, each in self.tokens.items()
            },
            "bytes": dict(self.bytes),
        }

    def summary(self) -> str:
        """Plain lines for people."""
        lines = [f"rows: {self.rows}"]
        lines += [f"  {name}: {count}" for name, count in self.modalities.most_common()]
        for lang, each in sorted(self.seconds.items()):
            lines.append(
                f"speech, {lang}: {sum(each) / 3600:.2f} hours in {len(each)} files, "
                f"{_span(each)} s"
            )
        if self.speakers:
            least, most = min(self.speakers.values()), max(self.speakers.values())
            lines.append(
                f"speakers: {len(self.speakers)}, {least / 60:.1f} to {most / 60:.1f} minutes each"
            )
        if self.sizes:
            heights, widths = zip(*self.sizes, strict=True)
            lines.append(
                f"pictures: {len(self.sizes)}, {_span(widths)} wide, {_span(heights)} high"
            )
        for lang, each in sorted(self.characters.items()):
            pieces = self.tokens.get(lang)
            told = f", {sum(pieces)} pieces, {_span(pieces)} each" if pieces else ""
            lines.append(f"texts, {lang}: {len(each)}, {_span(each)} characters{told}")
        if self.labels:
            lines.append(f"labels: {len(self.labels)}")
        stored = ", ".join(f"{k} {v / 1e6:.1f} MB" for k, v in sorted(self.bytes.items()))
        return "\n".join([*lines, *([f"stored: {stored}"] if stored else [])])


def measure(
    rows: Sequence[Row],
    tokenizer: str | Path | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Statistics:
    """Count rows and the sizes of what they hold.

    Args:
        rows: of one or several manifests.
        tokenizer: a SentencePiece model, to count pieces as well.
        progress: called with 1 for each row.

    Raises:
        DataError: `FILE:LINE: cause`, a medium has no header that can be read.
    """
    pieces = _counter(tokenizer) if tokenizer is not None else None
    found, seen = Statistics(), set[Source]()
    for row in rows:
        found.rows += 1
        found.modalities["+".join(row.data_names)] += 1
        if row.label is not None:
            found.labels[row.label] += 1
        for lang, text in row.texts.items():
            found.characters.setdefault(lang, []).append(len(text))
            if pieces is not None:
                found.tokens.setdefault(lang, []).append(pieces(text))
        try:
            _measure_media(row, found, seen)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from error
        progress(1)
    return found


def _measure_media(row: Row, found: Statistics, seen: set[Source]) -> None:
    if row.image is not None and row.image not in seen:
        seen.add(row.image)
        found.sizes.append(_pixels(row.image))
        found.bytes["image"] += _stored(row.image)
    for source in (row.speech, row.question_speech):
        if source is not None and source not in seen:
            seen.add(source)
            seconds = _seconds(source)
            found.seconds.setdefault(row.speech_lang or "unnamed", []).append(seconds)
            found.bytes["speech"] += _stored(source)
            if row.speaker is not None:
                found.speakers[row.speaker] = found.speakers.get(row.speaker, 0.0) + seconds


def _counter(tokenizer: str | Path) -> Callable[[str], int]:
    from sentencepiece import SentencePieceProcessor

    try:
        model = SentencePieceProcessor(model_file=str(tokenizer))
    except (OSError, RuntimeError) as error:
        raise DataError(f"{tokenizer} is no tokenizer that can be read") from error
    return lambda text: len(model.encode(text))


def _pixels(source: Source) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(_opened(source)) as image:
            return image.height, image.width
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"image {source} has no header that can be read") from error


def _seconds(source: Source) -> float:
    import soundfile

    try:
        return float(soundfile.info(_opened(source)).duration)
    except (OSError, RuntimeError) as error:
        raise DataError(f"speech {source} has no header that can be read") from error


def _opened(source: Source) -> str | io.BytesIO:
    return io.BytesIO(source.read()) if isinstance(source, ShardFile) else str(source)


def _stored(source: Source) -> int:
    return source.size if isinstance(source, ShardFile) else source.stat().st_size


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.quantile(np.asarray(values, dtype=np.float64), QUANTILES).tolist()
    return {f"p{100 * q:g}": float(x) for q, x in zip(QUANTILES, found, strict=True)}


def _span(values: Sequence[float]) -> str:
    """The middle nine tenths, and the median."""
    low, middle, high = np.quantile(np.asarray(values, dtype=np.float64), QUANTILES).tolist()
    return f"{low:.3g} to {high:.3g} (median {middle:.3g})"
