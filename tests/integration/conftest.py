"""Commands on one or two ranks, as `torchrun` would start them.

def test_something(ranks: Ranks) -> None: ranks(2, "-m", "trimodal.train", "run.yaml")
"""

import socket
from collections.abc import Callable

import pytest

Host = Callable[..., list[int]]
Ranks = Callable[..., str]


@pytest.fixture
def ranks(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Runs commands in processes that know of each other."""

    def run(world: int, *command: str, **environment: str) -> str:
        """Run a script, or `-m` and a module, on so many ranks, and see it end well.

        Args:
            world: how many ranks.
            command: what would follow the name of Python.
            environment: is added to that of the ranks.

        Returns:
            what it wrote to stdout.
        """
        said = tmp_path_factory.mktemp("ranks")
        shared = {
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            **environment,
        }
        places = [{**shared, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(world)]
        statuses = host(command, said, places)
        assert statuses == [0] * world, (said / "stderr").read_text()[-3000:]
        return (said / "stdout").read_text()

    return run


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
