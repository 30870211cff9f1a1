"""Two ranks that torchrun starts once for all tests, as each start imports for many seconds.

def test_something(ranks: Ranks) -> None: ranks(2, "-m", "trimodal.train", "run.yaml")
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("waiting_ranks.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
PATIENCE = 300
Ranks = Callable[..., str]


class Launched:
    """What `waiting_ranks.py` is the other end of."""

    def __init__(self, folder: Path) -> None:
        for name in ("0", "1", "answers"):
            os.mkfifo(folder / name)
        # for reading and writing, as a pipe that is opened for one waits for who does the other
        self._answers, *self._orders = (
            os.open(folder / name, os.O_RDWR) for name in ("answers", "0", "1")
        )
        self._launcher = subprocess.Popen([*LAUNCH, str(SCRIPT), str(folder)], env=ENVIRONMENT)

    def obey(self, world: int, order: dict[str, object]) -> list[int]:
        """The statuses of all ranks, or of the first that failed."""
        for pipe in self._orders[:world]:
            os.write(pipe, json.dumps(order).encode() + b"\n")
        said, statuses, end = b"", list[int](), time.monotonic() + PATIENCE
        while len(statuses) < world and not any(statuses):
            assert self._launcher.poll() is None, "the ranks have ended"
            assert time.monotonic() < end, f"the ranks take too long for {order}"
            if select.select([self._answers], [], [], 1.0)[0]:
                said += os.read(self._answers, 4096)
            statuses = [int(line) for line in said.splitlines()]
        return statuses

    def close(self) -> None:
        """Have them end: by themselves, or with what they run."""
        for pipe in (self._answers, *self._orders):
            os.close(pipe)
        try:
            self._launcher.wait(10)
        except subprocess.TimeoutExpired:
            self._launcher.terminate()
            self._launcher.wait(PATIENCE)


class Waiting:
    """Ranks that are started when they are needed, and again after something has failed."""

    def __init__(self, place: Callable[[], Path]) -> None:
        self._place = place
        self._launched: Launched | None = None

    def __call__(self, world: int, *command: str, **environment: str) -> str:
        """Run a script, or `-m` and a module, on so many of the ranks, and see it end well.

        Args:
            world: 1 or 2 ranks.
            command: what would follow the name of Python.
            environment: is added to that of the ranks.

        Returns:
            what it wrote to stdout.
        """
        if self._launched is None:
            self._launched = Launched(self._place())
        said = self._place()
        shared = {
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "TORCHELASTIC_USE_AGENT_STORE": "False",  # which is there for one process group
        }
        order = {"command": command, "said": str(said), "environment": {**shared, **environment}}
        statuses: Sequence[int] = ()
        try:
            statuses = self._launched.obey(world, order)
        finally:
            if list(statuses) != [0] * world:
                self.close()
        assert list(statuses) == [0] * world, (said / "stderr").read_text()[-3000:]
        return (said / "stdout").read_text()

    def close(self) -> None:
        """End them, if there are any."""
        launched, self._launched = self._launched, None
        if launched is not None:
            launched.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Runs commands on one or two ranks."""
    made = Waiting(lambda: tmp_path_factory.mktemp("ranks"))
    yield made
    made.close()
