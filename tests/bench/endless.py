"""
A seller on EvoLink's wire that takes every order at once and whose tasks never end.

It shares the cores with what is measured, so it is a bare protocol that answers from a few bytes made
beforehand; it does not look at keys, nor at what is ordered.
"""

import asyncio
import itertools
import re
import sys
from typing import cast

import uvloop

_TASK = (
    b'{"id":"%s","object":"video.generation.task","created":1757169743,"model":"seedance-2.0",'
    b'"progress":%d,"status":"%s"}'
)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)")
_numbers = itertools.count(1)


def _answer(first_line: bytes) -> bytes:
    if first_line.startswith(b"POST"):
        body = _TASK % (b"task-unified-%016d" % next(_numbers), 0, b"pending")
    else:
        task_id = first_line.split(b" ", 2)[1].rpartition(b"/")[2]
        body = _TASK % (task_id, 30, b"processing")
    return _HEAD % len(body) + body


class _Line(asyncio.Protocol):
    def __init__(self) -> None:
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        data = self._held + data if self._held else data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            head = data[:end].lower()
            named = _LENGTH.search(head)
            size = int(named[1]) if named else 0
            if len(data) < end + 4 + size:
                break
            self._transport.write(_answer(data[: data.index(b"\r")]))
            if b"connection: close" in head:
                self._transport.close()
            data = data[end + 4 + size :]
        self._held = data


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Line, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
