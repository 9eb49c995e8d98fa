"""A loopback site that delays each response, in a process of its own.

Run by `fetch.py`: `python slow_site.py FOLDER SECONDS` prints its URL template, and exits at the
end of its standard input.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

_TYPES = {".m3u8": b"application/vnd.apple.mpegurl", ".ts": b"video/mp2t"}
_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d*)", re.IGNORECASE)


async def respond(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, folder: Path, latency: float
) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(latency)
            method, path, _ = head.split(b" ", 2)
            writer.write(response_bytes(method, folder / path.decode().lstrip("/"), head))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def response_bytes(method: bytes, file: Path, head: bytes) -> bytes:
    body = file.read_bytes()
    requested = _RANGE.search(head)
    start, stop = 0, len(body)
    status, content_range = b"200 OK", b""
    if requested:
        start, stop = int(requested[1]), min(len(body), int(requested[2] or len(body)) + 1)
        status = b"206 Partial Content"
        content_range = b"Content-Range: bytes %d-%d/%d\r\n" % (start, stop - 1, len(body))
    headers = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nAccept-Ranges: bytes\r\n%s" % (
        status,
        _TYPES.get(file.suffix, b"audio/mp4"),
        content_range,
    )
    headers += b"Content-Length: %d\r\n\r\n" % (stop - start)
    return headers if method == b"HEAD" else headers + body[start:stop]


async def serve(folder: Path, latency: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await respond(reader, writer, folder, latency)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/{{video_id}}.m4a", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
