import base64
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from trimodal.data import Row, read_manifest
from trimodal.evaluation import gallery
from trimodal.evaluation.directions import generate_directions
from trimodal.evaluation.gallery import Way, make_examples, nine
from trimodal.models import TrimodalModel
from trimodal.models.generation import Generation
from trimodal.testing import tiny_model, write_tiny_manifest

WAYS = [f"{a}->{b}" for a in ("image", "text", "speech") for b in ("image", "text", "speech")]


@pytest.fixture(scope="module")
def model() -> TrimodalModel:
    """A model of random weights."""
    return tiny_model()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Sixteen rows, some of which lack a modality; texts are of two languages or of one."""
    path = write_tiny_manifest(tmp_path_factory.mktemp("gallery"), rows=16, name="test")
    tree = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for i, row in enumerate(tree):
        if row.get("lang") == "zh" and i % 3:
            row["text_en"] = f"a {row['label']} square"
        if "image" in row:
            row |= {"question": "什么颜色?", "answer": row["label"]}
        if "speech" in row:
            row |= {"speech_lang": "zh", "question_speech": row["speech"]}
    path.write_text("\n".join(map(json.dumps, tree)), encoding="utf-8")
    return read_manifest(path)


@pytest.fixture(scope="module")
def ways(model: TrimodalModel, rows: list[Row]) -> list[Way]:
    """What the page shows of them."""
    return make_examples(model, rows, seed=3)


def test_every_way_is_shown_with_a_few_rows_of_every_label(
    ways: list[Way], rows: list[Row]
) -> None:
    assert [way.name for way in ways] == [*WAYS, "image+text->answer", "image+speech->answer"]
    label = {row.id: row.label for row in rows}
    for way in ways:
        ids = [made.condition[0].id for made in way.examples]
        assert len(set(ids)) == len(ids) <= 6
        if way.name != "text->text":  # few rows have two languages
            assert len(ids) == 6
            assert len({label[name] for name in ids}) == 4
        for made in way.examples:
            assert [card.kind for card in made.condition] == way.source.split("+")
            assert made.output.id == f"made from {made.condition[0].id}"
            assert made.output.kind == way.target.replace("answer", "text")
            assert (made.right is None) == (made.output.kind != "text")
        if way.target in ("text", "answer"):
            assert way.right == sum(bool(made.right) for made in way.examples)
        else:
            assert way.right is None


def test_outputs_are_those_of_the_evaluation(
    model: TrimodalModel, rows: list[Row], ways: list[Way]
) -> None:
    measured = {
        (one.source.partition("[")[0], one.target, one.lang, row.id): output
        for one in generate_directions(model, rows, seed=3)
        for row, output in zip(one.rows, one.outputs, strict=True)
    }
    compared = 0
    for way in ways:
        for made in way.examples:
            output = measured[way.source, way.target, made.lang, made.condition[0].id]
            body = io.BytesIO(base64.b64decode(made.output.source.partition(",")[2]))
            if way.target == "image":
                with Image.open(body) as shown:
                    np.testing.assert_array_equal(np.asarray(shown), output)
            elif way.target == "speech":
                assert made.output.seconds == len(output[0]) / output[1]
                assert soundfile.info(body).samplerate == output[1]
            else:
                assert made.output.caption == re.sub(r"[\x00-\x1f\x7f-\x9f]", "\ufffd", output)
            compared += 1
    assert compared > 60


def test_languages_take_turns(ways: list[Way]) -> None:
    found = {way.name: [made.lang for made in way.examples] for way in ways}
    assert set(found["image->text"]) == set(found["text->text"]) == {"en", "zh"}
    assert set(found["image->speech"]) == {"zh"}
    assert set(found["text->image"]) == {None}
    (text_to_text,) = (way for way in ways if way.name == "text->text")
    for made in text_to_text.examples:
        assert made.condition[0].lang == {"en": "zh", "zh": "en"}[str(made.lang)]


def test_texts_are_marked_by_what_row_and_group_hold(
    model: TrimodalModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(["A red Square!", "a red circle"] * 100)

    def by_rule(*arguments: Any, **_: Any) -> Iterator[tuple[int, list[Generation]]]:
        chosen: list[Row] = arguments[1]
        assert chosen
        yield 0, [Generation(Any, next(said)) for _ in chosen]  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(gallery, "generate_rows", by_rule)
    reds = [row for row in rows if row.label == "red"]
    monkeypatch.setattr(model.config, "generates", ("text",))
    made = {way.name: way.examples for way in make_examples(model, reds)}
    english = [one for one in made["image->text"] if one.lang == "en"]
    assert english
    for one in english:
        assert one.right == (one.output.caption == "A red Square!")
        assert one.expected in ("a red square", "the square is red")
    for one in made["image+text->answer"]:
        assert (one.right, one.expected) == (False, "red")
        assert (one.condition[1].caption, one.condition[1].lang) == ("什么颜色?", "zh")
    for one in made["image+speech->answer"]:
        assert one.condition[1].source.startswith("data:audio/")


def test_a_model_that_makes_nothing_shows_nothing(
    model: TrimodalModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.config, "generates", ())
    assert make_examples(model, rows) == []


def test_the_first_of_each_stands_side_by_side(ways: list[Way]) -> None:
    table = nine(ways)
    assert [source for source, _ in table] == ["image", "text", "speech"]
    assert [made for _, cells in table for made in cells] == [way.examples[0] for way in ways[:9]]
    (source, cells), *others = nine(ways[1:2])
    assert (source, cells) == ("image", [None, ways[1].examples[0], None])
    assert all(cells == [None] * 3 for _, cells in others)
    assert nine(ways[9:]) == []
