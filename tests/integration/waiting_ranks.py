"""Ranks that have imported everything, and run what they are told to in forks of themselves.

torchrun --nproc_per_node 2 tests/integration/waiting_ranks.py FOLDER

A line of the pipe FOLDER/RANK is JSON: a command, what is added to its environment, and where to
write what it says. One of FOLDER/answers is the status with which it ended. `conftest.py` is the
other end.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

IMPORTED = ("trimodal.training.trainer", "trimodal.evaluation", "trimodal.testing")


def obey(order: dict[str, Any]) -> int:
    """The status of a command that is run in a fork."""
    pid = os.fork()
    if not pid:
        code = 1
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            code = _run(order)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _run(order: dict[str, Any]) -> int:
    os.environ |= order["environment"]
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with Path(order["said"], name).open("a") as sink:
            os.dup2(sink.fileno(), descriptor)
    first, *others = order["command"]
    try:
        if first == "-m":
            sys.argv = others
            runpy.run_module(others[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = [first, *others], str(Path(first).parent)
            runpy.run_path(first, run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def main() -> None:
    """Until the pipe is closed, or the launcher ends this process and what it runs."""
    for module in IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # the collector of a fork leaves shared pages alone
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    folder = Path(sys.argv[1])
    with (folder / os.environ["RANK"]).open() as orders, (folder / "answers").open("w") as answers:
        for line in orders:
            print(obey(json.loads(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
