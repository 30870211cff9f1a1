from pathlib import Path
from typing import Any

from trimodal.evaluation import evaluate, format_table


def _cells(text: str, name: str) -> list[str]:
    """The numbers of the first line that starts with `name`."""
    line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
    return line.removeprefix(name).split()


def test_every_number_has_its_row(oracle: Any, corpus: Path) -> None:
    text = format_table(evaluate(oracle, corpus))
    assert f"{corpus}: 32 rows" in text
    assert _cells(text, "image->speech")[:4] == ["100.0"] * 4
    assert "retrieval by label: the same" in text
    assert _cells(text, "image->text[zh] accuracy") == ["100.0", "100.0"]
    assert "(prompts: the manifest's texts)" in text
    assert "modality gap  image-text 0.0" in text


def test_columns_line_up(oracle: Any, corpus: Path) -> None:
    block = format_table(evaluate(oracle, corpus)).split("\n\n")[1].splitlines()
    assert block[0].startswith("retrieval by group")
    assert len({len(line) for line in block}) == 1


def test_labels_that_differ_from_groups_get_a_table(oracle: Any, corpus: Path) -> None:
    results = evaluate(oracle, corpus)
    results["retrieval_by_label"]["image->text"] = {
        **results["retrieval"]["image->text"],
        "R@1": 0.123,
        "median_rank": 2.5,
    }
    text = format_table(results)
    assert "12.3" in text.split("retrieval by label")[1]
    assert "2.5" in text.split("retrieval by label")[1]


def test_a_classification_head_says_who_was_left_out(oracle: Any, corpus: Path) -> None:
    oracle.class_labels = ("red", "green", "blue")
    text = format_table(evaluate(oracle, corpus))
    assert _cells(text, "from image, speech")[:2] == ["100.0", "100.0"]
    assert _cells(text, "from speech")[:2] == ["100.0", "100.0"]
    assert "(left out: 8 rows whose label the head does not know, 1 with none" in text


def test_a_manifest_of_one_modality_has_little_to_say(oracle: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": "a", "text": "red"}\n{"id": "b", "text": "blue"}\n')
    text = format_table(evaluate(oracle, path))
    assert "retrieval" not in text
    assert "zero-shot" not in text
    assert "uniformity" in text
