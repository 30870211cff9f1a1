"""What a row will cost, from what its manifest says; nothing is decoded or opened for it.

cost = estimated_tokens(row, processor)
"""

from trimodal.batch import Modality
from trimodal.data.manifest import Row
from trimodal.data.tokenized import KEYS
from trimodal.processors import TrimodalProcessor
from trimodal.storage import ShardFile, Source

BYTES_PER_PIECE = 3.5
"""Of UTF-8: some letters, or a little more than one ideograph."""
BYTES_PER_PIXEL = 0.5
BYTES_PER_SECOND = 16_000
"""Of compressed pictures and speech, to within a few times."""
MOST = 1e9
"""Pixels of a side or seconds that are believed."""


def estimated_tokens(row: Row, processor: TrimodalProcessor) -> float:
    """Tokens of the media of a row, about.

    The best that is there is taken: `width` and `height`, or `seconds`, among the keys of the row;
    the codes that `trimodal data tokenize` wrote; the bytes that an index of shards states; else
    what the model would generate. Ranks that read the same manifest find the same.
    """
    return _vision(row, processor) + _text(row, processor) + _speech(row, processor)


def _vision(row: Row, processor: TrimodalProcessor) -> float:
    if row.image is None:
        return 0.0
    vision = processor.vision
    height, width = (_number(row, key) for key in ("height", "width"))
    if height and width:
        rows, columns = vision.grid(int(height), int(width))
        return rows * columns
    if codes := _codes(row, Modality.VISION):
        return codes
    if size := _bytes(row.image):
        patches = size / BYTES_PER_PIXEL / vision.config.patch_size**2
        return min(max(1.0, patches), vision.config.max_tokens)
    rows, columns = vision.grid(*processor.config.picture_size)
    return rows * columns


def _text(row: Row, processor: TrimodalProcessor) -> float:
    """Of a text in one of its languages, whichever a step draws."""
    if not row.texts:
        return 0.0
    size = sum(len(text.encode()) for text in row.texts.values()) / len(row.texts)
    return min(max(1.0, size / BYTES_PER_PIECE), processor.config.max_text_tokens)


def _speech(row: Row, processor: TrimodalProcessor) -> float:
    if row.speech is None:
        return 0.0
    config = processor.speech.config
    seconds = _number(row, "seconds")
    if not seconds and (codes := _codes(row, Modality.SPEECH)):
        return codes
    if not seconds:
        seconds = _bytes(row.speech) / BYTES_PER_SECOND or processor.config.spoken_seconds
    return min(seconds, config.max_seconds) * 1000 / config.hop_ms / config.stride


def _number(row: Row, key: str) -> float:
    """A positive number among the keys of a row that mean nothing to training, else 0."""
    value = row.metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 < value < MOST else 0.0


def _codes(row: Row, modality: Modality) -> int:
    """How many codes are stored; what is damaged is told where they are used."""
    stored = row.metadata.get(KEYS[modality])
    ids = stored.get("ids") if isinstance(stored, dict) else None
    return len(ids) if isinstance(ids, list) else 0


def _bytes(source: Source) -> int:
    return source.size if isinstance(source, ShardFile) else 0
