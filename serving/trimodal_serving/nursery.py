"""A process that has imported everything heavy and forks the processes of models in no time.

nursery = await Nursery.start(); child = await nursery.spawn(Setting("runs/demo/model"))
"""

import asyncio
import contextlib
import errno
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from trimodal_serving.channel import Channel
from trimodal_serving.logs import log_to_stderr

if TYPE_CHECKING:
    from trimodal_serving.backend import Setting

END_SECONDS = 5.0
BRIEF_SECONDS = 5.0
"""A nursery that lived no longer is not replaced at once, but after twice the time of the last."""
LONGEST_PAUSE = 30.0
MOST_BYTES = 1 << 16
"""Of a message to or from the nursery; each is one packet."""

logger = logging.getLogger(__name__)


class NurseryLostError(Exception):
    """The nursery has ended, or does not answer."""


@dataclass(frozen=True)
class Child:
    """A process that was forked."""

    pid: int
    handle: int
    """A file descriptor of the process, which never becomes that of another (pidfd_open(2))."""
    channel: Channel

    def kill(self) -> None:
        """End it, whatever it does; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def release(self) -> None:
        """Forget it."""
        self.channel.close()
        os.close(self.handle)


class Nursery:
    """The nursery as its parent sees it; closing it, or the end of the parent, ends all children.

    It imports torch, transformers and the model's code once, and never computes, so it has one
    thread and its memory is shared with its children until they write to it.
    """

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._busy = asyncio.Lock()

    @classmethod
    async def start(cls) -> "Nursery":
        """Start it, and wait until it has imported everything.

        Raises:
            NurseryLostError: it ended before.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # Ctrl-C is for the server, which then ends us; a session of its own would be
                # scheduled apart, and starve beside a server that refuses as fast as it can
                process_group=0,
                stdin=subprocess.DEVNULL,
            )
        nursery = cls(process, ours)
        try:
            await asyncio.to_thread(nursery._receive)
        except BaseException:
            process.kill()
            nursery._end()
            raise
        return nursery

    async def spawn(self, setting: "Setting") -> Child:
        """Fork a process that serves a model.

        Raises:
            NurseryLostError: the nursery is gone.
            OSError: there are no descriptors left for it.
        """
        async with self._busy:
            ours, theirs = socket.socketpair()
            with theirs:
                message = json.dumps(setting.tree()).encode()
                try:
                    socket.send_fds(self._control, [message], [theirs.fileno()])
                except OSError:
                    ours.close()
                    raise NurseryLostError from None
            try:
                tree, handles = await asyncio.to_thread(self._receive)
            except RuntimeError:  # no thread; its answer would be taken for that to the next one
                ours.close()
                self._process.kill()
                raise NurseryLostError from None
            except NurseryLostError:
                ours.close()
                raise
            if not handles:
                ours.close()  # by which the child knows that nobody talks to it
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return Child(tree["pid"], handles[0], await Channel.open(ours))

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        try:
            data, handles, _, _ = socket.recv_fds(self._control, MOST_BYTES, 1)
        except OSError:
            data, handles = b"", []
        if not data:
            raise NurseryLostError
        return json.loads(data), handles

    async def ended(self) -> None:
        """Return once its process has ended, by whatever.

        Raises:
            OSError: there are no descriptors left.
        """
        over = asyncio.Event()
        try:
            handle = os.pidfd_open(self._process.pid)
        except ProcessLookupError:
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(handle, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)

    async def close(self) -> None:
        """End it and all its children."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class LastingNursery:
    """A nursery for several, started when it is first needed, and again as soon as it ends."""

    def __init__(self) -> None:
        self._nursery: Nursery | None = None
        self._starting = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None
        self._closed = False

    async def spawn(self, setting: "Setting") -> Child:
        """Fork a process that serves a model.

        Raises:
            NurseryLostError: the nursery is gone; the next call has another.
            OSError: no process can be started.
        """
        nursery = await self._running()
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())
        try:
            return await nursery.spawn(setting)
        except NurseryLostError:
            await self._forget(nursery)
            raise

    async def _running(self) -> Nursery:
        """The one that there is, or another."""
        async with self._starting:
            if self._closed:
                raise NurseryLostError
            if self._nursery is None:
                self._nursery = await Nursery.start()
            return self._nursery

    async def _forget(self, nursery: Nursery) -> None:
        if self._nursery is nursery:
            self._nursery = None
            await nursery.close()

    async def _keep(self) -> None:
        """Start another when one ends, so that it has imported everything when it is needed."""
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause + 0.1)
            try:
                nursery = await self._running()
                born = time.monotonic()
                await nursery.ended()
                logger.error("the nursery ended, another is started")
                await self._forget(nursery)
                pause = 0.0 if time.monotonic() - born > BRIEF_SECONDS else pause
            except NurseryLostError:
                logger.error("no nursery can be started, it ended while it imported")
            except OSError as error:
                logger.error("no nursery can be started: %s", error.strerror)
            except Exception:  # without threads, for one; there may be some again
                logger.exception("no nursery can be started")

    async def close(self) -> None:
        """End it and all its children; there is none any more."""
        self._closed = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        async with self._starting:
            nursery, self._nursery = self._nursery, None
        if nursery is not None:
            await nursery.close()


def main(control: socket.socket) -> None:
    """Fork a child for each message until the parent is gone."""
    log_to_stderr()
    for name in ("trimodal.models.generation", "trimodal_serving.backend"):
        importlib.import_module(name)  # a child would need seconds for it
    gc.collect()
    gc.freeze()  # the collector of a child leaves shared pages alone
    control.send(json.dumps({"kind": "ready"}).encode())
    children: dict[int, int] = {}
    while True:
        poll = select.poll()
        for number in (control.fileno(), *children):
            poll.register(number, select.POLLIN)
        for number, _ in poll.poll():
            if number != control.fileno():
                os.waitpid(children.pop(number), 0)
                os.close(number)
            elif not _fork(control, children):
                for handle, pid in children.items():
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    os.waitpid(pid, 0)
                return


def _fork(control: socket.socket, children: dict[int, int]) -> bool:
    """Fork as one message says; False if the parent is gone."""
    data, handles, _, _ = socket.recv_fds(control, MOST_BYTES, 1)
    if not data:
        return False
    sock = socket.socket(fileno=handles[0])
    pid = os.fork()
    if pid == 0:
        control.close()
        for handle in children:
            os.close(handle)
        _live(sock, json.loads(data))
    sock.close()
    handle = os.pidfd_open(pid)
    children[handle] = pid
    socket.send_fds(control, [json.dumps({"pid": pid}).encode()], [handle])
    return True


def _live(sock: socket.socket, tree: dict[str, Any]) -> NoReturn:
    """The life of a child."""
    from trimodal_serving.backend import Setting, serve

    code = 1
    try:
        serve(sock, Setting(**tree))
        code = 0
    except BaseException:  # nothing of the parent's must run in a child
        logger.exception("the process of the model failed")
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
