"""Runs commands in forks of this process, which has imported everything and touched no thread.

python tests/host.py

A line of stdin is JSON: `command`, as it would follow the name of Python; `said`, the folder for
what it writes to stdout and stderr; and `places`, what is added to the environment of each process
that is to run it. A line of stdout is the list of their statuses. `conftest.py` is the other end.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IMPORTED = (
    "trimodal.training.trainer",
    "trimodal.evaluation",
    "trimodal.processors.recording",
    "trimodal.testing",
    *("PIL.BmpImagePlugin", "PIL.GifImagePlugin", "PIL.JpegImagePlugin"),
    *("PIL.PngImagePlugin", "PIL.PpmImagePlugin"),
)


def obey(order: Mapping[str, Any]) -> list[int]:
    """The statuses of all processes; once one of them fails the others are killed."""
    left = {_start(order, place): rank for rank, place in enumerate(order["places"])}
    statuses = [0] * len(left)
    while left:
        pid, status = os.wait()
        statuses[left.pop(pid)] = code = os.waitstatus_to_exitcode(status)
        for other in left if code else ():
            os.kill(other, signal.SIGKILL)
    return statuses


def _start(order: Mapping[str, Any], place: Mapping[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ.update(place)
        code = _run(order["command"], Path(order["said"]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(command: list[str], said: Path) -> int:
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with (said / name).open("a") as sink:
            os.dup2(sink.fileno(), descriptor)
    return execute(command)


def execute(command: list[str]) -> int:
    """The status of a script, or of `-m` and a module, run in this process."""
    first, *others = command
    try:
        if first == "-m":
            sys.argv = others
            runpy.run_module(others[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = command, str(Path(first).parent)
            runpy.run_path(first, run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _measure() -> None:
    """What this machine can do, with one thread and so without another; or each fork would."""
    import torch

    from trimodal.training.throughput import peak_flops

    if torch.get_num_threads() == 1:
        peak_flops(torch.device("cpu"), torch.float32)


def main() -> None:
    """Until stdin ends."""
    for module in IMPORTED:
        importlib.import_module(module)
    _measure()
    gc.collect()
    gc.freeze()  # the collector of a fork leaves shared pages alone
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
