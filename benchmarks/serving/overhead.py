"""What a server adds to the forward of the model, for one client.

row = overhead(folder, rounds=5)
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.serving.abuse import Row, row
from benchmarks.serving.comparison import short
from benchmarks.serving.servers import ENVIRONMENT, SERVER_CORE, ours

MOST_MS = 3.0
TURNS = 4
"""Of each round, of a second each: a host that others share is not as fast for longer."""


def overhead(folder: Path, rounds: int) -> Row:
    """The median latency of short texts, less that of the forward on the same core, in turns."""
    texts = [json.loads(one)["input"] for one in short()]
    bare = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving.bare", str(folder), str(SERVER_CORE)],
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert bare.stdin is not None  # noqa: S101 - both were asked for
    assert bare.stdout is not None  # noqa: S101
    served, alone = [], []
    try:
        print(json.dumps(texts), file=bare.stdin, flush=True)
        bare.stdout.readline()
        with ours(folder) as server:
            server.wait()
            server.load(short(), 2)
            for _ in range(TURNS * rounds):
                print(file=bare.stdin, flush=True)
                alone.append(1e3 * statistics.median(json.loads(bare.stdout.readline())))
                served.append(1e3 * server.load(short(), 1).quantile(0.5))
    finally:
        bare.stdin.close()
        bare.wait()
    added = statistics.median(x - y for x, y in zip(served, alone, strict=True))
    return row("over the bare forward, c=1, p50, ms", added, MOST_MS, served=served, alone=alone)
