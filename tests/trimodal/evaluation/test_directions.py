from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimodal.data import Row, read_manifest
from trimodal.evaluation.directions import directions_of, generate_directions
from trimodal.models import TrimodalModel
from trimodal.testing import tiny_model, write_tiny_manifest

ALL = ("image", "text", "speech")


@pytest.fixture(scope="module")
def model() -> TrimodalModel:
    return tiny_model()


def row(**fields: object) -> Row:
    known: dict[str, Any] = {"id": "a", "image": Path("a.png"), "speech": Path("a.wav")}
    known["texts"] = {"en": "seven", "zh": "七"}
    return Row(**{**known, **fields})


def names(rows: list[Row], targets: tuple[str, ...] = ALL) -> set[str]:
    return {direction.name for direction in directions_of(rows, targets)}


def test_all_nine_directions_in_every_language() -> None:
    assert names([row(speech_lang="zh")]) == {
        "image->image", "text->image", "speech->image",
        "image->text[en]", "image->text[zh]", "speech->text[en]", "speech->text[zh]",
        "text[en]->text[zh]", "text[zh]->text[en]",
        "image->speech[zh]", "text->speech[zh]", "speech->speech[zh]",
    }  # fmt: skip


def test_what_is_absent_or_not_learnt_is_no_direction() -> None:
    assert names([row()], ("text",)) == {
        "image->text[en]", "image->text[zh]", "speech->text[en]", "speech->text[zh]",
        "text[en]->text[zh]", "text[zh]->text[en]",
    }  # fmt: skip
    assert names([row(image=None, texts={"en": "seven"})], ("image", "text")) == {
        "text->image", "speech->image", "speech->text[en]",
    }  # fmt: skip
    assert names([row()], ()) == set()


def test_questions_are_asked_in_writing_and_in_speech() -> None:
    asked = row(question="which?", answer="seven", question_speech=Path("q.wav"))
    assert {n for n in names([asked]) if "answer" in n} == {
        "image+text->answer", "image+speech->answer"
    }  # fmt: skip
    assert directions_of([asked], ALL, answers=True) == directions_of([asked], ALL)
    silent = directions_of([asked], ALL, answers=False)
    assert not [one for one in silent if one.target == "answer"]


def test_every_direction_has_an_output_for_each_row_that_fits(
    tmp_path: Path, model: TrimodalModel
) -> None:
    rows = read_manifest(write_tiny_manifest(tmp_path, rows=8))
    made = {one.name: one for one in generate_directions(model, rows, seed=1)}
    again = {one.name: one for one in generate_directions(model, rows[::-1], seed=1)}
    assert {"image->image", "text->speech", "speech->text[en]", "image->text[zh]"} <= set(made)
    for name, one in made.items():
        source, target = name.split("->")
        assert len(one.rows) == len(one.outputs) > 0
        for there, output, back in zip(
            one.rows, one.outputs, again[name].outputs[::-1], strict=True
        ):
            assert source.partition("[")[0] in there.data_names
            if target.startswith("speech"):
                assert output[1] == model.sample_rate
                output, back = output[0], back[0]
            assert np.array_equal(output, back)
