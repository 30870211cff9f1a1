"""torchrun, whose ranks are forks that wait from before it has a thread, not new interpreters.

python tests/integration/launched.py RANKS [what torchrun takes]

What torchrun sees of a rank, and does to it, are those of a process of its own.
"""

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import host
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import (
    SubprocessHandler,
)

LOOKS = 0.02
"""Seconds between two looks for one that is waited for."""


class Waiting:
    """A fork that becomes a rank once it is told which; in the place of a `Popen`."""

    def __init__(self) -> None:
        told, self._tell = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os.close(self._tell)
            _become(told)
        os.close(told)

    def begin(self, args: Sequence[str], env: Mapping[str, str]) -> "Waiting":
        """Tell it."""
        with os.fdopen(self._tell, "w") as pipe:
            print(json.dumps([list(args), dict(env)]), file=pipe)
        return self

    def poll(self) -> int | None:
        """Its status, if it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its status, once it has ended."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("rank", timeout)
            time.sleep(LOOKS)
        return code


def _become(told: int) -> None:
    """Run the command that comes, in a session of its own."""
    code = 1
    try:
        os.setsid()
        with os.fdopen(told) as pipe:
            said = pipe.readline()  # its end may be held by the forks that came later
        if said:  # else torchrun has ended
            (_, _, *command), env = json.loads(said)  # python -u SCRIPT ...
            os.environ.clear()
            os.environ.update(env)
            code = host.execute(command)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Fork, then launch."""
    count, *arguments = sys.argv[1:]
    waiting = [Waiting() for _ in range(int(count))]

    def popen(self: SubprocessHandler, args: tuple[str, ...], env: dict[str, str]) -> Any:
        return waiting.pop(0).begin(args, env)

    SubprocessHandler._popen = popen
    run.main(arguments)


if __name__ == "__main__":
    main()
