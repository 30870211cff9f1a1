import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trimodal import lock
from trimodal.errors import ConfigError, StorageError
from trimodal.lock import Lock


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_one_holds_it_at_a_time(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ".lock" if kind == "file" else tmp_path
    with (
        Lock(path, "it"),
        pytest.raises(ConfigError, match=r"^it is in use by another process$"),
        Lock(path, "it"),
    ):
        pass
    with Lock(path, "it"):
        pass
    assert list(tmp_path.iterdir()) == ([path] if kind == "file" else [])


def test_it_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from trimodal.lock import Lock; "
        "lock = Lock(pathlib.Path(sys.argv[1]), 'it').__enter__(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    with Lock(tmp_path, "it"):
        pass


def test_a_forked_process_does_not_hold_it(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with Lock(tmp_path, "it"):
        child = os.fork()
        if not child:
            ours.close()
            theirs.send(b"there")
            theirs.recv(1)  # until the other end is closed
            os._exit(0)
        theirs.close()
        assert ours.recv(5) == b"there"
    try:
        with Lock(tmp_path, "it"):
            pass
    finally:
        ours.close()
        assert os.waitpid(child, 0)[1] == 0


def test_where_nothing_can_be_locked_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="it cannot be used: No such file"):
        Lock(tmp_path / "nowhere" / ".lock", "it").__enter__()


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", fail)
    with pytest.raises(StorageError, match="it cannot be locked: Function not implemented"):
        Lock(tmp_path, "it").__enter__()
