"""One manifest as three, none of which has a speaker or a file of another.

sizes = split_manifest("corpus/all.jsonl", "corpus", {"val": 0.05, "test": 0.05})
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from trimodal.data.manifest import moved, read_whole
from trimodal.data.row import MEDIA, Row
from trimodal.errors import ConfigError, PathError
from trimodal.storage import is_file, make_folder, resolved, under, write_whole
from trimodal.streams import digest

APART = ("speaker", "group", "label")
"""Keys whose values may be kept within one split."""


def split_manifest(
    manifest: str | Path,
    folder: str | Path,
    shares: Mapping[str, float],
    apart: Sequence[str] = ("speaker",),
    seed: int = 0,
) -> dict[str, int]:
    """Write `train.jsonl` and a manifest for each of `shares`; the number of rows of each.

    Rows that share a speaker, a file, or a value of another key of `apart` stay together, and so do
    those that are joined through others. What is together goes where there is still room, in an
    order that depends on the seed and the ids alone.

    Raises:
        DataError: `FILE:LINE: cause`, a row cannot be used.
        ConfigError: a share or key that cannot be, or what is together leaves a split empty.
        PathError: a manifest is there already.
        StorageError: one cannot be written.
    """
    _check(shares, apart)
    whole = read_whole(manifest, trees=True)
    rows, trees = whole.rows, whole.trees
    chosen = _assign(rows, _components(rows, apart), shares, seed)
    for name in shares:
        if name not in chosen:
            raise ConfigError(
                f"no rows are left for {name}: those that share {', '.join(apart)} or a file are "
                "together more than its share"
            )
    places = {name: under(folder, f"{name}.jsonl") for name in ("train", *shares)}
    for path in places.values():
        if is_file(path):
            raise PathError(f"{path} is there already")
    make_folder(folder)
    sizes = {}
    for name, path in places.items():
        kept = [moved(rows[i], trees[i], folder) for i in sorted(chosen.get(name, []))]
        lines = [json.dumps(tree, ensure_ascii=False) + "\n" for tree in kept]
        write_whole(path, "".join(lines).encode())
        sizes[name] = len(lines)
    return sizes


def _check(shares: Mapping[str, float], apart: Sequence[str]) -> None:
    for name, share in shares.items():
        if not 0 < share < 1:
            raise ConfigError(f"the share of {name} must be in (0, 1), got {share:g}")
    if sum(shares.values()) >= 1:
        raise ConfigError(f"shares of {sum(shares.values()):g} leave nothing to train on")
    for key in apart:
        if key not in APART:
            raise ConfigError(f"{key!r} is not one of {', '.join(APART)}")


def _components(rows: Sequence[Row], apart: Sequence[str]) -> list[list[int]]:
    """Rows that must be in one split, by union of what they share."""
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[object, int] = {}
    for i, row in enumerate(rows):
        shared: list[object] = [(key, x) for key in apart if (x := getattr(row, key)) is not None]
        shared += [resolved(x) for key in MEDIA if (x := getattr(row, key)) is not None]
        for value in shared:
            parent[root(i)] = root(first.setdefault(value, i))
    found: dict[int, list[int]] = {}
    for i in range(len(rows)):
        found.setdefault(root(i), []).append(i)
    return [*found.values()]


def _assign(
    rows: Sequence[Row], components: Sequence[list[int]], shares: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    room = {name: share * len(rows) for name, share in shares.items()}
    chosen: dict[str, list[int]] = {}
    for together in sorted(components, key=lambda c: digest("split", seed, rows[c[0]].id)):
        fits = [name for name in shares if len(together) <= room[name]]
        name = fits[0] if fits else "train"
        chosen.setdefault(name, []).extend(together)
        if fits:
            room[name] -= len(together)
    return chosen
