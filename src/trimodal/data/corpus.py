"""Corpora that are computed: a recipe says what sample number i is, `build` writes all of them.

build(Digits(seed=0), "data/digits")
"""

import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import soundfile
from PIL import Image

from trimodal.data.espeak import SAMPLE_RATE, Utterance, engine
from trimodal.errors import PathError, StorageError
from trimodal.progress import Progress
from trimodal.workers import Processes

SPLITS = ("train", "val", "test")
RECIPE_FILE = "build.json"
COMMAND = "trimodal data build"
MEDIA = ("image", "speech")
CHUNK = 32


@dataclass(frozen=True)
class Item:
    """A row to be: its text and keys, and what its media are made of."""

    fields: dict[str, Any]
    """Of the manifest, `id` first; the paths of the media are added."""
    image: str
    """Name of the picture, without a suffix."""
    pixels: np.ndarray | None
    """(H, W) or (H, W, 3) uint8; None where another item writes the same picture."""
    utterance: Utterance | None = None
    """None leaves the row without speech."""
    question: Utterance | None = None
    """The `question` among the fields, spoken."""


_Task = tuple[Path, str, list[Item]]


class Recipe(Protocol):
    """A corpus whose every sample is a pure function of the recipe, the split and the index.

    A recipe is a frozen dataclass of plain values, which are kept beside the corpus.
    """

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def size(self, split: str) -> int:
        """Number of rows of a split."""
        ...

    def item(self, split: str, index: int) -> Item:
        """Row `index` of a split."""
        ...

    def prompts(self) -> dict[str, dict[str, list[str]]]:
        """By label and language, the texts that name the label, the bare name first."""
        ...

    def readme(self) -> str:
        """What the corpus is, how it was split, and its licences, as Markdown."""
        ...


def build(
    recipe: Recipe, folder: str | Path, *, overwrite: bool = False, workers: int = 1
) -> dict[str, int]:
    """Write the manifests of a corpus with its media, prompts and README.

    The manifests come last, `test.jsonl` the very last: where it is, everything is. The same
    recipe writes the same bytes with any number of workers.

    Args:
        recipe: what to write.
        folder: where; it must be absent, empty or a former build, which is replaced.
        overwrite: also write into a folder with other files; those that are not in the way stay.
        workers: processes; more than one needs a main module that can be imported.

    Returns:
        The number of rows of each split.

    Raises:
        DataError: a package that the recipe needs is not installed.
        PathError: the folder holds something else.
        StorageError: it cannot be written.
    """
    folder = Path(folder)
    try:
        _prepare(folder, recipe, overwrite)
        rows = _media(recipe, folder, workers)
        prompts = json.dumps(recipe.prompts(), ensure_ascii=False, indent=1) + "\n"
        (folder / "prompts.json").write_text(prompts, encoding="utf-8")
        (folder / "README.md").write_text(recipe.readme(), encoding="utf-8")
        for split in SPLITS:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows[split])
            (folder / f".{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        for split in SPLITS:
            os.replace(folder / f".{split}.jsonl", folder / f"{split}.jsonl")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return {split: len(rows[split]) for split in SPLITS}


def _prepare(folder: Path, recipe: Recipe, overwrite: bool) -> None:
    former = _is_build(folder)
    if folder.is_dir() and any(folder.iterdir()) and not former and not overwrite:
        raise PathError(
            f"{folder} is not empty and no former build; name another folder or pass --overwrite"
        )
    for split in SPLITS:
        (folder / f"{split}.jsonl").unlink(missing_ok=True)
    for medium in MEDIA:
        if former and (folder / medium).is_dir():
            shutil.rmtree(folder / medium)
        (folder / medium).mkdir(parents=True, exist_ok=True)
    tree = {"built_by": f"{COMMAND} {recipe.name}", **dataclasses.asdict(recipe)}
    (folder / RECIPE_FILE).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def _is_build(folder: Path) -> bool:
    """Whether the media in a folder are ours, so that they may be removed."""
    try:
        tree = json.loads((folder / RECIPE_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and str(tree.get("built_by")).startswith(COMMAND)


def _media(recipe: Recipe, folder: Path, workers: int) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    sizes = {split: recipe.size(split) for split in SPLITS}
    tasks = (
        (folder, split, [recipe.item(split, i) for i in range(start, min(start + CHUNK, size))])
        for split, size in sizes.items()
        for start in range(0, size, CHUNK)
    )
    with Progress(sum(sizes.values()), "built", shown=True) as bar:
        for split, chunk in Processes(workers).map(_writer, tasks):
            rows[split] += chunk
            bar.advance(len(chunk))
    return rows


def _writer() -> Callable[[_Task], tuple[str, list[dict[str, Any]]]]:
    return _write


def _write(task: _Task) -> tuple[str, list[dict[str, Any]]]:
    folder, split, items = task
    rows = []
    for item in items:
        image = f"image/{item.image}.png"
        row = {**item.fields, "image": image}
        if item.pixels is not None:
            _write_image(item.pixels, folder / image)
        if item.utterance is not None:
            speech = f"speech/{item.fields['id']}.flac"
            _write_speech(engine().say(item.utterance), folder / speech)
            row |= {
                "speech": speech,
                "speaker": item.utterance.voice.name,
                "speech_lang": item.utterance.lang,
                "transcript": item.utterance.text,
            }
        if item.question is not None:
            asked = f"speech/{item.fields['id']}-question.flac"
            _write_speech(engine().say(item.question), folder / asked)
            row["question_speech"] = asked
        rows.append(row)
    return split, rows


def _write_image(pixels: np.ndarray, path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


def _write_speech(samples: np.ndarray, path: Path) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    path.write_bytes(buffer.getvalue())
