"""`python slow_proxy.py PORT TARGET SECONDS`: forward a local port, every byte so much later, both ways together."""

import asyncio
import sys

CHUNK = 65536


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not data:
                sink.close()
                return
            sink.write(data)
            await sink.drain()

    task = asyncio.create_task(deliver())
    try:
        while data := await source.read(CHUNK):
            queue.put_nowait((loop.time() + delay, data))
    except OSError:
        pass  # reset by one end: tell the other
    queue.put_nowait((loop.time() + delay, b""))
    await asyncio.gather(task, return_exceptions=True)


async def main(port: int, target: int, delay: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, back, delay / 2), pump(there, writer, delay / 2))

    server = await asyncio.start_server(accept, "0.0.0.0", port)  # noqa: S104 - a pod's own network
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
