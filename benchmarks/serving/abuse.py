"""What a server does under loads that it cannot bear, and when its process of the model dies.

row = overload(server, seconds=60)
"""

import contextlib
import io
import json
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from benchmarks.serving.comparison import body, mixed, pictures, short
from benchmarks.serving.servers import Server, data_url, ours, quantile
from PIL import Image

from trimodal_serving.keys import KeyFile, Limits

GIB = 1 << 30
Row = dict[str, Any]


def cold_start(folder: Path, rounds: int) -> Row:
    """Seconds from the command to readiness."""
    found = []
    for _ in range(rounds):
        with ours(folder) as server:
            found.append(server.wait())
    return row("cold start to ready, s", statistics.median(found), 12.0, rounds=found)


def overload(server: Server, seconds: float, texts: int) -> Row:
    """Ten times what the server can do, in requests of several texts each."""
    given = [json.loads(one)["input"] for one in short()]
    bodies = [body((given + given)[i : i + texts]) for i in range(len(given))]
    server.load(bodies, 3, clients=32)
    peak = server.load(bodies, 30, clients=32).rate
    idle = server.load(bodies, 3).quantile(0.5)
    found = server.load(bodies, seconds, rate=10 * peak, probe="/livez", recovers=2 * idle)
    goodput = found.rate / peak
    rejected, live = found.quantile(0.99, 429), quantile([x for _, x, _ in found.probe], 0.99)
    statuses = Counter(status for *_, status in found.rows)
    passes = goodput >= 0.9 and rejected < 0.05 and live < 0.1 and found.recovered <= 5
    return {
        "name": f"10 x overload for {seconds:g} s, {texts} texts a request",
        "peak": peak,
        "goodput": goodput,
        "rejected_p99_ms": 1e3 * rejected,
        "livez_p99_ms": 1e3 * live,
        "recovered_s": found.recovered,
        "admitted_p99_s": found.quantile(0.99),
        "statuses": dict(statuses),
        "pass": passes and statuses.keys() <= {200, 429},
    }


def abandoned(server: Server, rounds: int) -> Row:
    """A probe behind 20 requests of 32 texts whose clients left after 0.1 s."""
    given = [json.loads(one)["input"] for one in short()]
    items, probe = body((given * 2)[:32]), short()[0]
    server.load([items], 2)
    batch = server.load([items], 5).quantile(0.5)
    idle = server.load([probe], 2).quantile(0.5)
    waits = []
    for _ in range(rounds):
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                client = stack.enter_context(httpx.Client(timeout=120))
                thread = threading.Thread(target=_left, args=(client, server, items))
                thread.start()
                stack.callback(thread.join)
            time.sleep(0.3)
            start = time.perf_counter()
            answer = httpx.post(server.url + server.path, content=probe, headers=JSON, timeout=120)
            waits.append(time.perf_counter() - start)
            answer.raise_for_status()
        time.sleep(0.5)
    wait = statistics.median(waits)
    told = {"batch_of_32_s": batch, "idle_s": idle, "rounds": waits}
    return row("a probe after 640 abandoned items, s", wait, 1.2 * batch + idle, **told)


JSON = {"content-type": "application/json"}


def _left(client: httpx.Client, server: Server, items: str) -> None:
    with contextlib.suppress(httpx.TimeoutException):
        client.post(server.url + server.path, content=items, headers=JSON, timeout=0.1)


def killed(folder: Path, rounds: int) -> Row:
    """The process of the model gets SIGKILL under load."""
    seconds, statuses, kept = [], Counter[int](), True
    with ours(folder) as server:
        server.wait()
        for _ in range(rounds):
            load = server.begin(mixed(), 8, clients=8, probe="/livez")
            time.sleep(3)
            worker = server.tree()[-1]
            worker.send_signal(signal.SIGKILL)
            start = time.perf_counter()
            while server.is_ready():  # until it is noticed
                time.sleep(0.005)
            while not server.is_ready():
                time.sleep(0.02)
            seconds.append(time.perf_counter() - start)
            found = load()
            statuses.update(status for *_, status in found.rows)
            kept &= {status for *_, status in found.probe} == {200}
            time.sleep(6)
        retries = _retry_after(server)
    told = {"statuses": dict(statuses), "livez_always_200": kept, "retry_after": retries}
    found = row("kill -9 of the process of the model, s to ready", max(seconds), 5.0, **told)
    found["rounds"] = seconds
    found["pass"] &= kept and statuses.keys() <= {200, 503} and retries is not None
    return found


def _retry_after(server: Server) -> str | None:
    """What a request that is being computed is told when its process dies."""
    given = [json.loads(one)["input"] for one in mixed()] * 8
    answers: list[httpx.Response] = []

    def post() -> None:
        content = body(given)
        answer = httpx.post(server.url + server.path, content=content, headers=JSON, timeout=120)
        answers.append(answer)

    thread = threading.Thread(target=post)
    worker = server.tree()[-1]
    worker.send_signal(signal.SIGSTOP)  # however fast it is, it has not answered yet
    thread.start()
    time.sleep(0.5)
    worker.send_signal(signal.SIGKILL)
    thread.join()
    return answers[0].headers.get("retry-after") if answers[0].status_code == 503 else None


def bombs(server: Server, count: int, workers: int) -> Row:
    """Pictures that are small files and large in memory, all at once."""
    kinds = [_bomb(6300), _bomb(12_000)]
    base = server.memory()
    peak, stop = [base], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak.append(server.memory())
            time.sleep(0.05)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        found = server.load(kinds, 1.0, clients=count)
    finally:
        stop.set()
        watching.join()
    statuses = dict(Counter(status for *_, status in found.rows))
    vector = server.vectors(["a word"])
    most = base + (workers + 1) * GIB
    told = {"base_gib": base / GIB, "statuses": statuses, "answers_after": len(vector) == 1}
    made = row(f"{count} parallel bombs, GiB", max(peak) / GIB, most / GIB, **told)
    made["pass"] &= not any(status >= 500 and status != 503 for status in statuses)
    return made


def _bomb(side: int) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).convert("RGB").save(stream, "PNG")
    return body([data_url(stream.getvalue(), "png")], "image")


def noisy(folder: Path, keys: Path, seconds: float, quota: bool) -> Row:
    """A tenant with short texts twice a second, beside one that sends as much, then 100 times."""
    limits = Limits(requests=240 if quota else None, in_flight=4096)
    secrets = {
        tenant: KeyFile(keys).add(tenant=tenant, scopes=("embed", "metrics"), limits=limit)[1]
        for tenant, limit in (("quiet", Limits()), ("noisy", limits))
    }
    p99: dict[int, float] = {}
    statuses: dict[str, int] = {}
    with ours(folder, "--keys", str(keys)) as server:
        server.headers = _bearer(secrets["quiet"])
        server.wait()
        server.load(short(), 3)
        for times in (1, 100):
            headers = _bearer(secrets["noisy"])
            load = server.begin(short(), seconds + 2, rate=2.0 * times, headers=headers)
            time.sleep(1.5)
            p99[times] = server.load(short(), seconds, rate=2.0).quantile(0.99)
            statuses = {str(k): v for k, v in Counter(x for *_, x in load().rows).items()}
    told = {"beside_one_ms": 1e3 * p99[1], "noisy_statuses": statuses}
    name = f"p99 beside a tenant at 100 x {'over its quota' if quota else 'without quotas'}, ms"
    return row(name, 1e3 * p99[100], 1.2e3 * p99[1], **told)


def _bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def soak(server: Server, seconds: float) -> Row:
    """Texts and pictures, half of which are given up; memory by requests."""
    bodies = [one for pair in zip(mixed(), pictures(), strict=True) for one in pair]
    server.load(bodies, 20, clients=8, aborted=0.5)
    counts, sizes, total = [0], [server.memory()], 0
    for _ in range(max(2, round(seconds / 30))):
        total += len(server.load(bodies, 30, clients=8, aborted=0.5).rows)
        counts.append(total)
        sizes.append(server.memory())
    slope = float(np.polyfit(np.array(counts) / 1000, np.array(sizes) / 1e6, 1)[0])
    told = {"requests": total, "seconds": seconds, "memory_mb": [size / 1e6 for size in sizes]}
    return row("soak, MB in 1,000 requests", slope, 1.0, **told)


def row(name: str, value: float, most: float, **told: Any) -> Row:
    """A figure that is to be no larger than some."""
    return {"name": name, "value": value, "gate": most, "pass": value <= most, **told}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server that is ready."""
    with ours(folder) as server:
        server.wait()
        yield server
