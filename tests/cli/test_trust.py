"""A server behind TLS with a certificate of a private authority."""

import http.server
import shutil
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetrail.client.errors import ServerUnreachable
from finetrail.client.transport import Transport
from tests.certificates import make_certificate

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="it needs openssl")


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(url: str) -> int:
    transport = Transport(url, None, patience_s=0)
    try:
        return transport.call("GET", "/").status_code
    finally:
        transport.close()


def test_the_authorities_of_ssl_cert_file_are_trusted(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    assert ask(url) == 200


def test_a_certificate_that_is_not_trusted_is_called_so(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)

    with pytest.raises(ServerUnreachable, match="its certificate is not trusted; SSL_CERT_FILE"):
        ask(url)
