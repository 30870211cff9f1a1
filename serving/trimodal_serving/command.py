"""`trimodal serve`: models behind HTTP.

trimodal serve runs/demo/model --port 8000
"""

import argparse
import asyncio
import contextlib
import errno
import gc
import logging
import re
import resource
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trimodal.cli import Command, add_device, add_weights, check_there
from trimodal.errors import ConfigError
from trimodal.storage import refusal
from trimodal_serving.deadline import REQUEST_SECONDS
from trimodal_serving.hosts import Hosts
from trimodal_serving.logs import log_to_stderr
from trimodal_serving.origins import is_loopback

if TYPE_CHECKING:
    import uvicorn

    from trimodal_serving.guard import Guard

DRAIN_SECONDS = 30
IDLE_SECONDS = 75
"""That a connection waits for its next request, longer than proxies keep theirs."""
MOST_REPLICAS = 64
REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Where a client of this machine finds what listens on all addresses."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="a model folder, such as runs/demo/model"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="loopback, or any address with --keys (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (%(default)s)")
    parser.add_argument(
        "--name",
        action="append",
        help="what clients call the model (the name of its run); once for each MODEL",
    )
    add_device(parser)
    add_weights(parser)
    parser.add_argument(
        "--replicas",
        type=int,
        default=1,
        metavar="N",
        help="processes with each model, which share the cores or take a GPU each (%(default)s)",
    )
    parser.add_argument(
        "--token-budget", type=int, default=16_384, help="tokens computed at once (%(default)s)"
    )
    parser.add_argument(
        "--indexes", metavar="DIR", help="keep indexes of vectors for /v1/search in this folder"
    )
    parser.add_argument(
        "--max-body-mb", type=int, default=32, help="MiB of a request's body (%(default)s)"
    )
    parser.add_argument("--keys", metavar="FILE", help="who may do what, see `trimodal keys`")
    parser.add_argument(
        "--no-playground", action="store_true", help="serve no page for browsers at /"
    )
    parser.add_argument(
        "--fetch-from",
        metavar="HOST",
        action="append",
        default=[],
        help="fetch media from this host: a name, *.NAME or an address, with :PORT if need be; "
        "once for each",
    )
    _add_patience(parser)
    _add_records(parser)


def _add_patience(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-seconds",
        type=float,
        default=120.0,
        help="a batch that takes longer hangs, and its process is replaced (%(default)s)",
    )
    parser.add_argument(
        "--request-seconds",
        type=float,
        default=REQUEST_SECONDS,
        help="a request whose answer takes longer is given up (%(default)s)",
    )


def _add_records(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--usage-log", metavar="FILE", help="gets a line of JSON for each request")
    parser.add_argument(
        "--telemetry",
        metavar="URL",
        help="send spans and durations of requests to a collector of OpenTelemetry, such as "
        "http://127.0.0.1:4318",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes; then let the requests inside finish.

    Raises:
        ConfigError: an option that cannot be, or an address that is not ours to listen on.
        PathError: a folder that is no model, or a file of keys that is not there.
        StorageError: one that cannot be read, or is damaged.
        NumericError: the model computes no finite vector.
    """
    _check(options)
    models = _named(options.models, options.name)
    with _listen(options.host, options.port) as listener:
        return _serve(options, models, listener)


def _check(options: argparse.Namespace) -> None:
    if options.keys is None and not is_loopback(options.host):
        raise ConfigError(
            f"--host {options.host}: only loopback addresses (127.0.0.1, ::1, localhost) are "
            "served without keys; make some with `trimodal keys add` and name the file in --keys"
        )
    if not 0 <= options.port <= 65_535:
        raise ConfigError(f"--port {options.port}: must be from 0 to 65535")
    if options.token_budget < 1 or options.max_body_mb < 1:
        raise ConfigError("--token-budget and --max-body-mb: must be at least 1")
    if not 1 <= options.replicas <= MOST_REPLICAS:
        raise ConfigError(f"--replicas {options.replicas}: must be from 1 to {MOST_REPLICAS}")
    if not (options.batch_seconds > 0 and options.request_seconds > 0):
        raise ConfigError("--batch-seconds and --request-seconds: must be above 0")
    Hosts(options.fetch_from)


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", name) is not None


def _named(folders: Sequence[str], given: Sequence[str] | None) -> dict[str, str]:
    """Folders by the names of their models."""
    names = given or [default_name(Path(folder)) for folder in folders]
    if not all(map(_is_name, names)):
        raise ConfigError("--name: must be letters, digits and any of . _ : / - only")
    if len(names) != len(folders):
        raise ConfigError(f"--name: is there {len(names)} times, for {len(folders)} models")
    models = dict(zip(names, folders, strict=True))
    if len(models) < len(folders):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"two models are called {twice}; say --name once for each of them")
    return models


def default_name(folder: Path) -> str:
    """What a model is called if nobody says: `demo` for runs/demo/model."""
    folder = folder.absolute()
    name = folder.parent.name if folder.name == "model" else folder.name
    return name if _is_name(name) else "trimodal"


def _listen(host: str, port: int) -> socket.socket:
    address = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=2048)
    except OSError as error:
        hint = "; choose another with --port" if error.errno == errno.EADDRINUSE else ""
        problem = "it is in use" if hint else (error.strerror or "it cannot be bound")
        raise ConfigError(f"cannot listen on {host} port {port}: {problem}{hint}") from error


def _check_folder(folder: str) -> None:
    try:
        (Path(folder) / "config.json").read_bytes()
    except OSError as error:
        message = f"{folder} is not a model folder: it has no readable config.json"
        raise refusal(message, error) from error


def _serve(options: argparse.Namespace, models: Mapping[str, str], listener: socket.socket) -> int:
    for folder in models.values():  # said now, not after all was imported
        _check_folder(folder)
    if options.keys is not None:
        check_there(options.keys)

    from trimodal_serving.backend import Setting
    from trimodal_serving.hosting import Hosting, build_app

    settings = {
        name: Setting(folder, options.device, options.token_budget, options.weights)
        for name, folder in models.items()
    }
    hosting = Hosting(
        models=settings,
        replicas=options.replicas,
        max_body_mb=options.max_body_mb,
        batch_seconds=options.batch_seconds,
        keys=options.keys,
        usage_log=options.usage_log,
        indexes=options.indexes,
        playground=not options.no_playground,
        fetch_from=options.fetch_from,
        request_seconds=options.request_seconds,
        telemetry=options.telemetry,
    )
    failure: list[BaseException] = []

    def on_started(starting: asyncio.Task[None]) -> None:
        if starting.cancelled():
            return
        error = starting.exception()
        if error is None:
            address = listener.getsockname()[:2]
            print(welcome(list(models), address, options.keys is not None), flush=True)
        else:
            failure.append(error)
            server.should_exit = True

    log_to_stderr()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # each connection needs a descriptor
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = http_server(build_app(hosting, on_started))
    gc.collect()
    gc.freeze()  # the collector need not look at what was imported while somebody waits
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn stops cleanly and then raises the signal again, which would look like a crash
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])
    if failure:
        raise failure[0]
    return 0


def http_server(app: "Guard") -> "uvicorn.Server":
    """The app on uvicorn, which waits for open requests when it is told to exit."""
    import uvicorn

    from trimodal_serving.connection import BoundedConnection

    config = uvicorn.Config(
        app,
        http=BoundedConnection,
        ws="none",
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=IDLE_SECONDS,
    )
    return uvicorn.Server(config)


def welcome(names: Sequence[str], address: tuple[str, int], locked: bool) -> str:
    """What is said once models are ready, with a command to try.

    Args:
        names: of the models.
        address: host and port that are listened on.
        locked: only those with a key are answered.
    """
    host, port = address
    key = " -H 'authorization: Bearer SECRET'" if locked else ""
    return (
        f"trimodal: serving {', '.join(names)} at {_address(host, port)}, try: "
        f"curl {_address(REACHABLE.get(host, host), port)}/v1/embeddings{key} "
        "-H 'content-type: application/json' "
        f"""-d '{{"model": "{names[0]}", "input": "a red circle"}}'"""
    )


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


COMMAND = Command("serve", "Serve a model over HTTP.", configure, run)
