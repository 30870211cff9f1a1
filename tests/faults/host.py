"""Runs scripts of this folder, each in a fork of this process, which has imported them all.

python tests/faults/host.py

A line of stdin is a JSON list: the script, a file for what it says, and its arguments. A line of
stdout is the status with which it ended.
"""

import gc
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import flips
import kills
import loaders
import mutations
import nans
import ranks
import soak
import stages
import worlds
from forks import wait

SCRIPTS = {
    f"{module.__name__}.py": module.main
    for module in (flips, kills, loaders, mutations, nans, ranks, soak, stages, worlds)
}


def run(script: str, said: str, arguments: Sequence[str]) -> int:
    """Its status."""
    pid = os.fork()
    if pid:
        return wait(pid)
    code = 1
    try:
        with open(os.devnull, "w") as nowhere, open(said, "w") as sink:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        sys.argv = [script, *arguments]
        SCRIPTS[script]()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Until stdin ends."""
    gc.collect()
    gc.freeze()  # the collector of a fork leaves shared pages alone
    for line in sys.stdin:
        script, said, *arguments = json.loads(line)
        print(run(script, said, arguments), flush=True)


if __name__ == "__main__":
    main()
