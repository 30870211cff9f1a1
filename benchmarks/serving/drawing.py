"""How long a tenant waits beside another one for whom pictures are drawn.

row = drawing(folder, keys, seconds=10)
"""

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.serving.comparison import body
from benchmarks.serving.servers import NAME, Found, ours

from trimodal_serving.keys import KeyFile, Limits

PICTURES = {"n": 10, "size": "64x64", "prompt": "seven", "trimodal": {"steps": 4}}
CHAT = {"messages": [{"role": "user", "content": "seven"}], "max_tokens": 4}
WAYS = {
    "embedding": ("/v1/embeddings", body(["a dog"])),
    "chat": ("/v1/chat/completions", json.dumps({"model": NAME, **CHAT})),
}


def drawing(folder: Path, keys: Path, seconds: float) -> dict[str, Any]:
    """Milliseconds of one client, alone and beside another tenant's pictures, ten at a time.

    Last come embeddings of the tenant whose pictures are drawn.
    """
    secrets = [
        KeyFile(keys).add(tenant=tenant, scopes=("embed", "generate"), limits=Limits())[1]
        for tenant in ("draws", "asks")
    ]
    drawer, asker = ({"authorization": f"Bearer {secret}"} for secret in secrets)
    told: dict[str, Any] = {}
    failed = 0
    with ours(folder, "--keys", str(keys)) as server:
        server.headers = asker
        server.wait()

        def ask(way: str, name: str, headers: dict[str, str] = asker) -> None:
            nonlocal failed
            server.path, request = WAYS[way]
            found = server.load([request], seconds, headers=headers)
            told[name] = _told(found)
            failed += found.failed()

        for way in WAYS:
            ask(way, f"{way} alone")
        server.path = "/v1/images/generations"
        pictures = json.dumps({"model": NAME, **PICTURES})
        drawn = server.begin([pictures], 3 * seconds + 5, headers=drawer)
        time.sleep(2)
        for way in WAYS:
            ask(way, f"{way} beside")
        ask("embedding", "own embedding beside", drawer)
        told["pictures"] = len(drawn().rows)
    return {"name": "p50, p95 beside pictures, ms", **told, "failed": failed, "pass": not failed}


def _told(found: Found) -> list[float]:
    return [round(1e3 * found.quantile(q), 1) for q in (0.5, 0.95)]
