import threading
import time
from pathlib import Path

import pytest
import torch

from trimodal.errors import StorageError
from trimodal.training import saver
from trimodal.training.checkpoint import WAIT_SECONDS, load_newest
from trimodal.training.parts import Part
from trimodal.training.saver import Saver


def test_what_is_saved_is_what_was_there_at_the_call(tmp_path: Path) -> None:
    weight = torch.ones(3)
    with Saver(tmp_path, keep=2) as made:
        made.save(1, {"model": {"w": weight}}, {"n": 1})
        weight.fill_(2.0)
    found = load_newest(tmp_path)
    assert found is not None
    assert found.tensors["model"]["w"].tolist() == [1.0] * 3
    assert found.state == {"n": 1}


def test_one_is_written_at_a_time_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, order = threading.Event(), []

    def slow(folder: Path, step: int, *_: object) -> Path:
        gate.wait(10)
        order.append(step)
        return folder

    monkeypatch.setattr(saver, "save", slow)
    with Saver(tmp_path, keep=2) as made:
        made.save(1, {}, {})
        made.check()
        assert order == [], "the call came back before anything was written"
        gate.set()
        made.save(2, {}, {})
        assert order[0] == 1
    assert order == [1, 2]


def test_a_checkpoint_that_fails_is_told_at_the_next_look(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = Saver(tmp_path / "file", 2)
    made.save(1, {"model": {"w": torch.ones(1)}}, {})
    with pytest.raises(StorageError, match="cannot be written"):
        made.wait()
    made.save(1, {"model": {"w": torch.ones(1)}}, {})
    made._writer.shutdown()
    with pytest.raises(StorageError, match="cannot be written"):
        made.check()
    made.wait()


def _breaks(folder: Path) -> None:
    with Saver(folder, 2) as made:
        made.save(1, {"model": {"w": torch.ones(1)}}, {})
        raise KeyError


def _fails(folder: Path) -> None:
    with Saver(folder, 2, Part(0, 2, "x")) as made:
        made.save(1, {"model": {"w": torch.ones(1)}}, {})
        raise KeyError


def test_a_rank_that_is_gone_is_not_waited_for_by_a_run_that_fails(tmp_path: Path) -> None:
    """The other writer never comes; without a word this took `WAIT_SECONDS`."""
    started = time.monotonic()
    with pytest.raises(KeyError):
        _fails(tmp_path)
    assert time.monotonic() - started < WAIT_SECONDS / 10
    assert load_newest(tmp_path) is None


def test_another_error_is_not_hidden_by_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyError):
        _breaks(tmp_path / "file")
