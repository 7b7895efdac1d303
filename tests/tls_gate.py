"""A gate before a PostgreSQL server that was built without TLS: who does not encrypt is refused."""

import contextlib
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""How a client asks for TLS: https://www.postgresql.org/docs/current/protocol-message-formats.html."""


class Gate:
    """Answers as PostgreSQL does, and passes on to the server what comes through TLS."""

    def __init__(self, server: tuple[str, int], certificate: str, key: str) -> None:
        self._server = server
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder, "chain.pem")
            chain.write_text(key + certificate)
            self._context.load_cert_chain(chain)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.passed = 0
        """Connections that were encrypted."""

    @contextlib.contextmanager
    def open(self) -> Iterator["Gate"]:
        """Serve until the context ends."""
        threading.Thread(target=self._serve, daemon=True).start()
        try:
            yield self
        finally:
            self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._admit, args=(client,), daemon=True).start()

    def _admit(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if client.recv(len(_SSL_REQUEST), socket.MSG_WAITALL) != _SSL_REQUEST:
                return
            client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as encrypted,
                socket.create_connection(self._server) as server,
            ):
                first = encrypted.recv(65536)
                if not first:  # TLS 1.3 tells the server last that its certificate was refused
                    return
                self.passed += 1
                server.sendall(first)
                back = threading.Thread(target=_pump, args=(server, encrypted), daemon=True)
                back.start()
                _pump(encrypted, server)
                back.join(5)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
