"""Manifests of corpora as they are published, found by how their folders are laid out.

rows = LAYOUTS["librispeech"](Path("LibriSpeech/train-clean-100"))
write_manifest(rows, "corpus/train.jsonl")
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trimodal.data.row import MEDIA
from trimodal.errors import DataError
from trimodal.storage import make_folder, replacing

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
Tree = dict[str, Any]


def ljspeech(folder: Path) -> Iterator[Tree]:
    """`metadata.csv` of `ID|as written|as read` and `wavs/ID.wav` (Ito and Johnson, 2017)."""
    for number, line in enumerate(_lines(folder / "metadata.csv"), start=1):
        name, *texts = line.split("|")
        if not texts:
            raise DataError(f"{folder / 'metadata.csv'}:{number}: expected ID|text")
        yield {
            "id": name,
            "text": texts[-1],
            "lang": "en",
            "speech": folder / "wavs" / f"{name}.wav",
            "speech_lang": "en",
            "speaker": "LJ",
        }


def librispeech(folder: Path) -> Iterator[Tree]:
    """`SPEAKER/CHAPTER/*.trans.txt` beside FLAC (Panayotov et al., 2015); texts in lower case."""
    for transcripts in _found(folder, "*/*/*.trans.txt"):
        for line in _lines(transcripts):
            name, _, text = line.partition(" ")
            yield {
                "id": name,
                "text": text.lower(),
                "lang": "en",
                "speech": transcripts.parent / f"{name}.flac",
                "speech_lang": "en",
                "speaker": name.partition("-")[0],
            }


def aishell(folder: Path) -> Iterator[Tree]:
    """`transcript/*.txt` and `wav/SPLIT/SPEAKER/ID.wav` (Bu et al., 2017), texts without spaces.

    Name `wav/train` and so on for one split; the transcripts lie two folders above it.
    """
    root = folder.parent.parent if folder.parent.name == "wav" else folder
    texts: dict[str, str] = {}
    for transcripts in _found(root / "transcript", "*.txt"):
        for line in _lines(transcripts):
            name, _, text = line.partition(" ")
            texts[name] = "".join(text.split())
    for path in _found(folder, "**/*.wav"):
        if path.stem in texts:
            yield {
                "id": path.stem,
                "text": texts[path.stem],
                "lang": "zh",
                "speech": path,
                "speech_lang": "zh",
                "speaker": path.parent.name,
            }


def coco(annotations: Path) -> Iterator[Tree]:
    """`annotations/captions_SPLIT.json` (Lin et al., 2014) with its pictures in `SPLIT/`.

    A row is a picture; its first caption is the text and the others are references.
    """
    try:
        tree = json.loads(annotations.read_bytes())
        pictures = {image["id"]: image["file_name"] for image in tree["images"]}
        captions: dict[int, list[str]] = {}
        for one in tree["annotations"]:
            captions.setdefault(one["image_id"], []).append(" ".join(one["caption"].split()))
    except OSError as error:
        raise DataError(f"{annotations} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{annotations} holds no captions: {error}") from error
    folder = annotations.parent.parent / annotations.stem.removeprefix("captions_")
    for key, name in sorted(pictures.items()):
        if key in captions:
            first, *others = captions[key]
            row = {"id": str(key), "text": first, "lang": "en", "image": folder / name}
            yield {**row, "references": {"en": others}} if others else row


def imagefolder(folder: Path) -> Iterator[Tree]:
    """`LABEL/any/name.jpg`, as torchvision's ImageFolder; the text is the label, with spaces."""
    for path in _found(folder, "*/**/*"):
        if path.suffix.lower() in PICTURES:
            name = path.relative_to(folder)
            label = name.parts[0]
            text = " ".join(label.replace("_", " ").split())
            yield {
                "id": str(name.with_suffix("")),
                "image": path,
                "text": text,
                "label": label,
                "group": label,
            }


LAYOUTS: Mapping[str, Callable[[Path], Iterator[Tree]]] = {
    "aishell": aishell,
    "coco": coco,
    "imagefolder": imagefolder,
    "librispeech": librispeech,
    "ljspeech": ljspeech,
}
"""By name, what reads a folder, or for `coco` the file of captions."""


def write_manifest(rows: Iterable[Mapping[str, Any]], out: str | Path) -> int:
    """Write rows, whose files become paths relative to the manifest; how many there are.

    Raises:
        DataError: there is none.
        StorageError: the manifest cannot be written.
    """
    out = Path(out)
    make_folder(out.parent)
    count = 0
    with replacing(out) as file:
        for row in rows:
            named = {key: os.path.relpath(row[key], out.parent) for key in MEDIA if key in row}
            file.write((json.dumps({**row, **named}, ensure_ascii=False) + "\n").encode())
            count += 1
        if not count:
            raise DataError("there is nothing that is laid out like this")
    return count


def _found(folder: Path, pattern: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {cause}") from error
    return [line for line in text.split("\n") if line.strip()]
