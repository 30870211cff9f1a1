"""The processor of all three modalities, and its files beside the model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from trimodal.batch import Modality
from trimodal.errors import ConfigError, DataError, StorageError
from trimodal.processors import TrimodalProcessor
from trimodal.testing import tiny_model_config, tiny_tokenizer, tiny_tokenizers
from trimodal.tokenizers import Tokenizers

PICTURE = np.full((8, 12, 3), 90, dtype=np.uint8)
SPEECH = (np.sin(np.arange(4000) / 9).astype(np.float32), 16_000)


@pytest.fixture(scope="module")
def processor() -> TrimodalProcessor:
    return TrimodalProcessor(tiny_model_config(), tiny_tokenizer())


def test_rows_become_samples(processor: TrimodalProcessor) -> None:
    samples = processor(
        image=[PICTURE, None, None],
        text=["a red square", "红色", None],
        speech=[None, SPEECH, SPEECH],
    )
    assert [set(sample.media) for sample in samples] == [
        {Modality.VISION, Modality.TEXT},
        {Modality.TEXT, Modality.SPEECH},
        {Modality.SPEECH},
    ]
    assert [sample.id for sample in samples] == ["0", "1", "2"]
    assert len({sample.group for sample in samples}) == 3
    assert samples[0].media[Modality.VISION].num_tokens == 6


def test_a_row_is_the_same_alone(processor: TrimodalProcessor) -> None:
    (alone,) = processor(text=["红色"], speech=[SPEECH])
    together = processor(text=["a", "红色"], speech=[None, SPEECH])[1]
    for modality, medium in alone.media.items():
        assert torch.equal(medium.features, together.media[modality].features)


def test_no_rows_are_no_samples_and_no_lists_are_a_mistake(processor: TrimodalProcessor) -> None:
    assert processor(text=[]) == []
    with pytest.raises(DataError, match="nothing is given: name a list of image, text or speech"):
        processor()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", None]}, "row 1 has neither image nor text nor speech"),
        ({"text": "abc"}, "text must be a list, got a single item"),
        ({"image": b"abc"}, "image must be a list, got a single item"),
        ({"speech": Path("a.wav")}, "speech must be a list, got a single item"),
        (
            {"image": [PICTURE], "text": ["a", "b"]},
            "the lists have different lengths: 1 of image, 2 of text",
        ),
        ({"text": ["a", " "]}, "text[1]: text is empty"),
        ({"image": [None, b"x"], "text": ["a", "b"]}, "image[1]: image is not a PNG, JPEG or WebP"),
        ({"speech": [SPEECH, b"x"]}, "speech[1]: speech is not WAV, FLAC, OGG or MP3"),
    ],
    ids=["nothing", "text", "bytes", "path", "lengths", "bad-text", "bad-image", "bad-speech"],
)
def test_a_bad_row_is_named(
    processor: TrimodalProcessor, columns: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        processor(**columns)  # pyright: ignore[reportArgumentType]
    assert str(caught.value).startswith(message)


def test_what_is_saved_is_what_is_read(processor: TrimodalProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path / "model")
    restored = TrimodalProcessor.from_pretrained(tmp_path / "model")
    assert restored.config == processor.config
    assert restored.text.proto == processor.text.proto
    before, after = (
        p(image=[PICTURE], text=["a red 方块"], speech=[SPEECH]) for p in (processor, restored)
    )
    for modality, medium in before[0].media.items():
        assert torch.equal(medium.features, after[0].media[modality].features)


def _break(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("processor_config.json", None, "holds no trimodal processor: "),
        ("processor_config.json", b"{", "holds no trimodal processor: "),
        ("processor_config.json", b"[]", "holds no trimodal processor: "),
        ("processor_config.json", b"{}", "holds no trimodal processor: 'model'"),
        ("processor_config.json", b"\xff\xfe", "holds no trimodal processor: "),
        ("processor_config.json", b"[" * 100_000, "holds no trimodal processor: "),
        ("text.model", b"", "the text tokenizer is an empty file"),
        ("text.model", None, "holds no trimodal processor: "),
        ("text.model", b"not a model", "the text tokenizer is not a SentencePiece model"),
    ],
    ids=[
        "missing",
        "cut",
        "list",
        "empty",
        "not-utf8",
        "deep",
        "empty-tokenizer",
        "no-tokenizer",
        "bad-tokenizer",
    ],
)
def test_a_folder_that_holds_no_processor(
    processor: TrimodalProcessor, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    processor.save_pretrained(tmp_path)
    _break(tmp_path, name, content)
    with pytest.raises(StorageError) as caught:
        TrimodalProcessor.from_pretrained(tmp_path)
    assert message in str(caught.value)


def test_a_key_of_another_version_is_named(processor: TrimodalProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["model"]["colour"] = "red"
    path.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model.colour: no such key"):
        TrimodalProcessor.from_pretrained(tmp_path)


@pytest.fixture(scope="module")
def tokenized() -> TrimodalProcessor:
    return TrimodalProcessor(tiny_model_config(), tiny_tokenizer(), tiny_tokenizers())


def test_tokenizers_are_saved_beside_the_text_model(
    tokenized: TrimodalProcessor, tmp_path: Path
) -> None:
    tokenized.save_pretrained(tmp_path)
    assert (tmp_path / "vision_tokenizer").is_dir()
    assert (tmp_path / "speech_tokenizer").is_dir()
    restored = TrimodalProcessor.from_pretrained(tmp_path)
    assert restored.codes is not None
    assert tokenized.codes is not None
    for codes in (restored.codes, tokenized.codes):
        assert [codes.num_codes(m) for m in (Modality.VISION, Modality.SPEECH)] == [16, 16]
    media = tokenized(image=[PICTURE], speech=[SPEECH])[0].media
    for medium in media.values():
        before, after = (p.codes.target(medium, ()).ids for p in (tokenized, restored))  # pyright: ignore[reportOptionalMemberAccess]
        assert torch.equal(before, after)


@pytest.mark.parametrize("kind", ["vision_tokenizer", "speech_tokenizer"])
def test_a_swapped_tokenizer_is_refused(
    tokenized: TrimodalProcessor, tmp_path: Path, kind: str
) -> None:
    tokenized.save_pretrained(tmp_path)
    other = tiny_tokenizers()
    with torch.no_grad():
        next(other.parts[kind].parameters()).add_(1e-3)
    other.parts[kind].save(tmp_path / kind)
    with pytest.raises(StorageError, match="holds other tokenizers than the model was trained on"):
        TrimodalProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["vision_tokenizer", "speech_tokenizer"])
def test_a_lost_tokenizer_is_missed(
    tokenized: TrimodalProcessor, tmp_path: Path, kind: str
) -> None:
    tokenized.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / kind)
    with pytest.raises(StorageError, match="holds other tokenizers than the model was trained on"):
        TrimodalProcessor.from_pretrained(tmp_path)


def test_a_part_of_the_tokenizers_is_enough(tmp_path: Path) -> None:
    part = Tokenizers(speech=tiny_tokenizers().speech)
    processor = TrimodalProcessor(tiny_model_config(), tiny_tokenizer(), part)
    assert processor.codes is not None
    assert [processor.codes.num_codes(m) for m in (Modality.VISION, Modality.SPEECH)] == [0, 16]
    processor.save_pretrained(tmp_path)
    restored = TrimodalProcessor.from_pretrained(tmp_path)
    assert restored.codes is not None
    assert restored.codes.tokenizers.vision is None


def test_without_tokenizers_there_are_no_codes(processor: TrimodalProcessor) -> None:
    assert processor.codes is None


def test_conditions_of_a_completion(processor: TrimodalProcessor) -> None:
    samples, begun = processor.conditions(
        image=[PICTURE, None, None], text=[None, None, "red"], complete=["a", "b", None]
    )
    assert [set(sample.media) for sample in samples] == [
        {Modality.VISION}, set(), {Modality.TEXT}
    ]  # fmt: skip
    assert [medium is not None for medium in begun] == [True, True, False]
    assert len({sample.group for sample in samples}) == 3
    with pytest.raises(DataError, match="row 1 has neither image nor text nor speech"):
        processor.conditions(image=[PICTURE, None], complete=["a", None])
    with pytest.raises(DataError, match=r"complete\[1\]: text is empty"):
        processor.conditions(complete=["a", " "])
