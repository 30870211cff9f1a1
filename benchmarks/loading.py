"""Samples a second of shards read at random by one loader process, against webdataset on the same.

python benchmarks/loading.py MANIFEST [MANIFEST ...] --samples 10000 --rounds 3

Both decode every picture to pixels and every utterance to samples with the same libraries, and send
batches of 32 to the process that counts. Ours lays a batch end to end, as training does; webdataset
sends lists, as its own batches are.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from trimodal.data import Row, read_manifest, read_manifests
from trimodal.data.layouts import write_manifest
from trimodal.data.shards import Cuts, import_manifest
from trimodal.storage import ShardFile
from trimodal.streams import permutation

BATCH = 32


def picture(content: bytes) -> np.ndarray:
    """(H, W, 3) uint8."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def speech(content: bytes) -> np.ndarray:
    """(S,) float32."""
    samples, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    return samples


class Packed(Dataset[dict[str, Any]]):
    """Batches of rows in any order, decoded and laid end to end."""

    def __init__(self, rows: Sequence[Row], seed: int) -> None:
        self.rows = rows
        self.order = permutation(len(rows), seed).tolist()

    def __len__(self) -> int:
        return -(-len(self.rows) // BATCH)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rows = [self.rows[i] for i in self.order[index * BATCH : (index + 1) * BATCH]]
        pictures = [picture(_read(row.image)).reshape(-1) for row in rows]
        waveforms = [speech(_read(row.speech)) for row in rows]
        return {
            "texts": [next(iter(row.texts.values())) for row in rows],
            "pixels": torch.from_numpy(np.concatenate(pictures)),
            "samples": torch.from_numpy(np.concatenate(waveforms)),
            "count": len(rows),
        }


def _read(source: object) -> bytes:
    if not isinstance(source, ShardFile):
        raise TypeError(f"{source} is not within a shard")
    return source.read()


def ours(folder: Path, seed: int) -> Iterator[int]:
    """How many samples each batch has."""
    loader = DataLoader(
        Packed(read_manifest(folder), seed), batch_size=None, num_workers=1, prefetch_factor=4
    )
    for batch in loader:
        yield batch["count"]


def theirs(folder: Path, seed: int) -> Iterator[int]:
    """The same through webdataset: shards in any order, and a buffer of 1,000 samples."""
    from webdataset.compat import WebDataset

    urls = sorted(str(path) for path in folder.glob("*.tar"))
    decoders = {"png": picture, "jpg": picture, "flac": speech, "json": json.loads}

    def decode(sample: dict[str, Any]) -> dict[str, Any]:
        return {k: decoders[k](v) if k in decoders else v for k, v in sample.items()}

    dataset: Any = (
        WebDataset(urls, shardshuffle=len(urls), seed=seed)
        .shuffle(1000)
        .map(decode)
        .to_tuple("png;jpg", "flac", "json")
        .batched(BATCH, collation_fn=_lists)
    )
    for batch in DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4):
        yield len(batch[2])


def _lists(samples: list[tuple[Any, ...]]) -> list[list[Any]]:
    """Pictures, waveforms and rows, which are of different sizes and cannot be stacked."""
    as_tensors = [
        (torch.from_numpy(pixels.copy()), torch.from_numpy(waveform), row)
        for pixels, waveform, row in samples
    ]
    return [list(column) for column in zip(*as_tensors, strict=True)]


def rate(way: Callable[[Path, int], Iterator[int]], folder: Path, seed: int, count: int) -> float:
    """Samples a second, from the first batch on, so that starting a process does not count."""
    batches = way(folder, seed)
    seen = first = next(batches)
    started = time.perf_counter()
    for size in batches:
        seen += size
    taken = time.perf_counter() - started
    if seen != count:
        raise RuntimeError(f"{way.__name__} delivered {seen} of {count} samples")
    return (seen - first) / taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="rows with all modalities")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    rows = [row for row in read_manifests(options.manifests) if len(row.data_names) == 3]
    rows = rows[: options.samples]
    with tempfile.TemporaryDirectory() as place:
        manifest, folder = Path(place) / "all.jsonl", Path(place) / "shards"
        trees = (
            {"id": row.id, "text": next(iter(row.texts.values()))}
            | {"image": Path(str(row.image)).resolve(), "speech": Path(str(row.speech)).resolve()}
            for row in rows
        )
        write_manifest(trees, manifest)
        done = import_manifest(manifest, folder, Cuts(rows=1000))
        rates: dict[str, list[float]] = {"ours": [], "webdataset": []}
        for seed in range(options.rounds):
            rates["ours"].append(rate(ours, folder, seed, done.rows))
            rates["webdataset"].append(rate(theirs, folder, seed, done.rows))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print(f"{done.rows} samples in {len(done.shards)} shards, samples a second:")
    for name, median in medians.items():
        listed = ", ".join(f"{one:.0f}" for one in rates[name])
        print(f"  {name:12} {median:7.0f}  ({listed})")
    print(f"  ratio        {medians['ours'] / medians['webdataset']:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
