"""Ports for the servers that tests start."""

import errno
import random
import socket

_LISTENING = range(10_000, 32_000)
"""Below those that Linux gives to connections: between the look at a port and the start of its server nothing of the
tests' own traffic can take it."""


def free_port() -> int:
    """One that nobody listens at."""
    while True:
        port = random.SystemRandom().choice(_LISTENING)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
        else:
            return port
