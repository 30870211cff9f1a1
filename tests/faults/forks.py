"""Trainings in forks of one process, which has imported everything and touched no thread.

pid = start(config, run_dir, rank=0, world_size=1)
"""

import hashlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimodal.config import RunConfig
from trimodal.errors import TrimodalError
from trimodal.training.trainer import train


def start(
    config: RunConfig,
    rank: int = 0,
    world_size: int = 1,
    port: int = 0,
    before: Callable[[], None] = lambda: None,
) -> int:
    """Train in a child; its status is the exit code that a command would end with."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if world_size > 1:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}
            place |= {"LOCAL_WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1"}
            os.environ.update({key: str(value) for key, value in place.items()})
            os.environ["MASTER_PORT"] = str(port)
        with open(os.devnull, "w") as sink:
            os.dup2(sink.fileno(), 1)
        before()
        train(config)
        code = 0
    except TrimodalError as error:
        print(f"rank {rank}: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Have `around(inner, *arguments)` called in the place of a function or a method.

    Args:
        owner: the module or the class.
        name: of what is replaced.
        around: is given what was there before, then what that would have been given.
    """
    inner = getattr(owner, name)

    def called(*arguments: Any, **options: Any) -> Any:
        return around(inner, *arguments, **options)

    setattr(owner, name, called)


def wait(pid: int) -> int:
    """The status of a child; minus the signal that ended it."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def train_whole(config: RunConfig, world_size: int = 1) -> list[int]:
    """Train on some ranks to the end; their statuses."""
    port = free_port()
    pids = [start(config, rank, world_size, port) for rank in range(world_size)]
    return [wait(pid) for pid in pids]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def kill(pid: int) -> None:
    """End a child at once, if it has not ended."""
    os.kill(pid, signal.SIGKILL)


def at(config: RunConfig, folder: str) -> RunConfig:
    """The same run elsewhere."""
    return replace(config, run_dir=str(Path(config.run_dir).parent / folder))


def traces(config: RunConfig) -> dict[int, str]:
    """What each step in the metrics left, by its number; a line that is cut short is left out."""
    path = Path(config.run_dir) / "metrics.jsonl"
    found: dict[int, str] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        assert row["step"] not in found, "a step occurs twice"
        found[row["step"]] = row["trace"]
    return found


def weights(config: RunConfig) -> str:
    """A hash of the exported weights."""
    content = (Path(config.run_dir) / "model" / "model.safetensors").read_bytes()
    return hashlib.sha256(content).hexdigest()
