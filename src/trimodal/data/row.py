"""One line of a manifest: what it may hold, checked.

row, problems, tree = parse(line, "train.jsonl:17", Folder("train.jsonl", {}), seen)
"""

import functools
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trimodal.config import LANGUAGES
from trimodal.errors import DataError, StorageError
from trimodal.storage import ShardFile, Source, beside, is_missing, is_remote, patiently, size_of

IDEOGRAPH = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
SHA256 = re.compile("[0-9a-f]{64}")
SURROGATE = re.compile("[\ud800-\udfff]")
CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")
LONGEST_ID = 1000
STRINGS = ("question", "answer", "label", "group", "speaker", "speech_lang")
MEDIA = ("image", "speech", "question_speech")
"""Keys that name files."""
OTHERS = ("transcript", "image_codes", "speech_codes")
"""Keys of metadata that something reads all the same."""
KNOWN = {
    "id",
    "text",
    "lang",
    "references",
    *MEDIA,
    *STRINGS,
    *(f"text_{lang}" for lang in LANGUAGES),
}


@dataclass(frozen=True)
class Folder:
    """Where relative paths of a manifest begin, and the sizes of shards that were looked at."""

    manifest: str
    shards: dict[str, int | str]

    def size(self, shard: str) -> int | str:
        """Bytes of a shard, or that there is none.

        Raises:
            StorageError: it cannot be told now.
        """
        if shard not in self.shards:
            try:
                self.shards[shard] = patiently(functools.partial(size_of, shard))
            except StorageError as error:
                if not is_missing(error):
                    raise
                self.shards[shard] = str(error)
        return self.shards[shard]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a manifest; its files exist and are not empty, but have not been decoded."""

    id: str
    image: Source | None = None
    texts: dict[str, str] = field(default_factory=dict)
    """By language, the one of `text` first."""
    references: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By language, other texts that are as right as the row's own when one is generated."""
    speech: Source | None = None
    question: str | None = None
    question_speech: Source | None = None
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
    fault: str | None = None
    """`FILE:LINE: cause`, why the row cannot be used though it is kept."""

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


def language_of(text: str) -> str:
    """`zh` if the text holds a Chinese ideograph, else `en`."""
    return "zh" if IDEOGRAPH.search(text) else "en"


def parse(
    line: bytes, where: str, folder: Folder, seen: dict[str, str]
) -> tuple[Row | None, list[str], dict[str, Any] | None]:
    """A row, what is wrong with it, each `FILE:LINE: cause`, and how it is written.

    A row with problems holds what could be understood of it, or is None if that is nothing.
    """
    try:
        tree = json.loads(line.rstrip().decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        return None, [f"{where}: not UTF-8 at byte {error.start + 1} of the line"], None
    except json.JSONDecodeError as error:
        return None, [f"{where}: not JSON: {error.msg} at column {error.colno}"], None
    except (DataError, ValueError) as error:  # a number of thousands of digits is a ValueError
        return None, [f"{where}: {error}"], None
    except RecursionError:
        return None, [f"{where}: not JSON that can be read: nested too deeply"], None
    if not isinstance(tree, dict):
        return None, [f"{where}: expected a JSON object, got {_short(tree)}"], None
    fields = _Fields(tree, folder)
    row = _row(fields, where, seen)
    return row, [f"{where}: {problem}" for problem in fields.problems], tree


def check_row(tree: Mapping[str, Any], where: str, seen: dict[str, str]) -> list[str]:
    """What is wrong with a row whose media are known to be there, each `FILE:LINE: cause`.

    Args:
        tree: as a line of a manifest would hold it, but for its media, which may be anything.
        where: it stands.
        seen: as of `read_whole`.
    """
    fields = _Texts(tree, Folder("", {}))
    _row(fields, where, seen)
    return [f"{where}: {problem}" for problem in fields.problems]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree:
            raise DataError(f"the key {key!r} occurs twice")
        tree[key] = value
    return tree


def _short(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
        text = text.encode(errors="backslashreplace").decode()
    except RecursionError:
        return "something nested deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."


def file_fault(path: Path) -> str | None:
    """What is wrong with a file, short of reading it."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    return None if status.st_size else "is an empty file"


class _Fields:
    """Takes checked values out of one JSON object and notes what is wrong with the others."""

    def __init__(self, tree: Mapping[str, Any], folder: Folder) -> None:
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

    def file(self, key: str) -> Source | None:
        """A file that exists and is not empty, by its path or within a shard."""
        if isinstance(part := self.tree.get(key), dict):
            return self._part(key, part)
        name = self.string(key)
        if name is None:
            return None
        if is_remote(self.folder.manifest):
            self.problems.append(f"{key} {name!r} is a path, and this manifest has shards alone")
            return None
        path = Path(self.folder.manifest).parent / name
        cause = file_fault(path)
        if cause is None:
            return path
        self.problems.append(f"{key} {name!r} {cause}")
        return None

    def _part(self, key: str, tree: Mapping[str, Any]) -> ShardFile | None:
        shard, digest = tree.get("shard"), tree.get("sha256")
        offset, size = (x if type(x := tree.get(k)) is int else -1 for k in ("offset", "size"))
        if not isinstance(shard, str) or is_remote(shard) or offset < 0 or size < 1:
            self.problems.append(f"{key} needs shard, offset and size, got {_short(tree)}")
        elif not isinstance(digest, str) or not SHA256.fullmatch(digest):
            self.problems.append(f"{key} needs a sha256, got {_short(digest)}")
        else:
            part = ShardFile(beside(self.folder.manifest, shard), offset, size, digest)
            there = self.folder.size(part.shard)
            if isinstance(there, int) and part.offset + part.size <= there:
                return part
            cause = there if isinstance(there, str) else f"{part} lie beyond its {there} bytes"
            self.problems.append(f"{key}: {cause}")
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


class _Texts(_Fields):
    """All but the media."""

    def file(self, key: str) -> Source | None:
        """None, whatever there is."""
        return None


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
