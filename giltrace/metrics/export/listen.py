"""Serve the metrics to Prometheus: over TCP, TLS or a unix socket."""

from __future__ import annotations

import os
import re
import socket
import socketserver
import ssl
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from giltrace import installation
from giltrace.errors import OutputError, UsageError
from giltrace.metrics.totals import Totals

UNIX = "unix:"
_ADDRESS = re.compile(r"(?:(?P<host>[^:\[\]]*|\[[0-9a-fA-F:.]+\]):)?(?P<port>\d{1,5})")
#: How long a client may take to say what it wants, and to take what it gets.
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Address:
    """Where to listen: a `path`, or a `host` and a `port`; 0 is any that is free."""

    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""

    @classmethod
    def of(cls, text: str) -> Address:
        """Read ``127.0.0.1:9464``, ``[::1]:9464``, ``:9464`` (every address), ``9464`` or ``unix:/path``.

        Raises `UsageError`.
        """
        found = _ADDRESS.fullmatch(text)
        if text.startswith(UNIX) and text != UNIX:
            return cls(path=text.removeprefix(UNIX))
        if found is None or int(found["port"]) > 65535:
            raise UsageError(f"{text!r} is no address to listen at", "write 127.0.0.1:9464, or unix:/path")
        host = "127.0.0.1" if found["host"] is None else found["host"].strip("[]")
        return cls(host, int(found["port"]))

    def __str__(self) -> str:
        if self.path:
            return f"{UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host or '0.0.0.0'}:{self.port}"


class Listen:
    """A server for metrics at `address`, which is taken from now on; each scrape asks for the newest totals.

    `url` is where they are.

    Raises `OutputError` if it cannot listen there, `UsageError` without the package that writes the formats or for
    a certificate that cannot be used.
    """

    def __init__(self, address: Address, *, cert: Path | None = None, key: Path | None = None) -> None:
        try:
            from giltrace.metrics.export.prometheus import application
        except ImportError:
            raise UsageError(
                "prometheus_client is not installed, which writes what Prometheus reads",
                installation.with_extra("prometheus"),
            ) from None
        self._application = application
        context = _context(cert, key)
        try:
            self._server = _server(address)
        except OSError as error:
            why = "somebody listens there already" if error.errno == 98 else error.strerror or str(error)
            raise OutputError(f"cannot listen at {address}: {why}", "choose another address for --listen") from None
        self._server.tls = context
        port = address.port if address.path else self._server.server_address[1]
        self.address = Address(address.host, int(port), address.path)
        self.url = f"{address}" if address.path else f"http{'s' if context else ''}://{self.address}/metrics"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="giltrace-metrics", daemon=True
        )

    def begin(self, totals: Callable[[], Totals], first: Totals) -> None:
        """Answer from now on."""
        self._server.set_app(self._application(totals))
        self._thread.start()

    def tell(self, totals: Totals) -> None:
        """Whoever wants to know asks."""

    def leave(self) -> None:
        """In a child of the process that serves: let go of what is the parent's."""
        self._server.socket.close()

    def close(self) -> None:
        """Listen no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        if self.address.path:
            Path(self.address.path).unlink(missing_ok=True)


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads along."""

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            self.close_connection = True  # it has gone, or says nothing


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True
    tls: ssl.SSLContext | None = None
    #: More than so many at once are let wait.
    request_queue_size = 16

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, TLS too: a client that says nothing keeps nobody else waiting."""
        if self.tls is not None:
            request.settimeout(_PATIENCE_SECONDS)
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except (OSError, ValueError):
                self.shutdown_request(request)
                return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error of ours."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _UnixServer(_Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        request, _ = super().get_request()
        return request, ("unix", 0)


def _server(address: Address) -> _Server:
    if not address.path:
        kind = _Server6 if ":" in address.host else _Server
        return kind((address.host, address.port), _Handler)
    _remove_left_over(address.path)
    return _UnixServer(address.path, _Handler)  # type: ignore[arg-type]


def _remove_left_over(path: str) -> None:
    """Remove a socket that nobody listens at any more: one that was killed has left it."""
    try:
        if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:
        return


def _context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        if key is not None:
            raise UsageError("--tls-key has no certificate to it", "give --tls-cert, too")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A password would be asked for on the terminal.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        why = error.strerror if not isinstance(error, ssl.SSLError) and error.strerror else "no certificate and key"
        raise UsageError(f"cannot use {cert}{f' with {key}' if key else ''}: {why}", "give PEM files") from None
    return context
