"""What is said of a cluster that cannot be used, before Ray itself is asked, which would try for minutes.

Covers tlkit/fleet/cluster.py.
"""

from __future__ import annotations

import socket
import sys
import threading

import pytest

from tlkit.errors import UnavailableError
from tlkit.fleet.cluster import RayExecutor, _knock

SETTINGS = b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64"  # RFC 9113, 6.5: length, type, flags, stream, one setting


def answering(said: bytes) -> int:
    """Return the port of a server that says this to whoever comes first, and then hangs up."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with server, server.accept()[0] as caller:
            caller.sendall(said)

    threading.Thread(target=answer, daemon=True).start()
    return int(server.getsockname()[1])


def test_who_speaks_as_ray_does_is_taken_for_it() -> None:
    _knock("127.0.0.1", answering(SETTINGS))


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail.example.com\r\n", b"", b"\0\0"])
def test_others_are_not(said: bytes) -> None:
    with pytest.raises(OSError, match=r"not Ray|reset"):
        _knock("127.0.0.1", answering(said))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        _knock("127.0.0.1", port)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnavailableError, match="Ray is not installed") as raised:
        RayExecutor("tests.fleet.entries:run", "auto")
    assert "tlkit[ray]" in (raised.value.hint or "")
