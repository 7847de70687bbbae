"""A load generator that costs less than what it measures: raw sockets, kept open, one thread each.

`python -m benchmarks.service.load PORT CLIENTS SECONDS RATE COUNT` reads one request (bytes) from standard input and
prints JSON: requests/s, p50 and p99 in milliseconds, the number of answers other than 2xx. RATE 0 means as fast as
possible, COUNT 0 no limit of requests.
"""

import json
import socket
import sys
import threading
import time


def client(
    port: int, request: bytes, end: float, gap: float, count: int, seconds: list[float], bad: list[bytes]
) -> None:
    """Send the request on one connection until `end`, and append each answer's seconds and each bad answer's head."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.perf_counter()
        while due < end and (not count or len(seconds) < count):
            if gap:
                time.sleep(max(0.0, due - time.perf_counter()))
            started = due if gap else time.perf_counter()  # a late start counts as waiting
            sock.sendall(request)
            head = receive(sock)
            now = time.perf_counter()
            seconds.append(now - started)
            if not head.startswith(b"HTTP/1.1 2"):
                bad.append(head)
            due = due + gap if gap else now


def receive(sock: socket.socket) -> bytes:
    """Read a whole answer and return its head."""
    data = sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    missing = length - len(body)
    while missing > 0:
        missing -= len(sock.recv(65536))
    return head


def main() -> None:
    """Run the clients, and print the figures of all."""
    port, clients = int(sys.argv[1]), int(sys.argv[2])
    duration, rate, count = float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
    request = sys.stdin.buffer.read()
    seconds: list[float] = []
    bad: list[bytes] = []
    end = time.perf_counter() + duration
    gap = clients / rate if rate else 0.0
    arguments = (port, request, end, gap, count, seconds, bad)
    threads = [threading.Thread(target=client, args=arguments) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds.sort()
    print(
        json.dumps(
            {
                "rate": len(seconds) / duration,
                "p50": 1000 * seconds[len(seconds) // 2],
                "p99": 1000 * seconds[len(seconds) * 99 // 100],
                "bad": len(bad),
                "first": bad[0][:300].decode(errors="replace") if bad else "",
            }
        )
    )


if __name__ == "__main__":
    main()
