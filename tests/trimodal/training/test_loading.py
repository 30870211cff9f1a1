import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from trimodal.config import DataConfig, RunConfig
from trimodal.errors import DataError, StoppedError
from trimodal.training.building import build_dataset, build_processor
from trimodal.training.feed import StepFeed
from trimodal.training.loading import load_steps

LAST = 12
"""Steps, of which four are in store when a process is lost at the second."""


def feed_of(config: RunConfig) -> StepFeed:
    return StepFeed(build_dataset(config, build_processor(config)), config)


def data_of(config: RunConfig, workers: int, seconds: float = 300.0) -> DataConfig:
    return replace(config.data, num_workers=workers, loader_seconds=seconds)


def ids(feed: StepFeed, step: int) -> list[str]:
    return [name for batch in feed.batches(step) for name in batch.ids]


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_come_in_order(config: RunConfig, workers: int) -> None:
    feed = feed_of(config)
    found = [
        [name for batch in batches for name in batch.ids]
        for batches in load_steps(feed, 3, 9, data_of(config, workers))
    ]
    assert found == [ids(feed, step) for step in range(3, 9)]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_raised_as_it_is(config: RunConfig, workers: int) -> None:
    manifest = Path(config.data.train[0])
    feed = feed_of(config)
    (manifest.parent / "train-3.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"train\.jsonl:4: image is not a PNG"):
        list(load_steps(feed, 0, 9, data_of(config, workers)))


@pytest.mark.parametrize(
    ("number", "seconds", "said"),
    [
        (signal.SIGKILL, 300, "ended unexpectedly"),
        (signal.SIGSTOP, 2, "were silent for 2 s"),
    ],
)
def test_lost_processes_are_replaced(
    config: RunConfig,
    number: signal.Signals,
    seconds: float,
    said: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    feed, found = feed_of(config), []
    for step, batches in enumerate(load_steps(feed, 0, LAST, data_of(config, 1, seconds))):
        if step == 2:
            (child,) = multiprocessing.active_children()
            os.kill(child.pid or 0, number)
        found.append([name for batch in batches for name in batch.ids])
    assert found == [ids(feed, step) for step in range(LAST)]
    assert f"trimodal: loader processes {said}; new ones go on with step" in capfd.readouterr().err
    assert multiprocessing.active_children() == []


def test_the_fourth_loss_ends_the_run(config: RunConfig) -> None:
    def lose() -> None:
        for _ in load_steps(feed_of(config), 0, 200, data_of(config, 1)):
            for child in multiprocessing.active_children():
                child.kill()
                wait([child.sentinel])

    # a loader of someone else leaves torch's signal handler in the process
    assert list(DataLoader(range(2), batch_size=None, num_workers=1)) == [0, 1]  # pyright: ignore[reportArgumentType]
    with pytest.raises(StoppedError, match="ended unexpectedly, for the 4th time; the same"):
        lose()


def test_it_works_beside_the_main_thread(config: RunConfig) -> None:
    """Where no handler may be set."""
    found: list[int] = []

    def load() -> None:
        found.extend(len(b) for b in load_steps(feed_of(config), 0, 3, data_of(config, 1)))

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert len(found) == 3
