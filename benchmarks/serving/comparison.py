"""Requests a second of this server and of infinity, on the same weights, in turns.

found = compare(folder, Path("peers/infinity/bin/infinity_emb"), work, Rounds(5, 8.0))
"""

import io
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.serving.export import export
from benchmarks.serving.models import SIDE, words
from benchmarks.serving.servers import (
    FLOATS,
    NAME,
    Found,
    Server,
    data_url,
    infinity,
    ours,
)
from PIL import Image

CLIENTS = (1, 8, 32)
LEAST_COSINE = 0.99999
GOALS = {
    "short": {1: 1.2, 8: 1.2, 32: 1.0},
    "mixed": {1: 1.3, 8: 1.35, 32: 2.0},
    "images": {1: 1.2, 8: 1.1, 32: 1.0},
}
"""Requests a second of ours to those of the peer, by number of clients."""
BESIDE_IMAGES = 0.25
"""The 95 % quantile of texts while images saturate, ours to the peer's, at most."""
BODIES = 64


@dataclass(frozen=True)
class Rounds:
    """How long is measured."""

    count: int
    seconds: float


def compare(folder: Path, binary: Path, work: Path, rounds: Rounds) -> list[dict[str, Any]]:
    """Pass the gates, then take turns; a row for each figure."""
    text, clip = export(folder, work)
    loads = {"short": short(), "mixed": mixed(), "images": pictures()}
    rows: list[dict[str, Any]] = []
    with ours(folder) as server:
        server.wait()
        with infinity(binary, text) as peer:
            peer.wait()
            check(server, peer, [json.loads(body)["input"] for body in loads["short"][:16]])
            check(server, peer, [json.loads(body)["input"] for body in loads["mixed"][:16]])
            for name in ("short", "mixed"):
                rows += _cells(name, loads[name], server, peer, rounds)
        with infinity(binary, clip) as peer:
            peer.wait()
            check(server, peer, [json.loads(b)["input"][0] for b in loads["images"][:8]], "image")
            rows += _cells("images", loads["images"], server, peer, rounds)
            rows.append(_beside_images(loads, server, peer, rounds))
    return rows


def short() -> list[str]:
    """Bodies with a text of four, eight or twelve words."""
    draws = random.Random(1)  # noqa: S311
    return [body(words(draws.choice([4, 8, 12]), draws)) for _ in range(BODIES)]


def mixed() -> list[str]:
    """Of three words, and a fifth of them of forty."""
    draws = random.Random(2)  # noqa: S311
    return [body(words(40 if i % 5 == 4 else 3, draws)) for i in range(BODIES)]


def pictures() -> list[str]:
    """JPEG files of soft noise, of the size that both models take."""
    draws = np.random.default_rng(3)
    return [body([data_url(jpeg(draws))], "image") for _ in range(BODIES)]


def jpeg(draws: np.random.Generator, side: int = SIDE) -> bytes:
    """A picture that is none of something."""
    coarse = Image.fromarray(draws.integers(0, 255, (24, 24, 3), dtype=np.uint8))
    stream = io.BytesIO()
    coarse.resize((side, side)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def body(given: Any, modality: str = "text") -> str:
    """A request."""
    return json.dumps({"model": NAME, "input": given, "modality": modality, **FLOATS})


def check(server: Server, peer: Server, inputs: Sequence[str], modality: str = "text") -> None:
    """The gate: both compute the same vectors, and those of inputs differ."""
    one, other = (x.vectors(inputs, modality) for x in (server, peer))
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    apart = np.abs(one @ one.T - np.eye(len(one)))[~np.eye(len(one), dtype=bool)].max()
    print(f"  {modality}: least cosine {cosine.min():.7f}, of two inputs at most {apart:.3f}")
    if cosine.min() < LEAST_COSINE or apart > 0.999:
        raise RuntimeError("the servers do not compute the same model")


def in_turns(measures: Sequence[Callable[[], Found]], rounds: Rounds) -> list[list[Found]]:
    """What each measures, round by round; who is first changes."""
    found: list[list[Found]] = [[] for _ in measures]
    for number in range(rounds.count):
        order = list(range(len(measures)))
        for i in order if number % 2 else reversed(order):
            found[i].append(measures[i]())
            time.sleep(0.2)
    return found


def _cells(
    name: str, bodies: Sequence[str], server: Server, peer: Server, rounds: Rounds
) -> list[dict[str, Any]]:
    rows = []
    for clients in CLIENTS:
        for one in (server, peer):
            one.load(bodies, 1.0, clients=clients)
        both = [
            partial(one.load, bodies, rounds.seconds, clients=clients) for one in (server, peer)
        ]
        pair = in_turns(both, rounds)
        row: dict[str, Any] = {"name": f"{name}, c={clients}", "gate": GOALS[name][clients]}
        for whose, found in zip(("ours", "infinity"), pair, strict=True):
            row[whose] = {
                "rates": [one.rate for one in found],
                "rate": statistics.median(one.rate for one in found),
                "p50_ms": 1e3 * statistics.median(one.quantile(0.5) for one in found),
                "p95_ms": 1e3 * statistics.median(one.quantile(0.95) for one in found),
                "failed": sum(one.failed() for one in found),
            }
        row["ratio"] = row["ours"]["rate"] / row["infinity"]["rate"]
        row["pass"] = row["ratio"] >= row["gate"]
        rows.append(row)
        print(told(row), flush=True)
    return rows


def told(row: dict[str, Any]) -> str:
    """A line."""
    numbers = "   ".join(
        f"{row[who]['rate']:6.1f}/s p50 {row[who]['p50_ms']:6.1f} p95 {row[who]['p95_ms']:6.1f} ms"
        for who in ("ours", "infinity")
    )
    verdict = "" if row["pass"] else "  MISSED"
    return f"  {row['name']:14} {row['ratio']:5.2f} of {row['gate']:4.2f}   {numbers}{verdict}"


def _beside_images(
    loads: dict[str, list[str]], server: Server, peer: Server, rounds: Rounds
) -> dict[str, Any]:
    """One client with short texts while 32 send pictures."""

    def measure(one: Server) -> Found:
        images = one.begin(loads["images"], rounds.seconds + 3, clients=32)
        time.sleep(2)
        found = one.load(loads["short"], rounds.seconds, clients=1)
        images()
        return found

    pair = in_turns([partial(measure, one) for one in (server, peer)], rounds)
    p95 = [[one.quantile(0.95) for one in found] for found in pair]
    medians = [statistics.median(values) for values in p95]
    row = {
        "name": "text p95 beside images",
        "ours": {"p95_ms": [1e3 * x for x in p95[0]]},
        "infinity": {"p95_ms": [1e3 * x for x in p95[1]]},
        "ratio": medians[0] / medians[1],
        "gate": BESIDE_IMAGES,
    }
    row["pass"] = row["ratio"] <= BESIDE_IMAGES
    millis = " and ".join(f"{1e3 * one:.0f} ms" for one in medians)
    print(f"  text p95 beside images: {millis}, {row['ratio']:.2f} of at most {BESIDE_IMAGES}")
    return row
