"""Serving against infinity on the same weights, and under loads that nobody can bear.

python -m benchmarks.serving compare --peer peers/infinity/bin/infinity_emb --json OUT
python -m benchmarks.serving overhead cold overload abandoned kill bombs soak --json OUT
python -m benchmarks.serving noisy quota batching
python -m benchmarks.serving drawing --demo runs/demo/model

Servers run on core 0 with one thread, the load comes from a process on core 1. Models have random
weights. The peer has an environment of its own, of benchmarks/requirements-serving.txt.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving import abuse, models
from benchmarks.serving.batching import batching
from benchmarks.serving.comparison import Rounds, compare
from benchmarks.serving.drawing import drawing
from benchmarks.serving.overhead import overhead
from benchmarks.serving.servers import Server

from trimodal.storage import write_json

WORKERS = 2
"""Threads that open pictures; as many as there are cores, up to four."""

Rows = list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every figure; 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="+", choices=("compare", *_figures(Path(), parser)))
    parser.add_argument("--peer", type=Path, help="infinity_emb of the peer's environment")
    parser.add_argument("--demo", type=Path, help="a trained model, in the place of its size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a round (%(default)s)")
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    parser.add_argument("--soak-seconds", type=float, default=1800.0)
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the numbers")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the servers too
    rows: Rows = []
    with tempfile.TemporaryDirectory() as place:
        for name in options.figures:
            print(f"{name}, load average {os.getloadavg()[0]:.1f}", flush=True)
            if name == "compare":
                rounds = Rounds(options.rounds, options.seconds)
                towers = models.towers(Path(place) / "towers")
                found = compare(towers, options.peer, Path(place) / "peer", rounds)
            else:
                found = [_figures(Path(place), options)[name]()]
                _tell(found[0])
            rows += found
            if options.json is not None:
                write_json(options.json, {"rows": rows})
    return 0 if all(row["pass"] for row in rows) else 1


def _tell(row: Mapping[str, Any]) -> None:
    verdict = "" if row["pass"] else "  MISSED"
    print(f"  {row['name']}{verdict}", flush=True)
    for key, value in row.items():
        if key not in ("name", "pass"):
            print(f"    {key}: {value}", flush=True)


def _figures(place: Path, options: Any) -> dict[str, Callable[[], dict[str, Any]]]:
    def demo() -> Path:
        return options.demo or models.demo(place / "demo")

    def towers() -> Path:
        return models.towers(place / "towers")

    def on(folder: Path, measure: Callable[[Server], dict[str, Any]]) -> dict[str, Any]:
        with abuse.running(folder) as server:
            return measure(server)

    return {
        "overhead": lambda: overhead(towers(), options.rounds),
        "cold": lambda: abuse.cold_start(demo(), 3),
        "overload": lambda: on(
            towers(), lambda server: abuse.overload(server, options.overload_seconds, 8)
        ),
        "abandoned": lambda: on(towers(), lambda server: abuse.abandoned(server, options.rounds)),
        "kill": lambda: abuse.killed(demo(), 3),
        "bombs": lambda: on(towers(), lambda server: abuse.bombs(server, 256, WORKERS)),
        "noisy": lambda: abuse.noisy(towers(), place / "keys.json", 60, quota=False),
        "quota": lambda: abuse.noisy(towers(), place / "quotas.json", 60, quota=True),
        "batching": lambda: batching(
            models.writer(place / "writer"), Rounds(options.rounds, options.seconds)
        ),
        "drawing": lambda: drawing(demo(), place / "drawing.json", options.seconds),
        "soak": lambda: on(towers(), lambda server: abuse.soak(server, options.soak_seconds)),
    }


if __name__ == "__main__":
    sys.exit(main())
