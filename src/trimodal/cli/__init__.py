"""The `trimodal` command: its subcommands come from the entry-point group `trimodal.commands`."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from trimodal import __version__
from trimodal.config import WEIGHTS
from trimodal.errors import ConfigError, PathError, TrimodalError
from trimodal.storage import refusal

if TYPE_CHECKING:
    from trimodal.workers import Workers

MOST_WORKERS = 8
"""Processes, unless more are asked for."""


@dataclass(frozen=True)
class Command:
    """A subcommand; its module imports nothing heavy before `run` is called."""

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def positive(text: str) -> int:
    """A whole number from 1, for `type=` of an option."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def add_token_budget(parser: argparse.ArgumentParser) -> None:
    """Add `--token-budget`."""
    parser.add_argument(
        "--token-budget",
        metavar="N",
        type=positive,
        default=16_384,
        help="tokens computed at once (default: %(default)s)",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`."""
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        default="fp32",
        help="what matrices are kept in; bf16 halves, int8 quarters their memory (%(default)s)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the model computes; auto takes a GPU if there is one (%(default)s)",
    )


def add_workers(parser: argparse.ArgumentParser, *, processes: bool = False) -> None:
    """Add `--ray`, and `--workers` where processes of one machine can do the work too."""
    if processes:
        parser.add_argument(
            "--workers",
            metavar="N",
            type=positive,
            default=min(os.cpu_count() or 1, MOST_WORKERS),
            help="processes; the files do not depend on it (default: %(default)s)",
        )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="do it on this Ray cluster, with the same result; local for one on this machine",
    )


def workers_of(options: argparse.Namespace) -> "Workers | None":
    """What `--ray` and `--workers` ask for; None is this process."""
    if options.ray is not None:
        from trimodal.cluster import Cluster

        return Cluster(options.ray)
    if getattr(options, "workers", 1) <= 1:
        return None
    from trimodal.workers import Processes

    return Processes(options.workers)


def check_output(output: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuse to write over what is read.

    Raises:
        ConfigError: `output` is one of `inputs`, or lies in one that is a folder.
    """
    place = _place(output)
    for given in inputs:
        source = _place(given)
        if source == place:
            raise ConfigError(f"{output} would be written over, and it is read")
        if source in place.parents:
            raise ConfigError(f"{output} would be written into {given}, which is read")


def check_there(path: str | Path) -> None:
    """Refuse a path that was named and leads nowhere.

    Raises:
        PathError: it does.
    """
    if not Path(path).exists():
        raise PathError(f"{path} cannot be read: there is no such file")


def make_output(folder: Path) -> bool:
    """Make the folder that `--out` names; whether there is anything in it.

    Raises:
        PathError: a file is in its place, or where a folder above it should be.
        StorageError: it cannot be made or read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return any(folder.iterdir())
    except OSError as error:
        message = f"--out {folder} cannot be used: {error.strerror}"
        raise refusal(message, error) from error


def _place(address: str | Path) -> PurePath:
    """Where an address leads; those of fsspec are compared as they are written."""
    return PurePath(address) if "://" in str(address) else Path(os.path.realpath(address))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; a user's mistake is one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="trimodal",
        description="Pre-train, fine-tune and serve one model of three modalities.",
        epilog="Exit codes: 0 done; 2 usage; 64 configuration, option or path; 65 data; 74 storage "
        "that fails or is damaged; 75 the same command goes on; 76 numbers that are not finite.",
    )
    parser.add_argument("--version", action="version", version=f"trimodal {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for entry in sorted(entry_points(group="trimodal.commands"), key=lambda e: e.name):
        command: Command = entry.load()
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.help)
        command.configure(subparser)
        subparser.set_defaults(run=command.run)
    options, rest = parser.parse_known_args(arguments)
    if rest and not _taken(rest, options):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return guarded(lambda: options.run(options))


def _taken(rest: Sequence[str], options: argparse.Namespace) -> bool:
    """Take `key=value` that stand behind an option, where argparse looks for them no more."""
    overrides = getattr(options, "overrides", None)
    if overrides is None or not all("=" in word and word[0] != "-" for word in rest):
        return False
    overrides.extend(rest)
    return True


def guarded(action: Callable[[], int]) -> int:
    """Run `action`; turn the errors that users cause into one line and an exit code.

    If whoever reads the output goes, as `head` does, nothing more is said.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may hold bytes that are no text
    try:
        code = _reported(action)
        print(end="", flush=True)
    except BrokenPipeError:
        # what the buffer still holds would fail once more when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


def _reported(action: Callable[[], int]) -> int:
    try:
        return action()
    except TrimodalError as error:
        print(f"trimodal: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("trimodal: interrupted", file=sys.stderr)
        return 130
