import argparse
import contextlib
import http.client
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from trimodal.cli import guarded
from trimodal_serving.command import COMMAND, welcome

ROOTS = [path for path in sys.path if path.endswith(("/src", "/kernels", "/serving"))]
HEAVY = ("torch", "transformers", "fastapi", "uvicorn", "numpy")


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    options = parser.parse_args(arguments)
    return guarded(lambda: COMMAND.run(options))


@pytest.fixture
def signals() -> Iterator[None]:
    """Put back the handlers that serving replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.168.0.7", "example.org", "localhost.evil.org"],  # noqa: S104
)
def test_other_than_loopback_is_refused(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nowhere", "--host", host) == 64
    assert f"--host {host}: only loopback addresses" in capsys.readouterr().err


def test_other_than_loopback_needs_keys_that_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys.json"
    (tmp_path / "config.json").touch()
    address = ["--host", "0.0.0.0", "--port", "0"]  # noqa: S104
    arguments = [str(tmp_path), *address, "--keys", str(keys)]
    assert run(*arguments) == 64
    keys.write_text('{"keys": []}')
    keys.chmod(0o644)
    assert run(*arguments) == 74
    first, second = capsys.readouterr().err.splitlines()
    assert f"{keys} cannot be read" in first
    assert f"chmod 600 {keys}" in second


def test_the_refusal_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from trimodal.cli import main\n"
        "code = main(['serve', 'nowhere', '--host', '0.0.0.0'])\n"
        f"print(code, [name for name in {HEAVY} if name in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout == "64 []\n"
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--port", "70000"], "--port 70000: must be from 0 to 65535"),
        (["--token-budget", "0"], "must be at least 1"),
        (["--max-body-mb", "0"], "must be at least 1"),
        (["--name", "a'b"], "--name: must be"),
        (["--name", "a", "--name", "b"], "--name: is there 2 times, for 1 models"),
        (["nowhere"], "two models are called nowhere; say --name once for each of them"),
        (["--batch-seconds", "0"], "--batch-seconds and --request-seconds: must be above 0"),
        (["--request-seconds", "nan"], "--request-seconds: must be above 0"),
        (["--replicas", "0"], "--replicas 0: must be from 1 to 64"),
        (["--fetch-from", "a.org", "--fetch-from", "*"], "fetch from *: must be a name"),
    ],
)
def test_other_options_are_refused(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("nowhere", *arguments) == 64
    assert problem in capsys.readouterr().err


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert run("nowhere", "--port", str(port)) == 64
    message = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1 port {port}: it is in use; choose another" in message
    assert message.count("\n") == 1


@pytest.mark.usefixtures("signals")
def test_a_folder_that_is_no_model_ends_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(tmp_path), "--port", "0") == 64
    output = capsys.readouterr()
    assert f"{tmp_path} is not a model folder" in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


def embedded(sock: socket.socket, name: str) -> None:
    """Send a request, whose answer nobody waits for yet."""
    body = json.dumps({"model": name, "input": "red"}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    sock.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


def heard(sock: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(sock)
    response.begin()
    response.read()
    return response


def workers(server: int) -> list[psutil.Process]:
    """The processes of the models, which are children of the one that forks."""
    return [p for p in psutil.Process(server).children(recursive=True) if p.ppid() != server]


def gone_or(act: Callable[[], None]) -> None:
    """Do something to a process, unless it has ended by itself."""
    with contextlib.suppress(psutil.NoSuchProcess):
        act()


def inside(client: httpx.Client, address: str) -> int:
    text = client.get(f"{address}/metrics").text
    found = re.findall(r"^trimodal_inflight{.*} (\d+)", text, re.M)
    assert found
    return sum(map(int, found))


def stopped_with_requests_inside(client: httpx.Client, address: str) -> list[int]:
    """Be told to stop twice while the models hold requests, which are answered all the same."""
    held = workers(os.getpid())
    host = urlsplit(address)
    with contextlib.ExitStack() as stack:
        for process in held:
            process.suspend()
            stack.callback(gone_or, process.resume)
        clients = [socket.create_connection((host.hostname, host.port), 30) for _ in range(4)]
        for sock in clients:
            stack.enter_context(sock)
            embedded(sock, "other")
        end = time.monotonic() + 60
        while inside(client, address) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        for process in held:
            gone_or(process.resume)
        return [heard(sock).status for sock in clients]


@pytest.mark.usefixtures("signals")
def test_it_serves_until_it_is_told_to_stop(
    model_folder: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"http://127.0.0.1:{free_port}"
    answers: list[httpx.Response] = []
    last: list[int] = []

    def use() -> None:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=10), timeout=30) as client:
                while client.get(f"{address}/readyz").status_code != 200:
                    pass
                for name in ("some/name", "other"):
                    body = {"model": name, "input": "red"}
                    answers.append(client.post(f"{address}/v1/embeddings", json=body))
                last.extend(stopped_with_requests_inside(client, address))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    user = threading.Thread(target=use)
    user.start()
    folders = [str(model_folder)] * 2
    names = ["--name", "some/name", "--name", "other"]
    assert run(*folders, "--port", str(free_port), *names) == 0
    user.join(20)
    assert last == [200] * 4
    assert [answer.json()["model"] for answer in answers] == ["some/name", "other"]
    assert answers[0].json()["data"] == answers[1].json()["data"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        f"trimodal: serving some/name, other at {address}, try: curl {address}/v1/"
    )


@pytest.mark.parametrize(
    ("host", "locked", "at", "command"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:80", "curl http://127.0.0.1:80/v1/embeddings -H 'c"),
        ("0.0.0.0", True, "http://0.0.0.0:80", "curl http://127.0.0.1:80/v1/embeddings -H 'auth"),  # noqa: S104
        ("::", True, "http://[::]:80", "curl http://[::1]:80/v1/embeddings -H 'authorization: B"),
    ],
)
def test_what_is_to_be_tried_reaches_the_server(
    host: str, locked: bool, at: str, command: str
) -> None:
    said = welcome(["demo"], (host, 80), locked)
    assert said.startswith(f"trimodal: serving demo at {at}, try: {command}")


class Served:
    """A real `trimodal serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "trimodal", "serve", str(folder), "--name", "tiny"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)}
        self.process = subprocess.Popen(
            [*command, "--port", "0"], stdout=subprocess.PIPE, env=environment, text=True
        )
        self.pid = self.process.pid

    def __enter__(self) -> "Served":
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"at http://127\.0\.0\.1:(\d+),", line)
        if found is None:
            self.__exit__()
        assert found is not None, line
        self.address = ("127.0.0.1", int(found[1]))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def asked(self, sock: socket.socket) -> int:
        embedded(sock, "tiny")
        return heard(sock).status

    def until_well(self, sock: socket.socket) -> None:
        end = time.monotonic() + 120
        while (status := self.asked(sock)) != 200:
            assert status == 503
            assert time.monotonic() < end
            time.sleep(0.1)


def few_descriptors_are_shared_out(served: Served) -> None:
    """Clients take what they may, the rest is told to come again, and a model is started anew."""
    _, most = resource.prlimit(served.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (128, most))
    with contextlib.ExitStack() as stack:
        crowd = [
            stack.enter_context(socket.create_connection(served.address, 30)) for _ in range(150)
        ]
        for sock in crowd[80:]:
            answer = heard(sock)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        for process in workers(served.pid):
            gone_or(process.kill)
        served.until_well(crowd[0])
    resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (most, most))


def without_descriptors_it_waits_for_some(served: Served, sock: socket.socket) -> None:
    """Not even the process of the model can be started, until it can."""
    _, most = resource.prlimit(served.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (3, most))
    for process in workers(served.pid):
        gone_or(process.kill)
    for _ in range(5):
        assert served.asked(sock) == 503
        time.sleep(0.2)
    resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (most, most))
    served.until_well(sock)


def without_room_on_a_disk_it_answers(served: Served) -> None:
    """No file can be written, for temporary use either."""
    _, most = resource.prlimit(served.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, (0, most))
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    assert len(stream.getvalue()) > 1 << 20, "more than is kept in memory by most who take files"
    url = f"http://127.0.0.1:{served.address[1]}/v1/embeddings"
    file = {"file": ("a.png", stream.getvalue())}
    answer = httpx.post(url, data={"model": "tiny"}, files=file, timeout=60)
    assert answer.status_code == 200, answer.text
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, (most, most))


def it_ends_though_its_model_hangs(served: Served, sock: socket.socket) -> None:
    family = psutil.Process(served.pid).children(recursive=True)
    for process in workers(served.pid):
        process.suspend()
    embedded(sock, "tiny")
    time.sleep(0.5)
    for _ in range(2):
        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    answer = heard(sock)
    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert served.process.wait(90) == 0
    _, alive = psutil.wait_procs(family, 30)
    assert not alive


def test_it_outlives_what_it_lacks_and_ends_when_it_is_told_to(model_folder: Path) -> None:
    with Served(model_folder) as served:
        few_descriptors_are_shared_out(served)
        without_room_on_a_disk_it_answers(served)
        with socket.create_connection(served.address, 60) as sock:
            assert served.asked(sock) == 200
            without_descriptors_it_waits_for_some(served, sock)
            it_ends_though_its_model_hangs(served, sock)


@pytest.mark.usefixtures("signals")
def test_the_name_is_that_of_the_run(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "model").symlink_to(model_folder)
    seen: list[str] = []
    monkeypatch.setattr(
        "trimodal_serving.command._serve", lambda _, models, __: seen.extend(models) or 0
    )
    for folder in (tmp_path / "digits" / "model", tmp_path / "digits", tmp_path / "a b"):
        assert run(str(folder), "--port", "0") == 0
    assert seen == ["digits", "digits", "trimodal"]
