"""A TCP proxy that can stop forwarding: connections stay open, new ones are accepted, no data passes.

With a TLS context it also speaks TLS for a PostgreSQL that was built without.
"""

import socket
import ssl
import threading


class Proxy:
    """Forwards 127.0.0.1:`port` to another port of this machine."""

    def __init__(self, target: int, tls: ssl.SSLContext | None = None):
        self.target, self.tls = target, tls
        self.flowing = threading.Event()
        self.flowing.set()
        self.sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self.flowing.clear()

    def thaw(self) -> None:
        self.flowing.set()

    def close(self) -> None:
        self.thaw()
        for sock in [self.listener, *self.sockets]:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self.flowing.wait()
        if self.tls:
            client.recv(8)  # SSLRequest, to which the server answers yes
            client.sendall(b"S")
            try:
                client = self.tls.wrap_socket(client, server_side=True)
            except OSError:  # the client rejected the certificate
                client.close()
                return
        server = socket.create_connection(("127.0.0.1", self.target))
        self.sockets += [client, server]
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.flowing.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return
