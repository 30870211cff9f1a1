"""The processor of all three modalities, saved beside the model.

samples = processor(image=["a.png", None], text=["seven", "eight"])
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimodal.batch import Medium, Modality, Sample
from trimodal.config import ModelConfig
from trimodal.errors import DataError, PathError, StorageError
from trimodal.processors.codes import CodeProcessor
from trimodal.processors.speech import SpeechProcessor, SpeechSource
from trimodal.processors.text import TextProcessor
from trimodal.processors.vision import ImageSource, VisionProcessor
from trimodal.schema import parse, to_dict
from trimodal.tokenizers import Tokenizers
from trimodal.vocabulary import Vocabulary

FILE = "processor_config.json"
TOKENIZER_FILE = "text.model"


class TrimodalProcessor:
    """Raw media to `Sample`s, by the processor of each modality."""

    def __init__(
        self, config: ModelConfig, tokenizer: bytes, tokenizers: Tokenizers | None = None
    ) -> None:
        self.config = config
        self.codes = None if tokenizers is None else CodeProcessor(tokenizers, config)
        self.vision = VisionProcessor(config.vision_input)
        self.speech = SpeechProcessor(config.speech_input)
        vocabulary = Vocabulary(config.vocabulary)
        self.text = TextProcessor(tokenizer, vocabulary, config.max_text_tokens)

    def __call__(
        self,
        image: Sequence[ImageSource | None] | None = None,
        text: Sequence[str | None] | None = None,
        speech: Sequence[SpeechSource | None] | None = None,
    ) -> list[Sample]:
        """Samples row by row; the lists have one length, and None marks an absent modality.

        Raises:
            DataError: no list or lists of different lengths, a row with nothing, or a medium that
                cannot be read; the message names the modality and the row.
        """
        return [self._sample(row, i) for i, row in enumerate(_rows(image, text, speech))]

    def conditions(
        self,
        image: Sequence[ImageSource | None] | None = None,
        text: Sequence[str | None] | None = None,
        speech: Sequence[SpeechSource | None] | None = None,
        complete: Sequence[str | None] | None = None,
    ) -> tuple[list[Sample], list[Medium | None]]:
        """What generation observes, and the texts that its outputs begin with, row by row.

        Raises:
            DataError: as calling the processor, but a row with a text to complete may observe
                nothing else.
        """
        rows = _rows(image, text, speech, complete)
        samples, begun = [], []
        for i, (row, start) in enumerate(zip(rows, complete or [None] * len(rows), strict=True)):
            empty = start is not None and not any(source is not None for source in row.values())
            samples.append(Sample(str(i), {}, i) if empty else self._sample(row, i))
            try:
                begun.append(None if start is None else self.text.medium(start))
            except DataError as error:
                raise DataError(f"complete[{i}]: {error}") from error
        return samples, begun

    def _sample(self, row: dict[Modality, Any], index: int) -> Sample:
        media: dict[Modality, Medium] = {}
        for modality, source in row.items():
            if source is None:
                continue
            try:
                media[modality] = self.medium(modality, source)
            except DataError as error:
                raise DataError(f"{modality.data_name}[{index}]: {error}") from error
        if not media:
            raise DataError(f"row {index} has neither image nor text nor speech")
        return Sample(str(index), media, index)

    def medium(self, modality: Modality, source: Any) -> Medium:
        """One raw medium as numbers."""
        if modality is Modality.VISION:
            return self.vision.medium(self.vision.decode(source))
        if modality is Modality.SPEECH:
            return self.speech.medium(self.speech.frames(self.speech.decode(source)))
        return self.text.medium(source)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write everything `from_pretrained` needs."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER_FILE).write_bytes(self.text.proto)
        tree = {"processor_class": "TrimodalProcessor", "model": to_dict(self.config)}
        if self.codes is not None:
            tree["tokenizers"] = self.codes.tokenizers.fingerprints()
            self.codes.tokenizers.save(folder)
        (folder / FILE).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_: Any) -> "TrimodalProcessor":
        """Read what `save_pretrained` wrote.

        Raises:
            StorageError: the folder holds no processor, or other tokenizers than it names.
        """
        folder = Path(folder)
        try:
            tree = json.loads((folder / FILE).read_text(encoding="utf-8"))
            proto = (folder / TOKENIZER_FILE).read_bytes()
            saved = tree.get("tokenizers")
            tokenizers = None if saved is None else Tokenizers.load(folder)
            if tokenizers is not None and tokenizers.fingerprints() != saved:
                raise StorageError(f"{folder} holds other tokenizers than the model was trained on")
            return cls(parse(ModelConfig, tree["model"], "model"), proto, tokenizers)
        except PathError as error:  # the folder of a model was found, but not whole
            raise StorageError(str(error)) from error
        except (
            OSError,
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            RecursionError,
        ) as error:
            raise StorageError(f"{folder} holds no trimodal processor: {error}") from error


def _rows(
    image: Sequence[ImageSource | None] | None,
    text: Sequence[str | None] | None,
    speech: Sequence[SpeechSource | None] | None,
    complete: Sequence[str | None] | None = None,
) -> list[dict[Modality, Any]]:
    """What each row has of the three modalities; the lists have one length, and one is there."""
    columns = {"image": image, "text": text, "speech": speech, "complete": complete}
    given = {name: column for name, column in columns.items() if column is not None}
    if not given:
        raise DataError("nothing is given: name a list of image, text or speech")
    for name, column in given.items():
        if isinstance(column, str | bytes | Path):
            raise DataError(f"{name} must be a list, got a single item")
    if len({len(column) for column in given.values()}) > 1:
        sizes = ", ".join(f"{len(c)} of {name}" for name, c in given.items())
        raise DataError(f"the lists have different lengths: {sizes}")
    media = {m: columns[m.data_name] for m in Modality}
    size = len(next(iter(given.values()), ()))
    return [{m: c[i] for m, c in media.items() if c is not None} for i in range(size)]
