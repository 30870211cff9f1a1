import json
from pathlib import Path

import pytest

from trimodal.data.row import Folder, Row, check_row, language_of, parse
from trimodal.storage import ShardFile


def test_language_of_rare_ideographs() -> None:
    assert [language_of(text) for text in ("seven", "Ünïcode, あ", "〇", "㐀", "𠀀", "a七")] == [
        *("en", "en", "zh", "zh", "zh", "zh")
    ]


def test_keys_tell_which_rows_belong_together() -> None:
    full = Row(id="7", group="7", label="7")
    grouped = Row(id="8", group="7")
    bare = Row(id="7")
    assert [full.key(p) for p in ("sample", "group", "label")] == ["id:7", "group:7", "label:7"]
    assert [grouped.key(p) for p in ("sample", "group", "label")] == ["id:8", "group:7", "group:7"]
    assert {bare.key(p) for p in ("sample", "group", "label")} == {"id:7"}


def test_a_line_is_a_row_with_its_problems_and_its_tree(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "m.jsonl"), {})
    row, problems, tree = parse(b'{"id": "a", "text": "x", "label": 7}', "m:1", folder, {})
    assert row == Row(id="a", texts={"en": "x"}, where="m:1")
    assert problems == ["m:1: label must be a string, got 7"]
    assert tree == {"id": "a", "text": "x", "label": 7}
    assert parse(b"[", "m:2", folder, {})[0] is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"offset": -1}, "image needs shard, offset and size"),
        ({"sha256": "no"}, 'image needs a sha256, got "no"'),
        ({"shard": "s3://bucket/x.tar"}, "image needs shard, offset and size"),
        ({"size": 11}, "bytes 2 to 13 lie beyond its 10 bytes"),
        ({"shard": "other.tar"}, "other.tar cannot be read: No such file"),
    ],
)
def test_a_part_of_a_shard_is_within_it(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    (tmp_path / "x.tar").write_bytes(bytes(10))
    folder = Folder(str(tmp_path / "m.jsonl"), {})
    part = {"shard": "x.tar", "offset": 2, "size": 3, "sha256": "0" * 64}
    row, problems, _ = parse(json.dumps({"id": "a", "image": part}).encode(), "m:1", folder, {})
    assert row is not None
    assert row.image == ShardFile(str(tmp_path / "x.tar"), 2, 3, "0" * 64)
    assert problems == []
    line = json.dumps({"id": "b", "image": {**part, **change}}).encode()
    (found,) = parse(line, "m:2", folder, {})[1]
    assert problem in found


def test_a_row_whose_media_are_there_is_checked_for_the_rest() -> None:
    seen: dict[str, str] = {}
    assert check_row({"id": "a", "image": b"any"}, "t:1", seen) == []
    assert check_row({"id": "a", "speech": b"any"}, "t:2", seen) == [
        "t:2: id 'a' is already used at t:1"
    ]
    assert check_row({"id": "b", "lang": "fr"}, "t:3", seen) == [
        "t:3: has neither image nor text nor speech",
        't:3: lang must be en or zh, got "fr"',
    ]
