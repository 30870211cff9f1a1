"""Rows of manifests as samples, decoded once and augmented anew in every step.

sample = dataset.sample(index, seed, step)
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from trimodal.assembly import Members, Writing
from trimodal.batch import Medium, Modality, Sample, Target
from trimodal.config import SpeechAugmentConfig, VisionAugmentConfig
from trimodal.data.costs import estimated_tokens
from trimodal.data.kin import Kin
from trimodal.data.row import Row, language_of
from trimodal.data.tokenized import stored_target
from trimodal.errors import ConfigError, DataError
from trimodal.processors import TrimodalProcessor
from trimodal.processors.augmentation import augment_image, augment_speech
from trimodal.processors.codes import CodeProcessor
from trimodal.storage import Source, read_source
from trimodal.streams import digest, generator
from trimodal.vocabulary import prompt

UNNAMED_RATE = 0.1
"""How often a prompt does not say the language, so that it may be left open."""


class RowDataset:
    """Random access to the samples of manifest rows, and to what can be predicted of them."""

    def __init__(
        self,
        rows: Sequence[Row],
        processor: TrimodalProcessor,
        vision_augment: VisionAugmentConfig,
        speech_augment: SpeechAugmentConfig,
        positives: Literal["sample", "group", "label"] = "group",
        cache_bytes: int = 0,
        sizes: Sequence[int] = (),
    ) -> None:
        self.rows = rows
        self.sizes = list(sizes) or [len(rows)]
        """Rows of each manifest, which lie one after the other."""
        self.processor = processor
        self.vision_augment = vision_augment
        self.speech_augment = speech_augment
        self.groups = [digest(row.key(positives)) >> 1 for row in rows]
        self.kin = Kin(rows, self.groups)
        self._cache: dict[Source, Tensor] = {}
        self._targets: dict[Source, Target] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.rows)

    def cost(self, index: int) -> float:
        """Tokens of row `index`, about, see `estimated_tokens`."""
        return estimated_tokens(self.rows[index], self.processor)

    def sample(self, index: int, *keys: str | int) -> Sample:
        """Row `index`; its language and its augmentation are pure functions of keys and row id.

        Raises:
            DataError: `FILE:LINE: cause` for a medium that cannot be used.
            StorageError: one cannot be read now.
        """
        row = self.rows[index]
        if row.fault is not None:
            raise DataError(row.fault)
        media: dict[Modality, Medium] = {}
        try:
            if row.image is not None:
                image = self._decoded(row.image, Modality.VISION)
                image = augment_image(image, self.vision_augment, generator("image", *keys, row.id))
                media[Modality.VISION] = self.processor.vision.medium(image)
            if row.texts:
                text = row.texts[self._language(row, *keys)]
                media[Modality.TEXT] = self.processor.text.medium(text)
            if row.speech is not None:
                frames = self._decoded(row.speech, Modality.SPEECH)
                frames = augment_speech(
                    frames, self.speech_augment, generator("speech", *keys, row.id)
                )
                media[Modality.SPEECH] = self.processor.speech.medium(frames)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from error
        asks = row.question is not None and row.answer is not None
        return Sample(row.id, media, self.groups[index], self.kin.modalities(index), asks)

    def writing(
        self,
        index: int,
        modality: Modality,
        members: Members,
        kin: bool,
        *keys: str | int,
        again: tuple[int, ...] = (),
    ) -> Writing:
        """What row `index` or its kin has of `modality`, to be predicted from `members`.

        Args:
            index: of the row.
            modality: of the target.
            members: media of the sample that are observed.
            kin: take another picture, another utterance, or the text in another language.
            keys: of the random choices, those that `sample` was given.
            again: what tells these choices from those of another such target of the sample.

        Raises:
            DataError: `FILE:LINE: cause` for a medium that cannot be read.
        """
        row = self.rows[index]
        rng = generator("target", *keys, row.id, *again)
        if modality is Modality.TEXT:
            seen = self._language(row, *keys) if kin else None
            langs = [lang for lang in row.texts if lang != seen]
            lang = langs[int(rng.integers(len(langs)))]
            return Writing(self._text(row.texts[lang], lang, rng.random(), row), members)
        source = self.kin.draw(index, modality, rng) if kin else row
        lang = source.speech_lang if modality is Modality.SPEECH else None
        named = prompt(modality, None if rng.random() < UNNAMED_RATE else lang)
        return Writing(self._target(source, modality, named), members)

    def answer(
        self, index: int, members: Members, *keys: str | int, again: tuple[int, ...] = ()
    ) -> Writing:
        """The answer to the question of row `index`, written or spoken, observed beside `members`.

        Raises:
            DataError: `FILE:LINE: cause`, the question or the answer cannot be used.
        """
        row = self.rows[index]
        assert row.question is not None  # noqa: S101 - `Sample.asks` says so
        assert row.answer is not None  # noqa: S101
        rng = generator("answer", *keys, row.id, *again)
        lang, spoken = language_of(row.question), rng.random() < 0.5
        try:
            if row.question_speech is not None and spoken:
                frames = self._decoded(row.question_speech, Modality.SPEECH)
                changes = generator("question", *keys, row.id, *again)
                frames = augment_speech(frames, self.speech_augment, changes)
                question = self.processor.speech.medium(frames)
            else:
                question = self.processor.text.medium(row.question)
        except DataError as error:
            raise DataError(f"{row.where}: question: {error}") from error
        target = self._text(row.answer, lang, rng.random(), row, answer=True)
        return Writing(target, members, (question,))

    def _language(self, row: Row, *keys: str | int) -> str:
        langs = list(row.texts)
        return langs[int(generator("text", *keys, row.id).integers(len(langs)))]

    def _text(self, text: str, lang: str, draw: float, row: Row, *, answer: bool = False) -> Target:
        try:
            medium = self.processor.text.medium(text)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from error
        named = prompt(Modality.TEXT, None if draw < UNNAMED_RATE else lang, answer=answer)
        return Target(Modality.TEXT, medium.features, medium.grid, named)

    def _target(self, row: Row, modality: Modality, named: tuple[int, ...]) -> Target:
        """The codes of a file, not augmented; they are small, so all are kept."""
        path = row.image if modality is Modality.VISION else row.speech
        assert path is not None  # noqa: S101 - the row was chosen for it
        if (kept := self._targets.get(path)) is None:
            if self.processor.codes is None:
                raise ConfigError(f"no tokenizer of {modality.name.lower()} is given")
            kept = stored_target(row, modality, self.processor.codes)
            kept = kept or self._computed(row, path, modality, self.processor.codes)
            self._targets[path] = kept
        return Target(modality, kept.ids, kept.grid, named)

    def _computed(self, row: Row, path: Source, modality: Modality, codes: CodeProcessor) -> Target:
        try:
            decoded = self._decoded(path, modality)
            if modality is Modality.VISION:
                return codes.target(self.processor.vision.medium(decoded), ())
            return codes.target(self.processor.speech.medium(decoded), ())
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from error

    def _decoded(self, path: Source, modality: Modality) -> Tensor:
        """Pixels or log-mel frames of a file, kept while there is room."""
        if (kept := self._cache.get(path)) is not None:
            return kept
        # read here, where what fails for a moment is not taken for a broken medium
        content = read_source(path)
        if modality is Modality.VISION:
            decoded = self.processor.vision.decode(content)
        else:
            speech = self.processor.speech
            decoded = speech.frames(speech.decode(content))
        size = decoded.numel() * decoded.element_size()
        if size <= self._room:
            self._room -= size
            self._cache[path] = decoded
        return decoded
