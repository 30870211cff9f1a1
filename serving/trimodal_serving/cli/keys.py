"""`trimodal keys`: who may use a server.

trimodal keys add keys.json --tenant alice --scopes embed,generate --days 90
"""

import argparse
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from trimodal.cli import Command, check_there, positive
from trimodal_serving.caller import PRIORITIES
from trimodal_serving.keys import SCOPES, Key, KeyFile, Limits

AMOUNTS = ("requests", "tokens", "pixels", "audio_seconds")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add = _action(actions, "add", "Make a key; its secret is printed once.", _add)
    add.add_argument("--tenant", required=True, metavar="NAME", help="whose key it is")
    add.add_argument(
        "--scopes",
        default="embed,generate",
        metavar="A,B",
        help=f"of {', '.join(SCOPES)} (%(default)s)",
    )
    add.add_argument("--days", type=positive, metavar="N", help="until it expires (never)")
    add.add_argument(
        "--priority",
        choices=tuple(PRIORITIES),
        default="interactive",
        help="the highest of its requests (%(default)s)",
    )
    for name in AMOUNTS:
        add.add_argument(
            f"--{name.replace('_', '-')}",
            type=_amount,
            metavar="N",
            help=f"{name.replace('_', ' ')} a minute (no limit)",
        )
    add.add_argument(
        "--in-flight",
        type=positive,
        metavar="N",
        default=Limits().in_flight,
        help="requests at the same time (%(default)s)",
    )
    _action(actions, "list", "List keys, without secrets.", _list)
    revoke = _action(actions, "revoke", "Let a key open nothing any more.", _revoke)
    revoke.add_argument("id", metavar="ID", help="as `trimodal keys list` shows it")


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("file", metavar="FILE", help="a JSON file that only its owner can read")
    parser.set_defaults(action=run)
    return parser


def _amount(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def run(options: argparse.Namespace) -> int:
    """Carry out one action.

    Raises:
        ConfigError: a value that cannot be, or a key that is not there.
        PathError: there is no such file.
        StorageError: the file cannot be read or written.
    """
    return options.action(options)


def _add(options: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    expires = None if options.days is None else now + timedelta(days=options.days)
    amounts = {name: getattr(options, name) for name in AMOUNTS}
    key, secret = KeyFile(options.file).add(
        tenant=options.tenant,
        scopes=tuple(options.scopes.split(",")),
        expires=expires,
        priority=options.priority,
        limits=Limits(in_flight=options.in_flight, **amounts),
    )
    print(f"key {key.id} of {key.tenant}; this is the only time that its secret is shown:")
    print(secret)
    return 0


def _list(options: argparse.Namespace) -> int:
    check_there(options.file)
    for key in KeyFile(options.file).load().values():
        scopes, limits = ",".join(key.scopes), _limits(key.limits)
        print("  ".join((key.id, key.tenant, scopes, key.priority, _state(key), limits)))
    return 0


def _limits(limits: Limits) -> str:
    """Those that are set, as `add` is told them."""
    amounts = {name: getattr(limits, name) for name in (*AMOUNTS, "in_flight")}
    told = [f"--{name.replace('_', '-')} {n:.15g}" for name, n in amounts.items() if n is not None]
    return " ".join(told)


def _state(key: Key) -> str:
    if key.revoked is not None:
        return f"revoked {key.revoked}"
    if not key.valid(datetime.now(UTC)):
        return f"expired {key.expires}"
    return "valid" if key.expires is None else f"valid until {key.expires}"


def _revoke(options: argparse.Namespace) -> int:
    check_there(options.file)
    key = KeyFile(options.file).revoke(options.id)
    print(f"key {key.id} of {key.tenant} is revoked since {key.revoked}")
    return 0


COMMAND = Command("keys", "Make, list and revoke the keys of a server.", configure, run)
