"""Codes of pictures and speech kept in a manifest, so that training does not compute them.

tokenize_manifest("corpus/train.jsonl", "codes/train.jsonl", processor)
"""

import json
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from trimodal.batch import Medium, Modality, Target
from trimodal.data.manifest import MEDIA, Row, moved, read_manifest, read_trees
from trimodal.errors import ConfigError, DataError, StorageError
from trimodal.processors import TrimodalProcessor
from trimodal.processors.codes import CodeProcessor
from trimodal.storage import Source

KEYS = {Modality.VISION: "image_codes", Modality.SPEECH: "speech_codes"}


def tokenize_manifest(
    source: str | Path, out: str | Path, processor: TrimodalProcessor, *, progress: bool = False
) -> int:
    """Write the rows of a manifest anew, with the codes of their pictures and speech.

    Args:
        source: the manifest.
        out: the new one; relative paths in it are relative to its own folder.
        processor: with the tokenizers.
        progress: say on stderr how far it is.

    Returns:
        The number of rows.

    Raises:
        DataError: `FILE:LINE: cause`, a row or a medium cannot be used.
        StorageError: `out` cannot be written.
        ConfigError: the processor has no tokenizers.
    """
    if processor.codes is None:
        raise ConfigError("data.tokenizers: names no folder of tokenizers")
    out = Path(out)
    rows = read_manifest(source)
    trees = read_trees(source)
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            kept: dict[Source, dict[str, Any]] = {}
            pairs = zip(rows, trees, strict=True)
            for row, tree in tqdm(pairs, total=len(rows), unit="row", disable=not progress):
                written = _tree(row, tree, out.parent, processor, kept)
                file.write(json.dumps(written, ensure_ascii=False) + "\n")
        partial.replace(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror or error}") from error
    return len(rows)


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


def _tree(
    row: Row,
    tree: dict[str, Any],
    folder: Path,
    processor: TrimodalProcessor,
    kept: dict[Source, dict[str, Any]],
) -> dict[str, Any]:
    """A row with codes; `kept` has those of each file, which several rows may name."""
    for key in MEDIA:
        if (source := getattr(row, key)) is not None:
            tree[key] = moved(source, tree[key], folder)
    files = {Modality.VISION: row.image, Modality.SPEECH: row.speech}
    for modality, path in files.items():
        if path is None:
            continue
        if path not in kept:
            try:
                kept[path] = _stored(processor.medium(modality, path), processor.codes)
            except DataError as error:
                raise DataError(f"{row.where}: {error}") from error
        tree[KEYS[modality]] = kept[path]
    return tree


def _stored(medium: Medium, codes: CodeProcessor | None) -> dict[str, Any]:
    assert codes is not None  # noqa: S101 - `tokenize_manifest` checks it
    target = codes.target(medium, ())
    start = codes.vocabulary.range_of(medium.modality).start
    return {
        "tokenizer": codes.fingerprint(medium.modality),
        "grid": list(target.grid),
        "ids": (target.ids - start).tolist(),
    }
