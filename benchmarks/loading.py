"""Samples a second of shards read at random by one loader process, against webdataset on the same.

python benchmarks/loading.py MANIFEST [MANIFEST ...] --samples 10000 --rounds 5 --json OUT

All ways read the same shards, decode every picture to pixels and every utterance to samples, and
send batches of 32 to the process that counts. Ours reads by range in an order over all samples,
compares each medium with its hash and decodes as training does, under its limits. webdataset
shuffles shards and a buffer of 1,000 samples and decodes with Pillow and soundfile; once it sends
lists, as its own batches are, and once media laid end to end, as ours. Before anything is timed,
each way has to deliver every sample once, and the same numbers for it. The ways take turns, in
another order each round; the ratio is that of medians, to the faster way of webdataset.
"""

import argparse
import functools
import hashlib
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
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trimodal.batch import end_to_end
from trimodal.config import SpeechInputConfig, VisionInputConfig
from trimodal.data import Row, read_manifest, read_manifests
from trimodal.data.layouts import write_manifest
from trimodal.data.shards import Cuts, import_manifest
from trimodal.processors import SpeechProcessor, VisionProcessor
from trimodal.storage import ShardFile, write_json
from trimodal.streams import permutation

BATCH = 32
BUFFER = 1000
"""Samples that webdataset shuffles."""
Batch = dict[str, Any]
"""Ids, texts, pictures and waveforms, these two as lists or end to end with their sizes."""


def laid(
    ids: list[str],
    texts: list[str],
    media: Sequence[tuple[Tensor, Tensor]],
    join: Callable[[Sequence[Tensor]], Tensor],
) -> Batch:
    """Media of any sizes as two tensors."""
    pictures, waveforms = zip(*media, strict=True)
    return {
        "ids": ids,
        "texts": texts,
        "pictures": join([picture.reshape(-1) for picture in pictures]),
        "shapes": [tuple(picture.shape) for picture in pictures],
        "waveforms": join(waveforms),
        "lengths": [len(waveform) for waveform in waveforms],
    }


def as_lists(ids: list[str], texts: list[str], media: Sequence[tuple[Tensor, Tensor]]) -> Batch:
    """Media of any sizes as tensors of their own."""
    pictures, waveforms = zip(*media, strict=True)
    return {"ids": ids, "texts": texts, "pictures": list(pictures), "waveforms": list(waveforms)}


class Shuffled(Dataset[Batch]):
    """Batches of rows in an order over all of them, read as training reads them."""

    def __init__(self, rows: Sequence[Row], seed: int) -> None:
        self.rows = rows
        self.order = permutation(len(rows), seed).tolist()
        self.vision = VisionProcessor(VisionInputConfig())
        self.speech = SpeechProcessor(SpeechInputConfig(sample_rate=_rate(rows[0])))

    def __len__(self) -> int:
        return -(-len(self.rows) // BATCH)

    def __getitem__(self, index: int) -> Batch:
        rows = [self.rows[i] for i in self.order[index * BATCH : (index + 1) * BATCH]]
        texts = [next(iter(row.texts.values())) for row in rows]
        media = [self._media(row) for row in rows]
        return laid([row.id for row in rows], texts, media, end_to_end)

    def _media(self, row: Row) -> tuple[Tensor, Tensor]:
        if row.image is None or row.speech is None:
            raise ValueError(f"{row.where} lacks a modality")
        return self.vision.decode(row.image), self.speech.decode(row.speech)


def _rate(row: Row) -> int:
    """That of the recordings, so that nothing is resampled; the gate fails if they differ."""
    if not isinstance(row.speech, ShardFile):
        raise TypeError(f"{row.where} is not of a folder of shards")
    return soundfile.info(io.BytesIO(row.speech.read())).samplerate


def ours(folder: Path, seed: int) -> Iterator[Batch]:
    """Shards by range."""
    rows = Shuffled(read_manifest(folder), seed)
    yield from DataLoader(rows, batch_size=None, num_workers=1, prefetch_factor=4)


def webdataset(
    folder: Path, seed: int, collate: Callable[..., Batch] = as_lists
) -> Iterator[Batch]:
    """The same shards through webdataset."""
    from webdataset.compat import WebDataset

    decoders = {"png": _picture, "jpg": _picture, "flac": _waveform, "wav": _waveform}

    def decode(sample: dict[str, Any]) -> dict[str, Any]:
        known = {**decoders, "json": json.loads}
        return {k: known[k](v) if k in known else v for k, v in sample.items()}

    def batch(samples: list[tuple[Any, ...]]) -> Batch:
        trees = [tree for *_, tree in samples]
        media = [(picture, waveform) for picture, waveform, _ in samples]
        return collate([tree["id"] for tree in trees], [tree["text"] for tree in trees], media)

    urls = sorted(str(path) for path in folder.glob("*.tar"))
    dataset: Any = (
        WebDataset(urls, shardshuffle=len(urls), seed=seed)
        .shuffle(BUFFER)
        .map(decode)
        .to_tuple("png;jpg", "flac;wav", "json")
        .batched(BATCH, collation_fn=batch)
    )
    yield from DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4)


def webdataset_end_to_end(folder: Path, seed: int) -> Iterator[Batch]:
    """Through webdataset, and sent as ours."""
    yield from webdataset(folder, seed, functools.partial(laid, join=_cat))


def _cat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts))


WAYS = (ours, webdataset, webdataset_end_to_end)


def _picture(content: bytes) -> Tensor:
    """(H, W, 3) uint8."""
    with Image.open(io.BytesIO(content)) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


def _waveform(content: bytes) -> Tensor:
    """(S,) float32."""
    samples, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    return torch.from_numpy(samples)


def fingerprints(batches: Iterator[Batch]) -> dict[str, str]:
    """What each sample was, by its id; a picture as (H, W, 3), however it was delivered."""
    found: dict[str, str] = {}
    for batch in batches:
        pictures, waveforms = batch["pictures"], batch["waveforms"]
        if isinstance(pictures, Tensor):
            sizes = [int(np.prod(shape)) for shape in batch["shapes"]]
            parts = zip(pictures.split(sizes), batch["shapes"], strict=True)
            pictures = [part.reshape(shape) for part, shape in parts]
            waveforms = waveforms.split(batch["lengths"])
        for i, name in enumerate(batch["ids"]):
            picture = pictures[i] if pictures[i].shape[-1] == 3 else pictures[i].permute(1, 2, 0)
            total = hashlib.sha256(f"{batch['texts'][i]} {tuple(picture.shape)}".encode())
            total.update(picture.contiguous().numpy().tobytes())
            total.update(waveforms[i].contiguous().numpy().tobytes())
            if name in found:
                raise RuntimeError(f"{name} was delivered twice")
            found[name] = total.hexdigest()
    return found


def check(folder: Path, count: int) -> None:
    """The gate: every way delivers every sample, and the same numbers."""
    expected = fingerprints(ours(folder, 0))
    if len(expected) != count:
        raise RuntimeError(f"ours delivered {len(expected)} of {count} samples")
    for way in WAYS[1:]:
        found = fingerprints(way(folder, 0))
        differ = [k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)]
        if differ:
            raise RuntimeError(
                f"{way.__name__} differs in {len(differ)} samples, first {differ[0]}"
            )


def rate(way: Callable[[Path, int], Iterator[Batch]], folder: Path, seed: int, count: int) -> float:
    """Samples a second, from the first batch on, so that starting a process does not count."""
    batches = way(folder, seed)
    seen = first = len(next(batches)["ids"])
    started = time.perf_counter()
    for batch in batches:
        seen += len(batch["ids"])
    taken = time.perf_counter() - started
    if seen != count:
        raise RuntimeError(f"{way.__name__} delivered {seen} of {count} samples")
    return (seen - first) / taken


def measure(rows: Sequence[Row], rounds: int) -> dict[str, Any]:
    """Import the rows, pass the gate, and take turns."""
    with tempfile.TemporaryDirectory() as place:
        manifest, folder = Path(place) / "all.jsonl", Path(place) / "shards"
        trees = (
            {"id": row.id, "text": next(iter(row.texts.values()))}
            | {"image": Path(str(row.image)).resolve(), "speech": Path(str(row.speech)).resolve()}
            for row in rows
        )
        write_manifest(trees, manifest)
        done = import_manifest(manifest, folder, Cuts(rows=1000))
        check(folder, done.rows)
        rates: dict[str, list[float]] = {way.__name__: [] for way in WAYS}
        for seed in range(rounds):
            turn = seed % len(WAYS)
            for way in (*WAYS[turn:], *WAYS[:turn]):
                rates[way.__name__].append(rate(way, folder, seed, done.rows))
        size = sum(shard.size for shard in done.shards)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    best = max(median for name, median in medians.items() if name != "ours")
    return {
        "samples": done.rows,
        "shards": len(done.shards),
        "bytes": size,
        "rates": rates,
        "medians": medians,
        "ratio": medians["ours"] / best,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="rows with all modalities")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the numbers")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [row for row in read_manifests(options.manifests) if len(row.data_names) == 3]
    found = measure(rows[: options.samples], options.rounds)
    print(
        f"{found['samples']} samples in {found['shards']} shards, {found['bytes'] / 1e6:.0f} MB; "
        "every way delivers the same numbers; samples a second:"
    )
    for name, median in found["medians"].items():
        listed = ", ".join(f"{one:.0f}" for one in found["rates"][name])
        print(f"  {name:22} {median:7.0f}  ({listed})")
    print(f"  {'ratio to the faster':22} {found['ratio']:7.2f}")
    if options.json is not None:
        write_json(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
