import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from trimodal.config import SpeechInputConfig
from trimodal.data import Row, read_manifest
from trimodal.errors import DataError
from trimodal.evaluation.generation import (
    Generated,
    derange,
    measure_generation,
    references,
)
from trimodal.evaluation.judges import Judges, JudgesConfig
from trimodal.processors import SpeechProcessor
from trimodal.testing import COLOURS, assert_close, write_tiny_manifest

LABELS = tuple(sorted(COLOURS))
Judged = tuple[np.ndarray, np.ndarray]


class ByRule(Judges):
    """Sees the colour of a picture and hears the pitch of speech, by rule."""

    def __init__(self) -> None:
        super().__init__(JudgesConfig(labels=LABELS, speech_input=SpeechInputConfig(num_mels=16)))

    def judge_images(self, images: Sequence[np.ndarray]) -> Judged:
        return self._verdict([image.reshape(-1, 3).mean(axis=0) for image in images], 1)

    def judge_speech(self, speech: Sequence[tuple[np.ndarray, int]]) -> Judged:
        pitches = [
            np.log([np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)])
            for samples, rate in speech
        ]
        return self._verdict(pitches, 2)

    def _verdict(self, measured: Sequence[np.ndarray], field: int) -> Judged:
        looks = [COLOURS[label][field] for label in LABELS]
        looks = np.log(np.array(looks)[:, None]) if field == 2 else np.array(looks)
        apart_NC = np.array([np.linalg.norm(looks - m, axis=1) for m in measured])
        apart_NC = apart_NC.reshape(len(measured), len(LABELS))
        return np.eye(len(LABELS), dtype=np.float32)[apart_NC.argmin(axis=1)], apart_NC


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Sixteen rows of four colours, each with all modalities, half of them Chinese."""
    folder = tmp_path_factory.mktemp("generation")
    path = write_tiny_manifest(folder, rows=16, name="test", complete=True)
    tree = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in tree:
        row |= {"question": "what colour?", "answer": row["label"]}
        row["text_en"] = row["text"] if row["lang"] == "en" else f"a {row['label']} square"
    path.write_text("\n".join(map(json.dumps, tree)), encoding="utf-8")
    return read_manifest(path)


def _pictures(rows: Sequence[Row]) -> list[np.ndarray]:
    return [np.full((9, 9, 3), COLOURS[str(r.label)][1], np.uint8) for r in rows]


def _speech(rows: Sequence[Row]) -> list[tuple[np.ndarray, int]]:
    times = np.arange(4000) / 8000
    tones = [np.sin(2 * np.pi * COLOURS[str(r.label)][2] * times) for r in rows]
    return [(tone.astype(np.float32), 8000) for tone in tones]


def _one(results: dict[str, Any]) -> dict[str, Any]:
    (found,) = results["directions"].values()
    return found


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_derangement_changes_place_and_key(seed: int) -> None:
    keys = ["a"] * 5 + ["b"] * 3 + ["c"] * 2
    other_N = derange(keys, seed)
    assert other_N is not None
    assert sorted(other_N) == list(range(10))
    assert all(keys[i] != keys[other_N[i]] for i in range(10))
    again = derange(keys, seed)
    assert again is not None
    assert other_N.tolist() == again.tolist()


def test_a_derangement_lets_every_key_meet_every_other() -> None:
    keys = [str(i % 5) for i in range(200)]
    other_N = derange(keys, 0)
    assert other_N is not None
    assert sorted(other_N) == list(range(200))
    assert len({(keys[i], keys[other_N[i]]) for i in range(200)}) == 5 * 4


def test_a_derangement_without_enough_keys_does_what_it_can() -> None:
    keys = ["a"] * 6 + ["b"] * 2
    other_N = derange(keys, 0)
    assert other_N is not None
    assert all(other_N != np.arange(8))
    assert sum(keys[i] != keys[other_N[i]] for i in range(8)) == 4
    same_N = derange(["a"] * 3, 0)
    assert same_N is not None
    assert sorted(same_N) == [0, 1, 2]
    assert all(same_N != np.arange(3))
    assert derange(["a"], 0) is None
    assert derange([], 0) is None


def test_perfect_texts(rows: list[Row]) -> None:
    texts = [row.texts["en"].upper() + "." for row in rows]
    results = measure_generation([Generated("image", "text", rows, texts, "en")], rows, None)
    assert results["judges"] is None
    assert list(results["directions"]) == ["image->text[en]"]
    found = _one(results)
    assert found["samples"] == 16
    assert (found["exact"], found["wer"], found["cer"]) == (1.0, 0.0, 0.0)
    assert found["shuffled"]["exact"] == 0.0
    assert found["gain"]["exact"] == 1.0
    assert found["shuffled"]["wer"] > 0
    assert_close(found["gain"]["wer"], found["shuffled"]["wer"], "fp64")
    assert found["gain"]["cider"] > 0
    assert_close(found["chance"]["exact"], 0.25, "fp64")


def test_a_row_of_the_same_group_lends_its_text(rows: list[Row]) -> None:
    borrowed = {row.label: row.texts["en"] for row in rows}
    texts = [borrowed[row.label] for row in rows]
    assert sum(a != row.texts["en"] for a, row in zip(texts, rows, strict=True)) > 0
    found = _one(measure_generation([Generated("speech", "text", rows, texts, "en")], rows, None))
    assert found["exact"] == 1.0
    alone = _one(measure_generation([Generated("speech", "text", rows, texts, "en")], [], None))
    assert alone["exact"] < 1.0


def test_one_text_for_all_gains_nothing(rows: list[Row]) -> None:
    texts = ["a red square"] * 16
    found = _one(measure_generation([Generated("image", "text", rows, texts, "en")], rows, None))
    assert_close(found["exact"], found["shuffled"]["exact"], "exact")
    assert_close(found["exact"], 0.25, "exact")
    assert found["gain"]["exact"] == 0.0


def test_transcripts_are_right_for_speech_alone() -> None:
    row = Row(id="a", texts={"en": "a handwritten zero"}, metadata={"transcript": "zero"})
    assert references(row, "en", "speech", [row]) == ["a handwritten zero", "zero"]
    assert references(row, None, "image", []) == ["a handwritten zero"]
    chinese = Row(id="a", texts={"zh": "手写的零", "en": "0"}, metadata={"transcript": "零"})
    assert references(chinese, "en", "speech", []) == ["0"]
    assert references(chinese, None, "speech", []) == ["手写的零", "零"]


def test_answers(rows: list[Row]) -> None:
    answers = [str(row.answer) for row in rows[:12]] + ["no idea"] * 4
    found = _one(measure_generation([Generated("image", "answer", rows, answers)], rows, None))
    assert_close(found["exact"], 0.75, "exact")
    assert found["shuffled"] == {"exact": 0.0}
    assert_close(found["chance"]["exact"], 0.25, "fp64")
    assert "wer" not in found


@pytest.mark.parametrize("target", ["image", "speech"])
def test_perfect_media(rows: list[Row], target: Any) -> None:
    outputs = _pictures(rows) if target == "image" else _speech(rows)
    results = measure_generation([Generated("text", target, rows, outputs)], rows, ByRule())
    found = _one(results)
    assert found["accuracy"] == 1.0
    assert found["shuffled"] == {"accuracy": 0.0}
    assert found["gain"] == {"accuracy": 1.0}
    assert found["chance"] == {"accuracy": 0.25}
    assert found["unknown_label"] == 0
    assert "copies" not in found
    assert results["judges"][target]["accuracy"] == 1.0
    assert results["judges"][target]["samples"] == 16
    assert set(results["judges"]) == {"trained_on", target}
    wrong = [*outputs[1:], outputs[0]]
    worse = _one(measure_generation([Generated("text", target, rows, wrong)], rows, ByRule()))
    assert worse["accuracy"] < 0.2
    assert_close(worse["frechet"], found["frechet"], "fp32")
    one_kind = [outputs[0]] * 16
    worst = _one(measure_generation([Generated("text", target, rows, one_kind)], rows, ByRule()))
    assert worst["accuracy"] == 0.25
    assert worst["frechet"] > found["frechet"]


def test_labels_that_judges_do_not_know_take_no_part(rows: list[Row]) -> None:
    others = [
        Row(id=row.id, image=row.image, label=None if i < 2 else "mauve" if i < 4 else row.label)
        for i, row in enumerate(rows)
    ]
    outputs = _pictures(rows)
    found = _one(measure_generation([Generated("text", "image", others, outputs)], rows, ByRule()))
    assert found["unknown_label"] == 4
    assert found["accuracy"] == 1.0
    none = [Row(id=row.id, image=row.image) for row in rows]
    found = _one(measure_generation([Generated("text", "image", none, outputs)], rows, ByRule()))
    assert found["unknown_label"] == 16
    assert "accuracy" not in found
    assert "frechet" in found


def test_copies_are_counted_where_there_is_an_input(rows: list[Row]) -> None:
    judges = ByRule()
    pictures = [judges.vision.decode(str(row.image)).permute(1, 2, 0).numpy() for row in rows]
    found = _one(measure_generation([Generated("image", "image", rows, pictures)], rows, judges))
    assert found["copies"] == 1.0
    assert 0 <= found["copies_of_others"] < 1.0
    heard = [(np.zeros(0, np.float32), 8_000)] * 16
    direction = Generated("text+speech", "speech", rows, heard)
    alone = _one(measure_generation([direction], rows, None))
    assert set(alone) == {"samples", "copies", "copies_of_others"}
    assert alone["copies"] == 0.0


def test_a_recording_may_be_as_long_as_the_model_hears(rows: list[Row], tmp_path: Path) -> None:
    """Which may be longer than the default is."""
    path, tone = tmp_path / "long.wav", np.sin(np.arange(61_000) / 9).astype(np.float32)
    soundfile.write(path, tone, 1000)
    long = [replace(rows[0], speech=path)]
    direction = Generated("speech", "speech", long, [(tone, 1000)])
    with pytest.raises(DataError, match="60"):
        measure_generation([direction], long, None)
    speech = SpeechProcessor(SpeechInputConfig(num_mels=16, max_seconds=90.0))
    assert _one(measure_generation([direction], long, None, speech=speech))["copies"] == 1.0


def test_speech_is_compared_with_speech_of_its_language(rows: list[Row]) -> None:
    spoken = [
        Row(id=row.id, speech=row.speech, label=row.label, speech_lang="en" if i < 8 else "zh")
        for i, row in enumerate(rows)
    ]
    outputs = [(ByRule().speech.decode(str(row.speech)).numpy(), 16_000) for row in spoken[:8]]
    english, chinese, french = (
        _one(
            measure_generation(
                [Generated("text", "speech", spoken[:8], outputs, lang)], spoken, ByRule()
            )
        )
        for lang in ("en", "zh", "fr")
    )
    assert english["frechet"] < 1e-6
    assert chinese["frechet"] > english["frechet"]
    assert "frechet" not in french


def test_the_tree_is_json_and_depends_on_nothing_but_its_arguments(rows: list[Row]) -> None:
    directions = [
        Generated("image", "text", rows, ["a red square"] * 16, "en"),
        Generated("speech", "image", rows, _pictures(rows)),
        Generated("image", "speech", rows, _speech(rows), "en"),
    ]
    first, again = (measure_generation(directions, rows, ByRule(), seed=5) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(again, allow_nan=False)
    assert set(first) == {"rows", "seed", "by", "judges", "directions"}


def test_references_of_a_row_are_right_too(rows: list[Row]) -> None:
    row = replace(rows[0], references={"en": ("ein rotes Quadrat",)})
    assert "ein rotes Quadrat" in references(row, "en", "image", [])
    found = measure_generation(
        [Generated("image", "text", [row], ["ein rotes quadrat"], "en")], [row], None
    )
    assert _one(found)["exact"] == 1.0


@pytest.mark.parametrize("target", ["image", "text", "speech"])
def test_parts_of_a_manifest_add_up_to_the_whole(rows: list[Row], target: Any) -> None:
    """Half of the outputs, those of the first eight rows, are what they should be."""
    parted = [replace(row, metadata={"half": i // 8}) for i, row in enumerate(rows)]
    lent = [*rows[:8], *rows[:1] * 8]
    texts = [row.texts["en"] for row in lent]
    outputs = {"image": _pictures(lent), "text": texts, "speech": _speech(lent)}[target]
    lang = "en" if target == "text" else None
    made = [Generated("image", target, parted, outputs, lang)]
    found = _one(measure_generation(made, parted, ByRule(), by=["half"]))
    first, second = found["by"]
    assert first == {"values": [0], "samples": 8, "right": 1.0}
    assert second["right"] == np.mean([row.label == rows[0].label for row in rows[8:]])
    whole = found["exact" if target == "text" else "accuracy"]
    assert_close(whole, (first["right"] + second["right"]) / 2, "fp64")


def test_nothing_generated_has_no_scores(rows: list[Row]) -> None:
    found = _one(measure_generation([Generated("image", "text", [], [], "en")], rows, ByRule()))
    assert found["samples"] == 0
    found = _one(measure_generation([Generated("image", "image", [], [])], rows, ByRule()))
    assert found == {"samples": 0, "copies": 0.0}


def test_what_cannot_be_scored_is_refused(rows: list[Row], tmp_path: Path) -> None:
    bare = [Row(id="a", texts={"en": "x"}, where="m.jsonl:3")]
    for direction, message in (
        (Generated("image", "text", bare, ["x"], "zh"), "m.jsonl:3: has no text in zh to compare"),
        (Generated("image", "answer", bare, ["x"]), "m.jsonl:3: has no answer to compare with"),
        (Generated("image", "image", bare, _pictures(rows)[:1]), "m.jsonl:3: has no image to"),
    ):
        with pytest.raises(DataError, match=message):
            measure_generation([direction], bare, None)
    one = Generated("image", "text", rows, ["x"] * 16)
    with pytest.raises(ValueError, match="image->text: 16 outputs of 16 rows"):
        measure_generation([one, one], rows, None)
    with pytest.raises(ValueError, match="3 outputs of 16 rows"):
        measure_generation([Generated("image", "text", rows, ["x"] * 3)], rows, None)
