from typing import Any

from trimodal.evaluation.generation_table import format_generation

TEXT = {
    "samples": 20,
    "exact": 0.75,
    "wer": 0.5,
    "cer": 0.125,
    "cider": 3.25,
    "chance": {"exact": 0.1},
    "shuffled": {"exact": 0.05, "wer": 0.9, "cer": 0.8, "cider": 0.5},
    "gain": {"exact": 0.7, "wer": 0.4, "cer": 0.675, "cider": 2.75},
}
IMAGE = {
    "samples": 30,
    "copies": 0.2,
    "copies_of_others": 0.25,
    "frechet": 1.5,
    "accuracy": 0.9,
    "chance": {"accuracy": 0.25},
    "shuffled": {"accuracy": 0.025},
    "gain": {"accuracy": 0.875},
    "unknown_label": 0,
}


def _results(directions: dict[str, Any], judges: Any = None) -> dict[str, Any]:
    return {"rows": 20, "judges": judges, "directions": directions}


def test_every_number_has_its_column() -> None:
    judges = {"trained_on": "ab", "image": {"accuracy": 0.985, "samples": 20}}
    text = format_generation(_results({"speech->text[en]": TEXT, "image->image": IMAGE}, judges))
    header, first, second, note = text.splitlines()
    assert header.split() == [
        *("generation", "right", "shuffled", "chance", "gain", "WER", "CER", "CIDEr"),
        *("Fréchet", "copies", "others", "alike", "samples"),
    ]
    assert first.split() == [
        *("speech->text[en]", "75.0", "5.0", "10.0", "70.0", "50.0", "12.5", "3.25", "20"),
    ]
    assert second.split() == [
        *("image->image", "90.0", "2.5", "25.0", "87.5", "1.50", "20.0", "25.0", "30"),
    ]
    assert len({len(header), len(first), len(second)}) == 1
    assert note == "(the judges on the real media: image 98.5)"


def test_columns_without_a_number_are_left_out() -> None:
    text = format_generation(_results({"image->answer": {"samples": 4, "exact": 0.5}}))
    assert [line.split() for line in text.splitlines()] == [
        ["generation", "right", "samples"],
        ["image->answer", "50.0", "4"],
    ]
    assert format_generation(_results({})) == ""
