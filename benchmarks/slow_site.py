"""A loopback site that thinks for a while before each answer, in a process of its own.

Run by `fetch.py`: `python slow_site.py FOLDER SECONDS` prints its address template, and ends when
its standard input does.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d*)", re.IGNORECASE)


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, folder: Path, latency: float
) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(latency)
            method, path, _ = head.split(b" ", 2)
            writer.write(respond(method, folder / path.decode().lstrip("/"), head))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def respond(method: bytes, file: Path, head: bytes) -> bytes:
    body = file.read_bytes()
    asked = _RANGE.search(head)
    start, stop = 0, len(body)
    status, more = b"200 OK", b""
    if asked:
        start, stop = int(asked[1]), min(len(body), int(asked[2] or len(body)) + 1)
        status = b"206 Partial Content"
        more = b"Content-Range: bytes %d-%d/%d\r\n" % (start, stop - 1, len(body))
    answered = b"HTTP/1.1 %s\r\nContent-Type: audio/mp4\r\nAccept-Ranges: bytes\r\n%s" % (
        status,
        more,
    )
    answered += b"Content-Length: %d\r\n\r\n" % (stop - start)
    return answered if method == b"HEAD" else answered + body[start:stop]


async def serve(folder: Path, latency: float) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, folder, latency)

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/{{video_id}}.m4a", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
