import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from trimodal.cli import guarded
from trimodal_serving.command import COMMAND

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
    arguments = ["nowhere", "--host", "0.0.0.0", "--port", "0", "--keys", str(keys)]  # noqa: S104
    assert run(*arguments) == 74
    keys.write_text('{"keys": []}')
    keys.chmod(0o644)
    assert run(*arguments) == 74
    first, second = capsys.readouterr().err.splitlines()
    assert f"{keys}: cannot be read" in first
    assert f"chmod 600 {keys}" in second


def test_the_refusal_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from trimodal.cli import main\n"
        "code = main(['serve', 'nowhere', '--host', '0.0.0.0'])\n"
        f"print(code, [name for name in {HEAVY} if name in sys.modules])\n"
    )
    roots = [path for path in sys.path if path.endswith(("/src", "/kernels", "/serving"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
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
    assert run(str(tmp_path), "--port", "0") == 74
    output = capsys.readouterr()
    assert f"{tmp_path} is not a model folder" in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


@pytest.mark.usefixtures("signals")
def test_it_serves_until_it_is_told_to_stop(
    model_folder: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"http://127.0.0.1:{free_port}"
    answers: list[httpx.Response] = []

    def use() -> None:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=10), timeout=30) as client:
                while client.get(f"{address}/readyz").status_code != 200:
                    pass
                for name in ("some/name", "other"):
                    body = {"model": name, "input": "red"}
                    answers.append(client.post(f"{address}/v1/embeddings", json=body))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    user = threading.Thread(target=use)
    user.start()
    folders = [str(model_folder)] * 2
    names = ["--name", "some/name", "--name", "other"]
    assert run(*folders, "--port", str(free_port), *names) == 0
    user.join(20)
    assert [answer.json()["model"] for answer in answers] == ["some/name", "other"]
    assert answers[0].json()["data"] == answers[1].json()["data"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        f"trimodal: serving some/name, other at {address}, try: curl {address}/v1/"
    )


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
