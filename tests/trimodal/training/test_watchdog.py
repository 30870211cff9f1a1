import subprocess
import sys

CODE = """
import time
from trimodal.training.watchdog import Watchdog

def a_step_that_hangs():
    time.sleep(60)

with Watchdog({seconds}) as watchdog:
    for _ in range(4):
        time.sleep(0.15)
        watchdog.step()
    {then}
"""


def _run(seconds: float, then: str) -> subprocess.CompletedProcess[str]:
    code = CODE.format(seconds=seconds, then=then)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=40
    )


def test_a_step_that_hangs_ends_the_process_with_its_stack() -> None:
    done = _run(0.4, "a_step_that_hangs()")
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in a_step_that_hangs" in done.stderr


def test_steps_that_come_are_left_alone() -> None:
    for seconds in (0.4, 0):
        done = _run(seconds, "pass")
        assert (done.returncode, done.stderr) == (0, "")
