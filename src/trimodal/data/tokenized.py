"""Codes of pictures and speech kept in a manifest, so that training does not compute them.

tokenize_manifest("corpus/train.jsonl", "codes/train.jsonl", lambda: processor)
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trimodal.batch import Medium, Modality, Target
from trimodal.data.manifest import moved, read_whole
from trimodal.data.row import Row
from trimodal.errors import ConfigError, DataError
from trimodal.processors import TrimodalProcessor
from trimodal.processors.codes import CodeProcessor
from trimodal.storage import Source, make_folder, parent_of, replacing
from trimodal.workers import Processes, Workers

KEYS = {Modality.VISION: "image_codes", Modality.SPEECH: "speech_codes"}
ROWS = 128
"""Of a part that one worker does."""


def tokenize_manifest(
    source: str | Path,
    out: str | Path,
    make: Callable[[], TrimodalProcessor],
    workers: Workers | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> int:
    """Write the rows of a manifest anew, with the codes of their pictures and speech.

    Args:
        source: the manifest.
        out: the new one; relative paths in it are relative to its own folder.
        make: the processor with the tokenizers, once in each worker.
        workers: each does `ROWS` rows at a time; this process if none are given.
        progress: called with the number of rows of each part that is done.

    Returns:
        The number of rows.

    Raises:
        DataError: `FILE:LINE: cause`, a row or a medium cannot be used.
        StorageError: `out` cannot be written.
        ConfigError: the processor has no tokenizers.
    """
    whole = read_whole(source, trees=True)
    folder = parent_of(out)
    make_folder(folder)
    parts = [
        (folder, whole.rows[first : first + ROWS], whole.trees[first : first + ROWS])
        for first in range(0, len(whole.rows), ROWS)
    ]
    with replacing(out) as file:
        for lines in (workers or Processes()).map(partial(_Coding, make), parts):
            file.write("".join(f"{line}\n" for line in lines).encode())
            progress(len(lines))
    return len(whole.rows)


_Part = tuple[str, list[Row], list[dict[str, Any]]]
"""The folder of the new manifest; rows, and how they are written."""


class _Coding:
    """Rows to lines with codes; those of each file are kept, which several rows may name."""

    def __init__(self, make: Callable[[], TrimodalProcessor]) -> None:
        self.processor = make()
        if self.processor.codes is None:
            raise ConfigError("data.tokenizers: names no folder of tokenizers")
        self.codes = self.processor.codes
        self._kept: dict[Source, dict[str, Any]] = {}

    def __call__(self, part: _Part) -> list[str]:
        folder, rows, trees = part
        coded = [self._row(row, tree, folder) for row, tree in zip(rows, trees, strict=True)]
        return [json.dumps(tree, ensure_ascii=False) for tree in coded]

    def _row(self, row: Row, tree: dict[str, Any], folder: str) -> dict[str, Any]:
        coded = moved(row, tree, folder)
        for modality, path in ((Modality.VISION, row.image), (Modality.SPEECH, row.speech)):
            if path is None:
                continue
            if path not in self._kept:
                try:
                    self._kept[path] = self._stored(self.processor.medium(modality, path))
                except DataError as error:
                    raise DataError(f"{row.where}: {error}") from error
            coded[KEYS[modality]] = self._kept[path]
        return coded

    def _stored(self, medium: Medium) -> dict[str, Any]:
        target = self.codes.target(medium, ())
        start = self.codes.vocabulary.range_of(medium.modality).start
        return {
            "tokenizer": self.codes.fingerprint(medium.modality),
            "grid": list(target.grid),
            "ids": (target.ids - start).tolist(),
        }


def stored_target(row: Row, modality: Modality, codes: CodeProcessor) -> Target | None:
    """The codes that a row holds of its picture or speech, if any.

    Raises:
        DataError: `FILE:LINE: cause`, they are another tokenizer's, or no such codes.
    """
    key = KEYS[modality]
    stored = row.metadata.get(key)
    if stored is None:
        return None
    where = f"{row.where}: {key}"
    try:
        name, grid, ids = stored["tokenizer"], tuple(stored["grid"]), stored["ids"]
        local = torch.tensor(ids, dtype=torch.int64)
        rows, columns = (int(side) for side in grid)
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{where} needs tokenizer, grid and ids") from error
    if name != codes.fingerprint(modality):
        raise DataError(f"{where} are of another {modality.name.lower()} tokenizer")
    known = codes.num_codes(modality)
    fits = local.dim() == 1 and len(local) == rows * columns > 0
    if not fits or int(local.min()) < 0 or int(local.max()) >= known:
        raise DataError(f"{where} are not {rows} x {columns} codes below {known}")
    start = codes.vocabulary.range_of(modality).start
    return Target(modality, local + start, (rows, columns), ())
