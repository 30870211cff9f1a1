import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from trimodal.config import RunConfig
from trimodal.errors import StoppedError
from trimodal.training import signals, trainer
from trimodal.training.signals import GRACE, SIGNALS, StopRequest, follow_parent
from trimodal.training.trainer import train


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted(number: signal.Signals) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    with StopRequest() as stop:
        stop.begin()
        assert stop.name == ""
        os.kill(os.getpid(), number)
        assert stop.name == number.name
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    with StopRequest():
        assert [signal.getsignal(n) for n in SIGNALS] != before
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_before_the_first_step_it_ends_what_is_done() -> None:
    before = [signal.getsignal(n) for n in SIGNALS]

    def read() -> None:
        with StopRequest():
            try:
                os.kill(os.getpid(), signal.SIGUSR1)
            except Exception as error:  # as a file system may have any
                raise AssertionError from error

    with pytest.raises(StoppedError) as caught:
        read()
    assert str(caught.value) == (
        "stopped by SIGUSR1 before the first step; the same command begins again"
    )
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_one_that_was_lost_is_remembered_at_the_first_step() -> None:
    """As in a finalizer, where no exception leads anywhere."""

    def run() -> None:
        with StopRequest() as stop:
            with contextlib.suppress(BaseException):
                os.kill(os.getpid(), signal.SIGTERM)
            stop.begin()

    with pytest.raises(StoppedError, match="stopped by SIGTERM before the first step"):
        run()


@pytest.mark.parametrize(
    "stage", ["Accelerator", "build_dataset", "build_optimizer", "Reporter", "load_steps"]
)
def test_a_run_that_is_stopped_before_its_first_step_begins_again(
    config: RunConfig, trained: RunConfig, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = getattr(trainer, stage)

    def slow(*given: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        return former(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, stage, slow)
        with pytest.raises(StoppedError, match="stopped by SIGUSR1 before the first step"):
            train(config)
    assert not (Path(config.run_dir) / "checkpoints").exists()
    train(config)
    one, two = (Path(c.run_dir) / "model" / "model.safetensors" for c in (config, trained))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("again", SIGNALS)
def test_one_that_is_sent_again_is_ignored_while_what_was_done_is_saved(
    again: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    former = [signal.signal(number, lambda n, _: ended.append(n)) for number in SIGNALS]
    now = 100.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    try:
        with StopRequest() as stop:
            stop.begin()
            os.kill(os.getpid(), signal.SIGTERM)
            now += GRACE
            os.kill(os.getpid(), again)
            assert (stop.name, ended) == ("SIGTERM", [])
            now += 0.1
            os.kill(os.getpid(), again)
            assert ended == [again], "as it would be without a run"
    finally:
        for number, handler in zip(SIGNALS, former, strict=True):
            signal.signal(number, handler)


def test_a_thread_has_no_say_in_signals() -> None:
    names = []

    def run() -> None:
        with StopRequest() as stop:
            names.append(stop.name)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert names == [""]


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_a_loader_process_ends_with_its_parent_and_not_before() -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        child = os.fork()
        if child == 0:
            follow_parent()
            os.write(writer, str(os.getpid()).encode())
            time.sleep(60)
            os._exit(0)
        time.sleep(60)
        os._exit(0)
    child = int(os.read(reader, 20))
    os.kill(child, signal.SIGTERM)
    os.kill(child, 0)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    for _ in range(200):
        try:
            state = open(f"/proc/{child}/stat").read().split()[2]  # noqa: SIM115
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError("the loader process outlives the one that it loads for")
