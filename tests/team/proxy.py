"""A connection in between that can be made slow: bytes pass as they are, TLS and all."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def slow(port: int, seconds: float) -> Iterator[int]:
    """A port that leads to another one and holds back each of its answers; yields it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, port, seconds), daemon=True).start()
        yield int(server.getsockname()[1])


def _accept(server: socket.socket, port: int, seconds: float) -> None:
    # Closing the server ends this.
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            behind = socket.create_connection(("127.0.0.1", port))
            for one, other, wait in ((client, behind, 0.0), (behind, client, seconds)):
                threading.Thread(target=_pass, args=(one, other, wait), daemon=True).start()


def _pass(one: socket.socket, other: socket.socket, seconds: float) -> None:
    with suppress(OSError):
        while data := one.recv(1 << 16):
            time.sleep(seconds)
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
