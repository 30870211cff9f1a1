"""The `trimodal` command: its subcommands come from the entry-point group `trimodal.commands`."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from trimodal import __version__
from trimodal.errors import ConfigError, TrimodalError


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


def check_output(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read.

    Raises:
        ConfigError: `output` is one of `inputs`, or lies in one that is a folder.
    """
    place = Path(os.path.realpath(output))
    for given in inputs:
        source = Path(os.path.realpath(given))
        if source == place:
            raise ConfigError(f"{output} would be written over, and it is read")
        if source in place.parents:
            raise ConfigError(f"{output} would be written into {given}, which is read")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; a user's mistake is one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="trimodal", description="Pre-train, fine-tune and serve one model of three modalities."
    )
    parser.add_argument("--version", action="version", version=f"trimodal {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for entry in sorted(entry_points(group="trimodal.commands"), key=lambda e: e.name):
        command: Command = entry.load()
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.help)
        command.configure(subparser)
        subparser.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    return guarded(lambda: options.run(options))


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
