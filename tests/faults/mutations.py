"""Shards of an import that are damaged in many ways, read strictly and with tolerance.

python tests/faults/mutations.py CONFIG.yaml OUT.json --mutations 500
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from trimodal.batch import Sample
from trimodal.config import SpeechAugmentConfig, VisionAugmentConfig, load_config
from trimodal.data import Row
from trimodal.data.dataset import RowDataset
from trimodal.data.manifest import read_each
from trimodal.data.shards import Cuts, import_manifest
from trimodal.errors import DataError
from trimodal.processors import TrimodalProcessor
from trimodal.training.building import build_processor

Damage = Callable[[bytearray, random.Random], bytearray]


def flip(content: bytearray, rng: random.Random) -> bytearray:
    """One bit."""
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def zero(content: bytearray, rng: random.Random) -> bytearray:
    """2 KiB that a disk lost."""
    start = rng.randrange(len(content))
    end = min(len(content), start + 2048)
    content[start:end] = bytes(end - start)
    return content


def truncate(content: bytearray, rng: random.Random) -> bytearray:
    """The rest that was not copied."""
    return content[: rng.randrange(len(content))]


def reorder(content: bytearray, rng: random.Random) -> bytearray:
    """Two blocks of the tar in each other's place."""
    blocks = [content[i : i + 512] for i in range(0, len(content), 512)]
    a, b = rng.randrange(len(blocks)), rng.randrange(len(blocks))
    blocks[a], blocks[b] = blocks[b], blocks[a]
    return bytearray().join(blocks)


def duplicate(content: bytearray, rng: random.Random) -> bytearray:
    """A block that is there twice, and moves what follows."""
    start = 512 * rng.randrange(len(content) // 512)
    return content[: start + 512] + content[start:]


DAMAGES: tuple[Damage, ...] = (flip, zero, truncate, reorder, duplicate)


class Reader:
    """Reads all samples of a folder of shards."""

    def __init__(self, folder: Path, processor: TrimodalProcessor) -> None:
        self.folder, self.processor = folder, processor
        self.whole = [sample for sample in self.samples(tolerant=False) if sample is not None]

    def samples(self, *, tolerant: bool) -> list[Sample | None]:
        """None where one is left out."""
        (rows,) = read_each([self.folder], tolerant=tolerant)
        dataset = self._dataset(rows)
        found: list[Sample | None] = []
        for index in range(len(rows)):
            try:
                found.append(dataset.sample(index, 0))
            except DataError:
                if not tolerant:
                    raise
                found.append(None)
        return found

    def strict(self) -> str:
        """`harmless`, what was said, or `silent`."""
        try:
            found = self.samples(tolerant=False)
        except DataError as error:
            return str(error)
        same = [self._same(a, b) for a, b in zip(found, self.whole, strict=True)]
        return "harmless" if all(same) else "silent"

    def tolerant(self) -> tuple[int, int, bool]:
        """How many samples are there, how many left out, and whether the former are right."""
        found = self.samples(tolerant=True)
        kept = [(a, b) for a, b in zip(found, self.whole, strict=True) if a is not None]
        right = all(self._same(a, b) for a, b in kept)
        return len(kept), len(found) - len(kept), right

    def _dataset(self, rows: Sequence[Row]) -> RowDataset:
        return RowDataset(rows, self.processor, VisionAugmentConfig(), SpeechAugmentConfig())

    def _same(self, a: Sample | None, b: Sample) -> bool:
        return (
            a is not None
            and a.media.keys() == b.media.keys()
            and all(torch.equal(a.media[m].features, b.media[m].features) for m in b.media)
        )


def main() -> None:
    """Write what came of each mutation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("--mutations", type=int, default=50)
    options = parser.parse_args()
    config = load_config(options.config)
    folder = options.out.parent / "shards"
    done = import_manifest(config.data.train[0], folder, Cuts(rows=4))
    reader = Reader(folder, build_processor(config))
    rng = random.Random(0)  # noqa: S311 - no secret
    found = []
    for number in range(options.mutations):
        damage = DAMAGES[number % len(DAMAGES)]
        path = folder / rng.choice(done.shards).name
        content = path.read_bytes()
        # written in place, as the shard may be open
        path.write_bytes(damage(bytearray(content), rng))
        said = reader.strict()
        seen, skipped, right = reader.tolerant()
        path.write_bytes(content)
        found.append(
            {
                "damage": damage.__name__,
                "harmless": said == "harmless",
                "named": f"{path}: bytes " in said,
                "counted": seen + skipped == done.rows,
                "skipped": skipped,
                "right": right,
            }
        )
    assert reader.strict() == "harmless", "all is as it was"
    options.out.write_text(json.dumps({"mutations": found, "shards": len(done.shards)}))


if __name__ == "__main__":
    main()
