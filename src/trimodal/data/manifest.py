"""The manifest: a JSON line per sample, read strictly.

rows = read_manifest("corpus/train.jsonl")
"""

import json
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trimodal.config import LANGUAGES
from trimodal.errors import DataError

IDEOGRAPH = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
SURROGATE = re.compile("[\ud800-\udfff]")
CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")
LONGEST_LINE = 2**24
LONGEST_ID = 1000
STRINGS = ("question", "answer", "label", "group", "speaker", "speech_lang")
KNOWN = {
    "id",
    "image",
    "text",
    "speech",
    "question_speech",
    "lang",
    "references",
    *STRINGS,
    *(f"text_{lang}" for lang in LANGUAGES),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a manifest; its files exist and are not empty, but have not been decoded."""

    id: str
    image: Path | None = None
    texts: dict[str, str] = field(default_factory=dict)
    """By language, the one of `text` first."""
    references: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By language, other texts that are as right as the row's own when one is generated."""
    speech: Path | None = None
    question: str | None = None
    question_speech: Path | None = None
    """The question, spoken."""
    answer: str | None = None
    label: str | None = None
    group: str | None = None
    speaker: str | None = None
    speech_lang: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    """Every key that a manifest does not define."""
    where: str = ""
    """`FILE:LINE`, for messages about this row."""

    @property
    def data_names(self) -> tuple[str, ...]:
        """Which of `image`, `text` and `speech` the row has."""
        present = (("image", self.image), ("text", self.texts), ("speech", self.speech))
        return tuple(name for name, value in present if value)

    def key(self, positives: Literal["sample", "group", "label"]) -> str:
        """A string that two rows share exactly when they belong together.

        Args:
            positives: `sample`, a row belongs to itself alone; `group`, to its group if it has
                one; `label`, to its label, else to its group.
        """
        if positives == "label" and self.label is not None:
            return f"label:{self.label}"
        if positives != "sample" and self.group is not None:
            return f"group:{self.group}"
        return f"id:{self.id}"


def read_manifest(path: str | Path) -> list[Row]:
    """Read one manifest.

    Raises:
        DataError: `FILE:LINE: cause` of the first bad row, or the file is missing or has no row.
    """
    return read_manifests([path])


def read_manifests(paths: Iterable[str | Path]) -> list[Row]:
    """Read several manifests as one; an id occurs once in all of them together.

    Raises:
        DataError: as `read_manifest`.
    """
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for path in paths:
        for row, problems in scan_manifest(path, seen):
            if row is None or problems:
                raise DataError(problems[0])
            rows.append(row)
    if not rows:
        raise DataError("no manifest is given")
    return rows


def scan_manifest(
    path: str | Path, seen: dict[str, str] | None = None
) -> Iterator[tuple[Row | None, list[str]]]:
    """Every row that is not blank with its problems, each `FILE:LINE: cause`.

    A row with problems holds what could be understood of it, or is None if that is nothing.

    Args:
        path: the manifest; relative media paths start at its folder.
        seen: ids that are taken and where; the ids of this manifest are added.

    Raises:
        DataError: the file cannot be read, has no row or a line of more than 16 MiB.
    """
    path = Path(path)
    seen = {} if seen is None else seen
    empty = True
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise DataError(f"manifest {path} cannot be read: it is not a regular file")
        with path.open("rb") as file:
            lines = iter(lambda: file.readline(LONGEST_LINE + 1), b"")
            for number, line in enumerate(lines, start=1):
                if len(line) > LONGEST_LINE:
                    raise DataError(f"{path}:{number}: the line is longer than 16 MiB")
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    empty = False
                    yield _read_row(line, f"{path}:{number}", path.parent, seen)
    except OSError as error:
        raise DataError(f"manifest {path} cannot be read: {error.strerror}") from error
    if empty:
        raise DataError(f"manifest {path} has no rows")


def language_of(text: str) -> str:
    """`zh` if the text holds a Chinese ideograph, else `en`."""
    return "zh" if IDEOGRAPH.search(text) else "en"


def _read_row(
    line: bytes, where: str, folder: Path, seen: dict[str, str]
) -> tuple[Row | None, list[str]]:
    try:
        tree = json.loads(line.rstrip().decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        return None, [f"{where}: not UTF-8 at byte {error.start + 1} of the line"]
    except json.JSONDecodeError as error:
        return None, [f"{where}: not JSON: {error.msg} at column {error.colno}"]
    except (DataError, ValueError) as error:  # a number of thousands of digits is a ValueError
        return None, [f"{where}: {error}"]
    except RecursionError:
        return None, [f"{where}: not JSON that can be read: nested too deeply"]
    if not isinstance(tree, dict):
        return None, [f"{where}: expected a JSON object, got {_short(tree)}"]
    fields = _Fields(tree, folder)
    row = _row(fields, where, seen)
    return row, [f"{where}: {problem}" for problem in fields.problems]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree:
            raise DataError(f"the key {key!r} occurs twice")
        tree[key] = value
    return tree


def _short(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace").decode()
    except RecursionError:
        return "something nested deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Fields:
    """Takes checked values out of one JSON object and notes what is wrong with the others."""

    def __init__(self, tree: Mapping[str, Any], folder: Path) -> None:
        self.tree = tree
        self.folder = folder
        self.problems: list[str] = []

    def string(self, key: str) -> str | None:
        """A string that is not blank; null is absent."""
        value = self.tree.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.problems.append(f"{key} must be a string, got {_short(value)}")
        elif not value.strip():
            self.problems.append(f"{key} is empty")
        elif not value.isascii() and SURROGATE.search(value):
            self.problems.append(f"{key} is not valid Unicode: it holds a lone surrogate")
        else:
            return value
        return None

    def file(self, key: str) -> Path | None:
        """The path of a file that exists and is not empty."""
        name = self.string(key)
        if name is None:
            return None
        path = self.folder / name
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            cause = "does not exist"
        except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
            cause = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        else:
            if stat.S_ISREG(status.st_mode) and status.st_size > 0:
                return path
            cause = "is an empty file" if stat.S_ISREG(status.st_mode) else "is not a file"
        self.problems.append(f"{key} {name!r} {cause}")
        return None

    def texts(self) -> dict[str, str]:
        """The text in each language."""
        texts: dict[str, str] = {}
        lang, text = self.string("lang"), self.string("text")
        if lang is not None and lang not in LANGUAGES:
            self.problems.append(f"lang must be {' or '.join(LANGUAGES)}, got {_short(lang)}")
        elif text is not None:
            texts[lang or language_of(text)] = text
        for lang in LANGUAGES:
            other = self.string(f"text_{lang}")
            if other is not None and texts.setdefault(lang, other) != other:
                self.problems.append(f"text and text_{lang} are both {lang} and differ")
        return texts

    def references(self) -> dict[str, tuple[str, ...]]:
        """Further texts in each language; null is absent."""
        tree = self.tree.get("references")
        if tree is None:
            return {}
        if not isinstance(tree, dict):
            self.problems.append(f"references must be an object, got {_short(tree)}")
            return {}
        found: dict[str, tuple[str, ...]] = {}
        for lang, texts in tree.items():
            if lang not in LANGUAGES:
                self.problems.append(
                    f"references must be by {' or '.join(LANGUAGES)}, got {_short(lang)}"
                )
            elif not isinstance(texts, list):
                self.problems.append(f"references.{lang} must be a list, got {_short(texts)}")
            else:
                checked = _Fields(
                    {f"references.{lang}[{i}]": t for i, t in enumerate(texts)}, self.folder
                )
                strings = [checked.string(key) for key in checked.tree]
                self.problems += checked.problems
                found[lang] = tuple(text for text in strings if text is not None)
        return found


def _row(fields: _Fields, where: str, seen: dict[str, str]) -> Row:
    name = fields.string("id")
    if name is None and fields.tree.get("id") is None:
        fields.problems.append("id is missing")
    elif name is not None and len(name) > LONGEST_ID:
        fields.problems.append(f"id has {len(name)} characters, the limit is {LONGEST_ID}")
    elif name is not None and CONTROL.search(name):
        fields.problems.append(f"id {name!r} holds a control character")
    elif name is not None and name in seen:
        fields.problems.append(f"id {name!r} is already used at {seen[name]}")
    elif name is not None:
        seen[name] = where
    if all(fields.tree.get(k) is None for k in ("image", "text", "speech", "text_en", "text_zh")):
        fields.problems.append("has neither image nor text nor speech")
    return Row(
        id=name or "",
        image=fields.file("image"),
        texts=fields.texts(),
        references=fields.references(),
        speech=fields.file("speech"),
        question_speech=fields.file("question_speech"),
        metadata={key: value for key, value in fields.tree.items() if key not in KNOWN},
        where=where,
        **{key: fields.string(key) for key in STRINGS},
    )
