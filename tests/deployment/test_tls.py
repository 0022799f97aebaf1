"""The kit's certificates in real handshakes: the right server is taken, all others are refused."""

import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from hanse.security import certificates, kits
from patience import patience


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A server's kit."""
    return kits.init(tmp_path / "kit", ["fl.example.org"], 30).folder


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """A TLS server with the kit's certificate, for one connection; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(5)
        try:
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.sendall(b"hello")
        except OSError:  # the client has refused
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def hello(port: int, authority: Path, host: str, old: bool = False) -> bytes:
    """What a client hears that trusts this authority alone and looks for this host."""
    context = ssl.create_default_context(cafile=str(authority))
    if old:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", port), timeout=patience(60)) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        return secured.recv(5)


@pytest.mark.parametrize("host", ["fl.example.org", "localhost", "127.0.0.1"])
def test_the_right_server_is_taken(folder: Path, host: str) -> None:
    with serving(folder) as port:
        assert hello(port, folder / "ca.crt", host) == b"hello"


def test_plaintext_is_refused(folder: Path) -> None:
    with (
        serving(folder) as port,
        socket.create_connection(("127.0.0.1", port), timeout=patience(60)) as plain,
    ):
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        heard = b""
        try:
            while block := plain.recv(4096):
                heard += block
        except ConnectionResetError:
            pass
    assert b"hello" not in heard


def test_an_old_version_of_tls_is_refused(folder: Path) -> None:
    with serving(folder) as port, pytest.raises(ssl.SSLError):
        hello(port, folder / "ca.crt", "localhost", old=True)


def test_another_authority_is_refused(folder: Path, tmp_path: Path) -> None:
    other = kits.init(tmp_path / "other", ["fl.example.org"], 30).folder
    with (
        serving(other) as port,
        pytest.raises(ssl.SSLCertVerificationError, match=r"certificate verify failed"),
    ):
        hello(port, folder / "ca.crt", "localhost")


def test_another_host_is_refused(folder: Path) -> None:
    with (
        serving(folder) as port,
        pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for"),
    ):
        hello(port, folder / "ca.crt", "fl.example.com")


@pytest.mark.parametrize(
    ("early", "days", "said"),
    [(timedelta(days=3), -1, "expired"), (timedelta(days=-1), 3, "not yet valid")],
)
def test_a_certificate_out_of_its_time_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, early: timedelta, days: int, said: str
) -> None:
    monkeypatch.setattr(certificates, "EARLY", early)
    certificates.server(folder, ["localhost"], days)
    with serving(folder) as port, pytest.raises(ssl.SSLCertVerificationError, match=said):
        hello(port, folder / "ca.crt", "localhost")
