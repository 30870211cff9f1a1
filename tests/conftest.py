"""What holds for every test: fixed seeds, and nothing fetched from a model hub.

pytest tests/kernels
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if not Path("/dev/nvidiactl").exists():
    # without a GPU Triton interprets its kernels; it must know before anything imports it
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed torch where it is loaded already; tests that do without it stay quick."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


class Host:
    """Runs Python commands in forks of a process that has imported everything, once for all tests.

    It starts when it is first needed, and again after a command that took too long.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(
        self,
        command: Sequence[str],
        said: Path,
        places: Sequence[Mapping[str, str]] = ({},),
        *,
        patience: float = 300,
    ) -> list[int]:
        """Run a script, or `-m` and a module.

        Args:
            command: what would follow the name of Python.
            said: a folder for what it writes, as `stdout` and `stderr`.
            places: what is added to the environment, for each process that is to run it.
            patience: seconds that it may take.

        Returns:
            the statuses of the processes.
        """
        if self._process is None:
            self._process = _started()
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        order = {"command": [*command], "said": str(said), "places": [*places]}
        asked.write(json.dumps(order) + "\n")
        asked.flush()
        answered = select.select([answers], [], [], patience)[0]
        if not answered:
            self.close()
        assert answered, f"{command} takes longer than {patience} s"
        return json.loads(answers.readline())

    def close(self) -> None:
        """End it, and what it may have left."""
        ended, self._process = self._process, None
        if ended is not None:
            os.killpg(ended.pid, signal.SIGKILL)
            ended.communicate()


def _started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("host.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        start_new_session=True,
    )


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """One for all that a process of pytest tests."""
    made = Host()
    yield made
    made.close()
