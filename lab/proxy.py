"""A TCP proxy that makes a network worse: slower, silent or cut.

The lab's machine may have no netem, so latency comes from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

CHUNK = 65536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST (socket(7))."""


class Proxy:
    """Carries connections from a port on loopback to one address, for as long as its ``with`` block lasts.

    Attributes may be changed while connections are open.

    :param host: where connections go.
    :param port: the port there.
    :param delay: seconds that every byte is late in each direction; a round trip takes twice that. Bytes
        follow each other as fast as they came, so the bandwidth stays as it is.
    :ivar port: the port on 127.0.0.1 to connect to.
    :ivar connections: how many connections it has accepted.
    :ivar carried: bytes that it has passed on, both ways.
    """

    def __init__(self, host: str, port: int = 22, *, delay: float = 0.0) -> None:
        self.delay = delay
        self.port = 0
        self.connections = 0
        self.carried = 0
        self._target = (host, port)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {host}", daemon=True)
        self._flowing = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Reset every connection that is open now; later ones are carried."""
        self._wait(self._reset())

    def refuse(self) -> None:
        """Reset every connection, and accept none from now on."""
        self._wait(self._reset(listening=False))

    def stall(self) -> None:
        """Pass nothing on from now on: connections stay open, and silent, as behind a dead router."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def resume(self) -> None:
        """Pass on again, first what came in the meantime."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        await self._reset(listening=False)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reset(self, *, listening: bool = True) -> None:
        if not listening:
            self._server.close()
        for writer in list(self._open):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # Closing the proxy cancels this task; asyncio's server would log that as an error of its callback.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            onward_reader, onward_writer = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, onward_writer))
                both.create_task(self._carry(onward_reader, writer))
        writer.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Pass on one direction until its end, each chunk ``delay`` after it came."""
        sink.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(sink)
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)
        passing = asyncio.create_task(self._pass_on(queue, sink))
        try:
            while (chunk := await self._read(source)) and not passing.done():
                await queue.put((self._loop.time() + self.delay, chunk))
            await queue.put((self._loop.time() + self.delay, b""))
            await passing
        finally:
            passing.cancel()
            self._open.discard(sink)
            sink.close()

    async def _read(self, source: asyncio.StreamReader) -> bytes:
        """The next bytes; none at the end, which a reset is too."""
        with contextlib.suppress(OSError):
            return await source.read(CHUNK)
        return b""

    async def _pass_on(self, queue: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        """Write what is due; an empty chunk is the end of the stream."""
        while True:
            due, chunk = await queue.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            await self._flowing.wait()
            if not chunk:
                return
            try:
                sink.write(chunk)
                await sink.drain()
            except OSError:
                # The other direction reads the same socket, sees its end, and closes our source.
                return
            self.carried += len(chunk)
