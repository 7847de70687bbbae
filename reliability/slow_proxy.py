"""`python slow_proxy.py PORT TARGET SECONDS`: forward a local port, every byte so much later, both ways together."""

import asyncio
import sys
from contextlib import suppress


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float) -> None:
    """Copy what comes, `delay` seconds later."""
    call_later = asyncio.get_running_loop().call_later
    with suppress(OSError):  # reset by one end: close the other
        while data := await source.read(65536):
            call_later(delay, sink.write, data)
    call_later(delay, sink.close)


async def main(port: int, target: int, delay: float) -> None:
    """Accept connections for ever."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, back, delay / 2), pump(upstream, writer, delay / 2))

    server = await asyncio.start_server(accept, "0.0.0.0", port)  # noqa: S104 - a pod's own network
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
