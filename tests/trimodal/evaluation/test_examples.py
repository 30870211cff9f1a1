import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from trimodal.config import SpeechInputConfig
from trimodal.data import Row, read_manifest
from trimodal.data.shards import import_manifest
from trimodal.evaluation import embed_rows
from trimodal.evaluation.examples import MOST_SECONDS, PICTURE_SIDE, Album, Kind, find_examples
from trimodal.processors import SpeechProcessor


def _decoded(source: str, media_type: str) -> io.BytesIO:
    head, _, body = source.partition(",")
    assert head == f"data:{media_type};base64"
    return io.BytesIO(base64.b64decode(body, validate=True))


def _kinds(oracle: Any, rows: list[Row]) -> dict[str, Kind]:
    kinds = find_examples(oracle.processor, rows, embed_rows(oracle, rows))
    return {kind.direction: kind for kind in kinds}


def test_an_oracle_finds_what_is_right(oracle: Any, corpus: Path) -> None:
    rows = read_manifest(corpus)
    kinds = find_examples(oracle.processor, rows, embed_rows(oracle, rows, variants=True))
    assert [kind.direction for kind in kinds][:3] == ["image->text", "image->speech", "text->image"]
    assert len(kinds) == 9
    for kind in kinds:
        assert len(kind.examples) == kind.right == 6
        for example in kind.examples:
            assert len(example.query) == len(kind.query.split("+"))
            assert len(example.results) == 5
            scores = [result.score for result in example.results]
            assert scores == sorted(scores, reverse=True)
            # half of the rows hold less, so some colours have fewer than five to find
            rights = [result.right for result in example.results]
            assert rights == sorted(rights, reverse=True)


def test_queries_are_of_different_labels_first(oracle: Any, corpus: Path) -> None:
    rows = read_manifest(corpus)
    label = {row.id: row.label for row in rows}
    for kind in _kinds(oracle, rows).values():
        assert len({label[example.query[0].id] for example in kind.examples}) == 4


def test_equal_texts_are_in_the_gallery_once(oracle: Any, corpus: Path) -> None:
    rows = read_manifest(corpus)
    kinds = _kinds(oracle, rows)
    texts = {next(iter(row.texts.values())) for row in rows if row.texts}
    assert kinds["image->text"].gallery_size == len(texts) < sum(bool(r.texts) for r in rows)
    for example in kinds["speech->text"].examples:
        assert len({result.card.caption for result in example.results}) == 5


def test_mistakes_are_shown_as_mistakes(oracle: Any, corpus: Path) -> None:
    oracle.answer = lambda modality, colour: (colour + (modality == 2)) % 4
    rows = read_manifest(corpus)
    kinds = _kinds(oracle, rows)
    assert kinds["speech->image"].right == 0
    assert kinds["text->image"].right == 6


def test_queries_without_an_answer_are_not_shown(oracle: Any, tmp_path: Path, corpus: Path) -> None:
    row = next(row for row in read_manifest(corpus) if row.image)
    alone = [Row(id="i", image=row.image, where="m:1"), Row(id="t", texts={"en": "red"})]
    assert find_examples(oracle.processor, alone, embed_rows(oracle, alone)) == []


def test_small_pictures_keep_their_pixels(oracle: Any, corpus: Path) -> None:
    row = next(row for row in read_manifest(corpus) if row.image)
    card = Album(oracle.processor).card(row, "image")
    assert card.tiny
    assert isinstance(row.image, Path)
    with Image.open(_decoded(card.source, "image/png")) as shown, Image.open(row.image) as original:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(original.convert("RGB")))


def test_large_pictures_are_made_small(oracle: Any, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    card = Album(oracle.processor).card(Row(id="a", image=path), "image")
    assert not card.tiny
    with Image.open(_decoded(card.source, "image/png")) as shown:
        assert shown.size == (PICTURE_SIDE, round(PICTURE_SIDE * 300 / 500))
    assert len(card.source) < 12_000


@pytest.mark.parametrize(("rate", "media_type"), [(16_000, "audio/mpeg"), (15_999, "audio/flac")])
def test_recordings_are_cut_and_can_be_played(
    oracle: Any, tmp_path: Path, rate: int, media_type: str
) -> None:
    oracle.processor.speech = SpeechProcessor(SpeechInputConfig(sample_rate=rate, max_seconds=20.0))
    path = tmp_path / "long.wav"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000 * 9) / 8000)
    soundfile.write(path, tone, 8000)
    row = Row(id="a", speech=path, texts={"en": "four", "zh": "四"}, speech_lang="zh")
    card = Album(oracle.processor).card(row, "speech")
    assert (card.caption, card.lang) == ("四", "zh")
    assert card.seconds == pytest.approx(9, abs=0.01)
    samples, found = soundfile.read(_decoded(card.source, media_type))
    assert found == rate
    assert len(samples) / rate == pytest.approx(MOST_SECONDS, abs=0.2)
    assert np.abs(samples).max() > 0.3
    assert media_type == "audio/flac" or len(card.source) < 40_000


def test_what_was_made_is_shown_as_it_is(oracle: Any) -> None:
    album, row = Album(oracle.processor), Row(id="a", texts={"en": "red"})
    written = album.made(row, "text", "red\0\x1b[1m", "en")
    assert (written.caption, written.lang, written.id) == (
        "red\ufffd\ufffd[1m",
        "en",
        "made from a",
    )
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    drawn = album.made(row, "image", pixels)
    assert drawn.tiny
    with Image.open(_decoded(drawn.source, "image/png")) as shown:
        np.testing.assert_array_equal(np.asarray(shown), pixels)
    rate = oracle.processor.speech.config.sample_rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    said = album.made(row, "speech", tone)
    assert (said.seconds, said.caption) == (1.0, "")
    samples, _ = soundfile.read(_decoded(said.source, "audio/mpeg"))
    assert np.abs(samples).max() > 0.3
    silence = album.made(row, "speech", np.zeros(rate, np.float32))
    assert silence.source.startswith("data:audio/")


def test_media_within_shards_are_shown_as_files_are(
    oracle: Any, corpus: Path, tmp_path: Path
) -> None:
    import_manifest(corpus, tmp_path / "shards")
    album = Album(oracle.processor)
    pairs = zip(read_manifest(corpus), read_manifest(tmp_path / "shards"), strict=True)
    for kind in ("image", "speech"):
        shown = [(Album(oracle.processor).card(a, kind), album.card(b, kind)) for a, b in pairs]
        assert all(a.source == b.source for a, b in shown)
        pairs = zip(read_manifest(corpus), read_manifest(tmp_path / "shards"), strict=True)
