import json
import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from trimodal import storage
from trimodal.data import manifest, read_manifest, read_manifests, row
from trimodal.data.manifest import manifest_digest, moved, read_whole, scan_manifest
from trimodal.data.row import Row
from trimodal.errors import DataError, StorageError
from trimodal.storage import ShardFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file that exists, one that is empty and one that is a folder."""
    (tmp_path / "a.png").write_bytes(b"some bytes")
    (tmp_path / "empty.flac").touch()
    (tmp_path / "folder").mkdir()
    return tmp_path


def write(folder: Path, *rows: dict[str, Any] | str | bytes, name: str = "m.jsonl") -> Path:
    lines = [json.dumps(row, ensure_ascii=False) if isinstance(row, dict) else row for row in rows]
    path = folder / name
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines) + b"\n")
    return path


def test_reads_every_key(folder: Path) -> None:
    row = {
        "id": "r1",
        "image": "a.png",
        "text": "seven",
        "text_zh": "七",
        "speech": str(folder / "a.png"),
        "question": "what is it?",
        "answer": "seven",
        "label": "7",
        "group": "g",
        "speaker": "s",
        "speech_lang": "yue",
        "references": {"en": ["7", "the number seven"], "zh": []},
        "kind": {"nested": [1]},
    }
    path = write(folder, row)
    [read] = read_manifest(path)
    assert read == Row(
        id="r1",
        image=folder / "a.png",
        texts={"en": "seven", "zh": "七"},
        speech=folder / "a.png",
        question="what is it?",
        answer="seven",
        label="7",
        group="g",
        speaker="s",
        speech_lang="yue",
        references={"en": ("7", "the number seven"), "zh": ()},
        metadata={"kind": {"nested": [1]}},
        where=f"{path}:1",
    )
    assert read.data_names == ("image", "text", "speech")


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"text": "seven"}, {"en": "seven"}),
        ({"text": "数字7"}, {"zh": "数字7"}),
        ({"text": "七", "lang": "en"}, {"en": "七"}),
        ({"text_en": "seven"}, {"en": "seven"}),
        ({"text": "七", "text_en": "seven"}, {"zh": "七", "en": "seven"}),
        ({"text": "seven", "text_en": "seven", "lang": "en"}, {"en": "seven"}),
    ],
)
def test_texts_by_language(tmp_path: Path, row: dict[str, str], texts: dict[str, str]) -> None:
    [read] = read_manifest(write(tmp_path, {"id": "a", **row}))
    assert list(read.texts.items()) == list(texts.items())


def test_blank_lines_bom_crlf_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"id": "a", "text": "x"}\r\n\r\n  \n{"id": "b", "text": "y", "image": null}'
    )
    rows = read_manifest(path)
    assert [(row.id, row.where, row.data_names) for row in rows] == [
        ("a", f"{path}:1", ("text",)),
        ("b", f"{path}:4", ("text",)),
    ]


GOOD = {"id": "a", "text": "x"}
BAD_ROWS = [
    (b'{"id": "b", "text": "\xff"}', "not UTF-8 at byte 22 of the line"),
    ('{"id": "b", "text": }', "not JSON: Expecting value at column 21"),
    ('["b"]', 'expected a JSON object, got ["b"]'),
    ("[" * 100_000, "not JSON that can be read: nested too deeply"),
    ('{"id": "b", "text": "x", "id": "c"}', "the key 'id' occurs twice"),
    ({"text": "x"}, "id is missing"),
    ({"id": None, "text": "x"}, "id is missing"),
    ({"id": " ", "text": "x"}, "id is empty"),
    ({"id": 7, "text": "x"}, "id must be a string, got 7"),
    ({"id": "b\0", "text": "x"}, "id 'b\\x00' holds a control character"),
    ({"id": "b\x85", "text": "x"}, "id 'b\\x85' holds a control character"),
    ({"id": "b" * 1001, "text": "x"}, "id has 1001 characters, the limit is 1000"),
    ({"id": "b"}, "has neither image nor text nor speech"),
    ({"id": "b", "label": "7", "text": None}, "has neither image nor text nor speech"),
    ({"id": "b", "text": ""}, "text is empty"),
    ({"id": "b", "text_zh": " \n"}, "text_zh is empty"),
    ({"id": "b", "text": ["x"]}, 'text must be a string, got ["x"]'),
    ({"id": "b", "text": "x", "label": 7}, "label must be a string, got 7"),
    ({"id": "b", "text": "x", "speaker": {}}, "speaker must be a string, got {}"),
    ({"id": "b", "text": "x", "group": ""}, "group is empty"),
    ({"id": "b", "text": "x", "lang": "fr"}, 'lang must be en or zh, got "fr"'),
    ('{"id": "b", "text": "\\ud800"}', "text is not valid Unicode: it holds a lone surrogate"),
    ({"id": "b", "image": "b.png"}, "image 'b.png' does not exist"),
    ({"id": "b", "image": "a.png/b.png"}, "image 'a.png/b.png' does not exist"),
    ({"id": "b", "speech": "folder"}, "speech 'folder' is not a file"),
    ({"id": "b", "speech": "empty.flac"}, "speech 'empty.flac' is an empty file"),
    ({"id": "b", "image": "x" * 300}, f"image '{'x' * 300}' cannot be read: File name too long"),
    ({"id": "b", "image": "a\0b"}, "image 'a\\x00b' cannot be read: embedded null byte"),
    ({"id": "b", "text": "x", "references": ["y"]}, 'references must be an object, got ["y"]'),
    (
        {"id": "b", "text": "x", "references": {"fr": ["y"]}},
        'references must be by en or zh, got "fr"',
    ),
    (
        {"id": "b", "text": "x", "references": {"en": "y"}},
        'references.en must be a list, got "y"',
    ),
    (
        {"id": "b", "text": "x", "references": {"en": ["y", 7]}},
        "references.en[1] must be a string, got 7",
    ),
    ({"id": "b", "text": "x", "text_en": "y"}, "text and text_en are both en and differ"),
    ({"id": "b", "text": "七", "text_zh": "柒"}, "text and text_zh are both zh and differ"),
]


@pytest.mark.parametrize(("row", "cause"), BAD_ROWS)
def test_a_bad_row_is_named(folder: Path, row: dict[str, Any] | str | bytes, cause: str) -> None:
    path = write(folder, GOOD, "", row, GOOD)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert str(caught.value) == f"{path}:3: {cause}"


def test_a_number_of_thousands_of_digits_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": "b", "text": "x", "n": ' + "9" * 5000 + "}")
    with pytest.raises(DataError, match=f"^{path}:1: Exceeds the limit"):
        read_manifest(path)


def test_a_line_without_an_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "LONGEST_LINE", 100)
    path = write(tmp_path, GOOD, b"\0" * 100)
    with pytest.raises(DataError, match=f"^{path}:2: the line is longer than 16 MiB$"):
        read_manifest(path)
    path = write(tmp_path, GOOD, {"id": "b", "text": "x" * 76})
    assert len(path.read_bytes().splitlines(keepends=True)[1]) == 100
    assert len(read_manifest(path)) == 2


def test_many_keys_take_no_long_search(tmp_path: Path) -> None:
    keys = ", ".join(f'"{i}": 0' for i in range(30_000))
    path = write(tmp_path, f'{{"id": "a", "text": "x", {keys}, "29999": 1}}')
    started = time.process_time()
    with pytest.raises(DataError, match=f"^{path}:1: the key '29999' occurs twice$"):
        read_manifest(path)
    assert time.process_time() - started < 2


def test_a_deep_value_is_named(tmp_path: Path) -> None:
    limit = sys.getrecursionlimit()
    rows = [f'{{"id": {"[" * depth}{"]" * depth}}}' for depth in range(limit - 200, limit)]
    path = write(tmp_path, *rows)
    found = {problems[0].partition(": ")[2] for _, problems in scan_manifest(path)}
    assert found <= {
        f"id must be a string, got {'[' * 57}...",
        "id must be a string, got something nested deeply",  # can be read but not be written
        "not JSON that can be read: nested too deeply",
    }


def test_a_duplicate_id_names_the_first(tmp_path: Path) -> None:
    first = write(tmp_path, GOOD, name="first.jsonl")
    with pytest.raises(DataError, match=f"^{first}:2: id 'a' is already used at {first}:1$"):
        read_manifest(write(tmp_path, GOOD, GOOD, name="first.jsonl"))
    first = write(tmp_path, GOOD, name="first.jsonl")
    second = write(tmp_path, {"id": "b", "text": "x"}, GOOD, name="second.jsonl")
    assert len(read_manifest(second)) == 2
    with pytest.raises(DataError, match=f"^{second}:2: id 'a' is already used at {first}:1$"):
        read_manifests([first, second])


def test_a_manifest_without_rows_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "", "  ")
    with pytest.raises(DataError, match=f"^manifest {path} has no rows$"):
        read_manifest(path)
    with pytest.raises(DataError, match=f"^manifest {tmp_path}/none cannot be read: No such file"):
        read_manifest(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(
            DataError, match=f"^manifest {place} cannot be read: it is not a regular file$"
        ):
            read_manifest(place)
    with pytest.raises(DataError, match=r"^no manifest is given$"):
        read_manifests([])


def test_scanning_lists_every_problem_of_every_row(folder: Path) -> None:
    path = write(folder, {"id": 1, "image": "no", "speech": "empty.flac"}, "{", GOOD)
    found = list(scan_manifest(path))
    assert [problems for _, problems in found] == [
        [
            f"{path}:1: id must be a string, got 1",
            f"{path}:1: image 'no' does not exist",
            f"{path}:1: speech 'empty.flac' is an empty file",
        ],
        [f"{path}:2: not JSON: Expecting property name enclosed in double quotes at column 2"],
        [],
    ]
    assert [row is None for row, _ in found] == [False, True, False]


def test_reading_manifests_loads_nothing_heavy() -> None:
    code = (
        "import sys, trimodal.data; "
        "print([m for m in ('torch', 'numpy', 'PIL', 'soundfile') if m in sys.modules])"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_manifest_is_read_once_with_what_it_is(folder: Path) -> None:
    rows = [{"id": "a", "image": "a.png", "kind": 1}, {"id": "b", "text": "x"}]
    path = write(folder, *rows)
    whole = read_whole(path, trees=True)
    assert [row.id for row in whole.rows] == ["a", "b"]
    assert whole.trees == rows
    assert whole.digest == manifest_digest(path) == sha256(path.read_bytes()).hexdigest()
    assert read_whole(path).trees == []
    bad = write(folder, rows[0], {"id": "b"}, name="bad.jsonl")
    kept = read_whole(bad, tolerant=True).rows[1]
    assert (kept.id, kept.fault) == ("b", f"{bad}:2: has neither image nor text nor speech")


@pytest.mark.parametrize("tolerant", [False, True])
def test_a_shard_that_cannot_be_looked_at_is_no_fault_of_its_rows(
    folder: Path, tolerant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tolerant run would leave out what the next one sees."""
    (folder / "s.tar").write_bytes(b"some bytes")
    part = {"shard": "s.tar", "offset": 0, "size": 4, "sha256": "0" * 64}
    path = write(folder, {"id": "a", "image": part})
    monkeypatch.setattr(storage.time, "sleep", lambda _: None)

    def fail(address: str) -> int:
        raise StorageError(f"{address} cannot be read: too many requests") from OSError()

    with monkeypatch.context() as patch:
        patch.setattr(row, "size_of", fail)
        with pytest.raises(StorageError, match=r"s\.tar cannot be read: too many requests"):
            read_whole(path, tolerant=tolerant)
    assert read_manifest(path)[0].image == ShardFile("", 0, 4, "0" * 64)
    (folder / "s.tar").unlink()
    assert "s.tar cannot be read: No such file" in str(
        read_whole(path, tolerant=True).rows[0].fault
    )


def test_paths_lead_from_another_folder(folder: Path) -> None:
    tree = {"id": "a", "image": "a.png", "speech": {"shard": "s.tar", "offset": 0}}
    speech = ShardFile(str(folder / "s.tar"), 0, 1, "0" * 64)
    row = Row(id="a", image=folder / "a.png", speech=speech)
    seen = moved(row, tree, folder / "other")
    assert seen == {"id": "a", "image": "../a.png", "speech": {"shard": "../s.tar", "offset": 0}}
    assert tree["image"] == "a.png"
    far = Row(id="a", speech=ShardFile("s3://b/c/s.tar", 0, 1, "0" * 64))
    named = moved(far, {"speech": {"offset": 0}}, "s3://b/d")
    assert named == {"speech": {"shard": "../c/s.tar", "offset": 0}}
    for place in (folder, "s3://other/d"):
        with pytest.raises(DataError, match=r"s3://b/c/s\.tar has no path from .*; import it into"):
            moved(far, {"speech": {"offset": 0}}, place)
