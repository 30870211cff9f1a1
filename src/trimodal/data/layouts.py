"""Manifests of corpora as they are published, found by how their folders are laid out.

left = Left()
rows = LAYOUTS["librispeech"](Path("LibriSpeech/train-clean-100"), left)
write_manifest(rows, "corpus/train.jsonl")
"""

import json
import os
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trimodal.data.confines import confined
from trimodal.data.row import MEDIA
from trimodal.errors import DataError
from trimodal.storage import make_folder, replacing

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
UNTOLD = "recordings without a transcript"
Tree = dict[str, Any]
Left = Counter[str]
"""How many things of each kind are left out, known once all rows are read."""


def ljspeech(folder: Path, left: Left) -> Iterator[Tree]:
    """`metadata.csv` of `ID|as written|as read` and `wavs/ID.wav` (Ito and Johnson, 2017)."""
    recordings = {path.stem for path in _found(folder, "wavs/*.wav")}
    for where, line in _lines(folder / "metadata.csv"):
        name, *texts = line.split("|")
        if not texts:
            raise DataError(f"{where}: expected ID|text")
        recordings.discard(name)
        yield {
            "id": name,
            "text": texts[-1],
            "lang": "en",
            "speech": confined(f"{name}.wav", folder / "wavs", where),
            "speech_lang": "en",
            "speaker": "LJ",
        }
    left[UNTOLD] += len(recordings)


def librispeech(folder: Path, left: Left) -> Iterator[Tree]:
    """`SPEAKER/CHAPTER/*.trans.txt` beside FLAC (Panayotov et al., 2015); texts in lower case."""
    recordings = {path.stem for path in _found(folder, "*/*/*.flac")}
    for transcripts in _found(folder, "*/*/*.trans.txt"):
        for where, line in _lines(transcripts):
            name, _, text = line.partition(" ")
            recordings.discard(name)
            yield {
                "id": name,
                "text": text.lower(),
                "lang": "en",
                "speech": confined(f"{name}.flac", transcripts.parent, where),
                "speech_lang": "en",
                "speaker": name.partition("-")[0],
            }
    left[UNTOLD] += len(recordings)


def aishell(folder: Path, left: Left) -> Iterator[Tree]:
    """`transcript/*.txt` and `wav/SPLIT/SPEAKER/ID.wav` (Bu et al., 2017), texts without spaces.

    Name `wav/train` and so on for one split; the transcripts lie two folders above it.
    """
    root = folder.parent.parent if folder.parent.name == "wav" else folder
    texts: dict[str, str] = {}
    for transcripts in _found(root / "transcript", "*.txt"):
        for _, line in _lines(transcripts):
            name, _, text = line.partition(" ")
            texts[name] = "".join(text.split())
    for path in _found(folder, "**/*.wav"):
        if path.stem not in texts:
            left[UNTOLD] += 1
            continue
        yield {
            "id": path.stem,
            "text": texts[path.stem],
            "lang": "zh",
            "speech": path,
            "speech_lang": "zh",
            "speaker": path.parent.name,
        }


def coco(annotations: Path, left: Left) -> Iterator[Tree]:
    """`annotations/captions_SPLIT.json` (Lin et al., 2014) with its pictures in `SPLIT/`.

    A row is a picture; its first caption is the text and the others are references.
    """
    folder = annotations.parent.parent / annotations.stem.removeprefix("captions_")
    pictures, captions = _annotated(annotations, folder)
    for key, path in sorted(pictures.items()):
        if key not in captions:
            left["pictures without a caption"] += 1
            continue
        first, *others = captions.pop(key)
        row = {"id": str(key), "text": first, "lang": "en", "image": path}
        yield {**row, "references": {"en": others}} if others else row
    left["captions without a picture"] += sum(map(len, captions.values()))


def _annotated(path: Path, folder: Path) -> tuple[dict[Any, Path], dict[Any, list[str]]]:
    """Files in a folder and captions by the ids of pictures, which are all of one type."""
    try:
        tree = json.loads(path.read_bytes())
        images, annotations = tree["images"], tree["annotations"]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{path} holds no captions: {error}") from error
    pictures: dict[Any, Path] = {}
    for where, key, name in _named(images, f"{path}:images", "id", "file_name"):
        if pictures and type(key) is not type(next(iter(pictures))):
            raise DataError(f"{where}: id {key!r} is of another type than those before it")
        pictures[key] = confined(name, folder, where)
    captions: dict[Any, list[str]] = {}
    for _, key, text in _named(annotations, f"{path}:annotations", "image_id", "caption"):
        captions.setdefault(key, []).append(" ".join(text.split()))
    return pictures, captions


def _named(entries: Any, where: str, key: str, name: str) -> Iterator[tuple[str, int | str, str]]:
    """Where each entry stands, its id and its string.

    Raises:
        DataError: one has no such things.
    """
    if not isinstance(entries, list):
        raise DataError(f"{where}: expected a list, got {reprlib.repr(entries)}")
    for number, entry in enumerate(entries):
        place = f"{where}[{number}]"
        if not isinstance(entry, dict):
            raise DataError(f"{place}: expected an object, got {reprlib.repr(entry)}")
        found: Any = entry.get(key)
        if type(found) not in (int, str):
            raise DataError(
                f"{place}: {key} must be a number or a string, got {reprlib.repr(found)}"
            )
        if not isinstance(text := entry.get(name), str):
            raise DataError(f"{place}: {name} must be a string, got {reprlib.repr(text)}")
        yield place, found, text


def imagefolder(folder: Path, left: Left) -> Iterator[Tree]:
    """`LABEL/any/name.jpg`, as torchvision's ImageFolder; the text is the label, with spaces.

    Ids are names without their extension, unless that would make two of them equal.
    """
    files, loose = (_found(folder, pattern) for pattern in ("*/**/*", "*"))
    names = [path.relative_to(folder) for path in files if _is_picture(path)]
    left[f"files that are not {', '.join(PICTURES)}"] += len(files) - len(names)
    left["pictures in no folder of a label"] += sum(map(_is_picture, loose))
    stems, taken = Counter(name.with_suffix("") for name in names), set(names)
    for name in names:
        stem, label = name.with_suffix(""), name.parts[0]
        yield {
            "id": str(name if stems[stem] > 1 or stem in taken else stem),
            "image": folder / name,
            "text": " ".join(label.replace("_", " ").split()),
            "label": label,
            "group": label,
        }


LAYOUTS: Mapping[str, Callable[[Path, Left], Iterator[Tree]]] = {
    "aishell": aishell,
    "coco": coco,
    "imagefolder": imagefolder,
    "librispeech": librispeech,
    "ljspeech": ljspeech,
}
"""By name, what reads a folder, or for `coco` a file of captions, and counts what is left out."""


def write_manifest(rows: Iterable[Mapping[str, Any]], out: str | Path) -> int:
    """Write rows, whose files become paths relative to the manifest; how many there are.

    Raises:
        DataError: there is none, or a name or a text is not UTF-8.
        StorageError: the manifest cannot be written.
    """
    out = Path(out)
    make_folder(out.parent)
    count = 0
    with replacing(out) as file:
        for row in rows:
            named = {key: os.path.relpath(row[key], out.parent) for key in MEDIA if key in row}
            line = json.dumps({**row, **named}, ensure_ascii=False) + "\n"
            try:
                file.write(line.encode())
            except UnicodeEncodeError as error:
                place = next((str(row[key]) for key in named), row.get("id"))
                raise DataError(
                    f"{place!r}: its name or its text is not UTF-8, as a manifest has to be"
                ) from error
            count += 1
        if not count:
            raise DataError("there is nothing that is laid out like this")
    return count


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES


def _found(folder: Path, pattern: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, each after its `PATH:LINE`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {cause}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line
