"""The process that opens files, without the process."""

import resource
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from trimodal.media import recording
from trimodal_serving import opening
from trimodal_serving.opening import Pipe, main


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """To the loop of the process in a thread, whose limits would be those of the tests."""
    monkeypatch.setattr(opening, "_bound", lambda: None)
    monkeypatch.setattr(opening, "_allow", lambda _: None)
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    threading.Thread(target=main, args=[theirs], daemon=True).start()
    return Pipe(ours)


def test_a_picture_comes_back_as_its_pixels(pipe: Pipe, png: bytes) -> None:
    for _ in range(2):
        pipe.send({"max_pixels": 63}, png)
        said, data = pipe.receive()
        assert said == {"shape": [7, 9, 3]}
        assert bytes(data) == bytes(range(189))


def test_a_recording_comes_back_as_its_samples(pipe: Pipe, wav: bytes) -> None:
    pipe.send({"max_seconds": 1.0}, wav)
    said, data = pipe.receive()
    assert said == {"shape": [8_000], "rate": 16_000}
    assert np.array_equal(np.frombuffer(data, np.float32), recording.read(wav, 1.0)[0])


def test_a_refusal_is_told_and_the_next_file_is_opened(pipe: Pipe, png: bytes, wav: bytes) -> None:
    for limit, file, code in (
        ({"max_pixels": 62}, png, "image_too_large_pixels"),
        ({"max_pixels": 63}, wav, "invalid_image"),
        ({"max_seconds": 0.1}, wav, "audio_too_long"),
    ):
        pipe.send(limit, file)
        said, data = pipe.receive()
        assert (said["code"], data) == (code, b"")
        assert "\n" not in said["message"]
    pipe.send({"max_pixels": 63}, png)
    assert pipe.receive()[0]["shape"] == [7, 9, 3]


def test_it_ends_when_memory_has_run_out(
    pipe: Pipe, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(opening.picture, "read", read)
    pipe.send({"max_pixels": 63}, png)
    assert pipe.receive()[0] == {"code": "memory"}


LIMITS = """
import resource, sys
from trimodal_serving import opening
opening._bound()
opening._allow(3)
print([resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in
       ("AS", "NOFILE", "FSIZE", "CORE", "CPU")], sorted({"torch"} & set(sys.modules)))
"""


def test_its_process_is_bound_and_knows_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITS], capture_output=True, text=True, check=True, timeout=60
    )
    limits, modules = done.stdout.rsplit(" ", 1)
    memory, files, written, core, seconds = map(int, limits.strip("[]").split(", "))
    assert 1 << 30 < memory < 3 << 30
    assert (files, written, core) == (16, 0, 0)
    assert 4 <= seconds <= 7
    assert modules == "[]\n"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0, "the limits are those of a child"
