from collections import Counter

import numpy as np
import pytest

from trimodal.data.captions import caption, pair_name, paraphrases, questions
from trimodal.data.corpus import SPLITS, Item
from trimodal.data.espeak import SPEAKERS
from trimodal.data.scenes import CELLS, KINDS, Scenes, compose
from trimodal.data.shapes import HELD_OUT, RGB, SHAPES, SIDE, Scene
from trimodal.errors import ConfigError

COUNTS = {"train": 600, "val": 200, "test": 200}


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {split: [compose(0, split, i) for i in range(n)] for split, n in COUNTS.items()}


@pytest.fixture(scope="module")
def items() -> dict[str, list[Item]]:
    recipe = Scenes()
    return {split: [recipe.item(split, i) for i in range(n)] for split, n in COUNTS.items()}


def test_a_scene_is_a_pure_function_of_its_place(scenes: dict[str, list[Scene]]) -> None:
    assert compose(0, "train", 17) == scenes["train"][17]
    assert compose(1, "train", 17) != scenes["train"][17]
    assert compose(0, "val", 17) != compose(0, "test", 17)


def test_held_out_pairs_are_never_in_train_and_half_of_the_others(
    scenes: dict[str, list[Scene]],
) -> None:
    pairs = {s: [f.pair for scene in scenes[s] for f in scene.figures] for s in SPLITS}
    assert set(pairs["train"]).isdisjoint(HELD_OUT)
    assert {colour for colour, _ in pairs["train"]} == set(RGB)
    assert {shape for _, shape in pairs["train"]} == set(SHAPES)
    for split in ("val", "test"):
        assert set(pairs[split]) >= HELD_OUT
        assert 0.4 < np.mean([pair in HELD_OUT for pair in pairs[split]]) < 0.6


def test_every_kind_comes_as_often_as_it_should(scenes: dict[str, list[Scene]]) -> None:
    kinds = Counter(scene.kind for scene in scenes["train"])
    for kind, share in KINDS.items():
        assert abs(kinds[kind] / 600 - share) < 0.06


def test_figures_lie_inside_and_apart(scenes: dict[str, list[Scene]]) -> None:
    for scene in (scene for split in SPLITS for scene in scenes[split]):
        for i, a in enumerate(scene.figures):
            assert a.radius <= a.x <= SIDE - a.radius
            assert a.radius <= a.y <= SIDE - a.radius
            for b in scene.figures[:i]:
                assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius


def test_figures_stand_out_from_the_ground(scenes: dict[str, list[Scene]]) -> None:
    for scene in scenes["train"]:
        for figure in scene.figures:
            assert np.abs(np.subtract(RGB[figure.colour], scene.ground)).sum() >= 180


def test_relations_and_places_hold(scenes: dict[str, list[Scene]]) -> None:
    seen = Counter()
    for scene in (scene for split in SPLITS for scene in scenes[split]):
        first = scene.figures[0]
        if scene.kind == "relation":
            right, down = np.subtract((first.x, first.y), (scene.figures[1].x, scene.figures[1].y))
            axis, across = (down, right) if scene.link < 2 else (right, down)
            assert axis > 25 if scene.link % 2 else axis < -25
            assert abs(across) <= 10
        if scene.kind == "single":
            row, column = divmod(scene.link, 3)
            assert np.hypot(first.x - CELLS[column], first.y - CELLS[row]) < 2.2
        seen[scene.kind, scene.link] += 1
    assert {link for kind, link in seen if kind == "relation"} == set(range(4))
    assert {link for kind, link in seen if kind == "single"} == set(range(9))


def test_rows_say_what_is_seen(
    items: dict[str, list[Item]], scenes: dict[str, list[Scene]]
) -> None:
    for split in SPLITS:
        for item, scene in zip(items[split], scenes[split], strict=True):
            fields = item.fields
            assert fields["text"] == caption(scene, "en")
            assert fields["group"] in {fields["text"], *fields.get("references", {}).get("en", ())}
            assert fields["figures"] == len(scene.figures)
            assert fields["text_zh"] == caption(scene, "zh")
            assert item.utterance is not None
            assert item.utterance.text == caption(scene, item.utterance.lang)
            answered = (fields["question"], fields["answer"])
            assert answered in questions(scene, fields["question_lang"])
            assert fields["held_out"] == any(figure.pair in HELD_OUT for figure in scene.figures)
            single = pair_name(scene.figures[0].pair, "en") if scene.kind == "single" else None
            assert fields.get("label") == single
            np.testing.assert_array_equal(item.pixels, scene.draw())


def test_both_languages_are_spoken_and_asked(items: dict[str, list[Item]]) -> None:
    said = [(i.utterance, i.fields["question_lang"]) for i in items["train"]]
    pairs = Counter((utterance.lang, asked) for utterance, asked in said if utterance)
    assert len(pairs) == 4
    assert min(pairs.values()) > 100


def test_both_ways_to_tell_a_scene_share_a_group(
    items: dict[str, list[Item]], scenes: dict[str, list[Scene]]
) -> None:
    groups: dict[str, str] = {}
    for item, scene in zip(items["train"], scenes["train"], strict=True):
        for text in paraphrases(scene, "en"):
            assert groups.setdefault(text, item.fields["group"]) == item.fields["group"]
    references = [i.fields["references"] for i in items["test"] if i.fields["kind"] == "relation"]
    assert all(len(texts["en"]) == len(texts["zh"]) == 1 for texts in references)
    assert {"references" in i.fields for i in items["test"] if i.fields["kind"] == "count"} == {
        False
    }


def test_a_share_of_train_is_spoken_and_nothing_else_changes(items: dict[str, list[Item]]) -> None:
    recipe = Scenes(spoken=0.25)
    quiet = [recipe.item("train", i) for i in range(COUNTS["train"])]
    spoken = [item for item in quiet if item.utterance is not None]
    assert abs(len(spoken) / len(quiet) - 0.25) < 0.05
    assert all((item.question is None) == (item.utterance is None) for item in quiet)
    assert [item.fields for item in quiet] == [item.fields for item in items["train"]]
    assert all(recipe.item("val", i).utterance is not None for i in range(20))
    assert "25 % of the rows of train are spoken" in recipe.readme()


def test_scenes_with_one_caption_share_a_group(items: dict[str, list[Item]]) -> None:
    groups = Counter(item.fields["group"] for item in items["train"])
    assert max(groups.values()) > 1
    assert len(groups) > 400


def test_speakers_are_disjoint(items: dict[str, list[Item]]) -> None:
    speakers = {
        split: {i.utterance.voice.name for i in items[split] if i.utterance} for split in SPLITS
    }
    assert {split: len(names) for split, names in speakers.items()} == SPEAKERS
    assert len(set().union(*speakers.values())) == sum(SPEAKERS.values())


def test_prompts_name_every_pair_in_both_languages(items: dict[str, list[Item]]) -> None:
    prompts = Scenes().prompts()
    assert len(prompts) == len(RGB) * len(SHAPES)
    assert {i.fields["label"] for i in items["test"] if "label" in i.fields} <= set(prompts)
    assert prompts["orange star"] == {
        "en": ["orange star", "an orange star", "a picture of an orange star"],
        "zh": ["橙色的星形", "一个橙色的星形", "一个橙色的星形的图片"],
    }


def test_val_and_test_have_a_tenth_each() -> None:
    assert [Scenes(samples=4000).size(split) for split in SPLITS] == [4000, 400, 400]
    with pytest.raises(ConfigError, match=r"^9 samples are too few"):
        Scenes(samples=9)


def test_the_readme_names_the_held_out_pairs() -> None:
    readme = Scenes(samples=50).readme()
    assert all(pair_name(pair, "en") in readme for pair in HELD_OUT)
    assert "`train.jsonl` 50 rows, `val.jsonl` 5, `test.jsonl` 5" in readme
    with pytest.raises(ConfigError, match=r"^the share of spoken rows must be in \[0, 1\], got 2$"):
        Scenes(spoken=2)
