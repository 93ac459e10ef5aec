"""`giltrace metrics`: a command or a process that counts, told to Prometheus, OpenTelemetry, programs and people."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed

from giltrace.metrics.families import FAMILIES
from tests.interpreters import Interpreter
from tests.metrics_command import GILTRACE, Counting, lines, metrics
from tests.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
#: A child besides, so many holds in each; ends as it is told.
FAMILY = """
import os, subprocess, sys, time
def hold(times):
    for _ in range(times):
        time.sleep(0)
if len(sys.argv) > 1:
    hold(300)
else:
    subprocess.run([sys.executable, "-c", open("/proc/self/cmdline").read().split("\\0")[2], "child"], check=True)
    pid = os.fork()
    if pid == 0:
        hold(200)
        os._exit(0)
    os.waitpid(pid, 0)
    hold(100)
    %s
"""
#: Runs already: says so, and goes on until its input ends.
RUNS = """
import sys, threading, time
def hold():
    while True:
        time.sleep(0.001)
thread = threading.Thread(target=hold, name="holder-1", daemon=True)
thread.start()
print("ready", flush=True)
sys.stdin.read()
print("as it was", flush=True)
"""


def told(ran: subprocess.CompletedProcess[str]) -> str:
    """One line that says what is wrong, and one with what to do."""
    first, second = ran.stderr.splitlines()[-2:]
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert second.startswith("  ")
    return first


@contextmanager
def running(python: str | Path = sys.executable, code: str = RUNS) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([str(python), "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def went_on(process: subprocess.Popen[str]) -> bool:
    """Whether the program goes on as it would have, to its end."""
    output, _ = process.communicate(timeout=60)
    return output == "as it was\n" and process.returncode == 0


@contextmanager
def looking(*words: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [*GILTRACE, "metrics", *words]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_all_python_processes_below_a_command_are_counted(any_interpreter: Interpreter) -> None:
    if any_interpreter.free_threaded:
        pytest.skip("it has no GIL")
    words = ["metrics", "--json", "--", str(any_interpreter.path), "-c", FAMILY % ""]
    ran = subprocess.run([*GILTRACE, *words], capture_output=True, text=True, timeout=100, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    last = lines(ran)[-1]
    assert last["ended_processes"] == 3
    holds = sum(role["total"]["holds"] for role in last["roles"])
    assert holds >= 600
    buckets = [sum(role["total"]["hold_lengths"]) for role in last["roles"]]
    assert sum(buckets) == holds


@pytest.mark.parametrize("end", ["sys.exit(7)", "os.kill(os.getpid(), 15)", "os.kill(os.getpid(), 9)"])
def test_it_ends_as_the_command_did(end: str) -> None:
    bare = subprocess.run([sys.executable, "-c", FAMILY % end], check=False, timeout=60)
    ran = metrics("--json", code=FAMILY % end)
    assert ran.returncode == bare.returncode
    assert lines(ran)[-1]["ended_processes"] == 3


def test_the_command_has_its_input_and_output() -> None:
    ran = metrics("--listen", "127.0.0.1:0", code="print(input()[::-1])", input="olleh\n")
    assert (ran.returncode, ran.stdout) == (0, "hello\n")


def test_intervals_add_up_to_the_sums() -> None:
    told = lines(metrics("--json", "--interval", "100ms", code="import time\nfor _ in range(400): time.sleep(0.001)"))
    assert len(told) > 2
    for figure in ("holds", "held", "waits", "waited"):
        added = sum(role[figure] for line in told for role in line["roles"])
        assert added == pytest.approx(sum(role["total"][figure] for role in told[-1]["roles"]))


def test_a_process_that_runs_is_counted_and_left_as_it_was(interpreter: Interpreter) -> None:
    with running(interpreter.path) as process, looking("--json", "--interval", "200ms", str(process.pid)) as look:
        assert look.stdout is not None
        for line in look.stdout:
            (one,) = json.loads(line)["processes"]
            assert one["pid"] == process.pid
            roles = {role["role"]: role["total"]["holds"] for role in json.loads(line)["roles"]}
            if roles.get("holder-*", 0) > 50:  # Python's name, although the thread was there before
                break
        look.send_signal(signal.SIGINT)
        assert look.communicate(timeout=60)[1] == ""
        assert look.returncode == 0
        assert went_on(process)


def test_a_process_that_does_nothing_is_there() -> None:
    idle = "print('ready', flush=True)\ninput()"
    with running(code=idle) as process, looking("--json", "--interval", "100ms", str(process.pid)) as look:
        assert look.stdout is not None
        seen = json.loads(look.stdout.readline())
        assert [one["pid"] for one in seen["processes"]] == [process.pid]
        assert (seen["busiest"], seen["roles"]) == (0, [])
        look.send_signal(signal.SIGINT)
        assert look.communicate(timeout=60)[1] == ""


def test_it_ends_with_the_process() -> None:
    with running() as process, looking("--json", "--interval", "100ms", str(process.pid)) as look:
        assert look.stdout is not None
        assert json.loads(look.stdout.readline())["processes"]
        assert went_on(process)
        rest, errors = look.communicate(timeout=60)
        assert (look.returncode, errors) == (0, "")
        assert json.loads(rest.splitlines()[-1])["ended_processes"] == 1


def test_a_process_that_counts_already_is_read() -> None:
    with running() as process, looking("--json", "--interval", "100ms", str(process.pid)) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with looking("--json", "--interval", "100ms", str(process.pid)) as second:
            assert second.stdout is not None
            for line in second.stdout:
                if sum(role["holds"] for role in json.loads(line)["roles"]) > 10:
                    break
            first.send_signal(signal.SIGTERM)
            first.communicate(timeout=60)
            second.communicate(timeout=60)
            assert (first.returncode, second.returncode) == (0, 0)
        assert went_on(process)


def test_all_that_fit_are_counted_those_that_come_later_too() -> None:
    mark = f"giltrace-test-holder-{os.getpid()}-all"
    with looking("--json", "--interval", "200ms", "--match", f"*{mark}*") as look:
        code = f"{RUNS}# {mark}"
        assert look.stdout is not None
        with running(code=code) as one:
            _wait_for(look, lambda line: [each["pid"] for each in line["processes"]] == [one.pid])
            with running(code=code) as other:
                both = sorted((one.pid, other.pid))
                _wait_for(look, lambda line: sorted(each["pid"] for each in line["processes"]) == both)
                assert went_on(other)
            _wait_for(look, lambda line: line["ended_processes"] == 1)
            before = _wait_for(look, lambda line: True)
            after = _wait_for(look, lambda line: bool(line["roles"]))
            total = [sum(role["total"]["holds"] for role in line["roles"]) for line in (before, after)]
            assert total[0] <= total[1]
            look.send_signal(signal.SIGTERM)
            look.communicate(timeout=60)
            assert look.returncode == 0
            assert went_on(one)


def test_another_giltrace_is_not_counted_whose_command_line_fits() -> None:
    mark = f"giltrace-test-holder-{os.getpid()}-two"
    pattern = ("--json", "--interval", "200ms", "--match", f"*{mark}*")
    with looking(*pattern) as first, looking(*pattern) as second, running(code=f"{RUNS}# {mark}") as one:
        # Whichever comes first counts it; the other finds it counted.
        both = [first, second]
        seen = [_wait_for(look, lambda line: line["seconds"] > 0) for look in both for _ in range(10)]
        assert {each["pid"] for line in seen for each in line["processes"]} <= {one.pid}
        for look in both:
            look.send_signal(signal.SIGTERM)
            look.communicate(timeout=60)
            assert look.returncode == 0
        assert went_on(one)


def _wait_for(look: subprocess.Popen[str], what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    assert look.stdout is not None
    for text in look.stdout:
        line: dict[str, Any] = json.loads(text)
        if what(line):
            return line
    raise AssertionError("it ended")


def test_prometheus_gets_the_format_that_it_asks_for() -> None:
    names = {family.name for family in FAMILIES}
    with Counting("--listen", "127.0.0.1:0") as counting:
        classic = {family.name: family for family in parsed(counting.scrape())}
        modern = {one.name: one for one in openmetrics(counting.scrape("application/openmetrics-text"))}  # type: ignore[no-untyped-call]
    assert {name.removesuffix("_total") for name in classic} == names == set(modern)
    for family in FAMILIES:
        for sample in modern[family.name].samples:
            assert set(sample.labels) - {"le"} == set(family.labels)
    assert {sample.labels["role"] for sample in modern["python_gil_held_seconds"].samples} >= {"cpu-*", "io-*", "hog"}


def test_it_serves_a_unix_socket_and_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))  # nobody listens there
    with Counting("--listen", f"unix:{path}") as counting:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert b"200 OK" in answer
        assert b"python_gil_held_seconds_total" in answer
        taken = metrics("--listen", f"unix:{path}", code="print('not run')")
        assert told(taken) == f"giltrace: error: cannot listen at unix:{path}: somebody listens there already"
        assert taken.stdout == ""
        assert counting.end() == 0
    assert not path.exists()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    name = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*made, *name], check=True, capture_output=True)
    return cert, key


@pytest.mark.needs("openssl")
def test_it_serves_by_tls_and_a_silent_client_keeps_nobody_waiting(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with Counting("--listen", "127.0.0.1:0", "--tls-cert", str(cert), "--tls-key", str(key)) as counting:
        url = counting.url.replace("127.0.0.1", "localhost")
        assert url.startswith("https://")
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))):
            context = ssl.create_default_context(cafile=cert)
            with urllib.request.urlopen(url, context=context, timeout=30) as answer:
                assert b"python_gil_held_seconds_total" in answer.read()


def test_a_port_in_use_is_told_before_anything_is_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = metrics("--listen", address, code="print('not run')")
    assert told(ran) == f"giltrace: error: cannot listen at {address}: somebody listens there already"
    assert ran.stdout == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--json", "999999999"], "there is no process 999999999"),
        (["--listen", "nowhere", "1"], "'nowhere' is no address to listen at"),
        (["--listen", "127.0.0.1:99999", "1"], "'127.0.0.1:99999' is no address to listen at"),
        (["--otlp", "collector:4317", "1"], "'collector:4317' is no URL of a collector"),
        (["--tls-cert", "x", "1"], "--tls-cert is for a server"),
        (["--listen", "127.0.0.1:0", "--tls-key", "x", "1"], "--tls-key has no certificate to it"),
        (["--listen", "127.0.0.1:0", "--tls-cert", "/nowhere", "1"], "cannot use /nowhere: No such file or directory"),
        (["--json", "--interval", "1ms", "1"], "invalid value for --interval: '1ms' is no time between readings"),
        (["--json"], "nothing to count"),
        (["--json", "1", "2"], "'1 2' begins with a PID and goes on"),
        (["--json", "--match", "x", "1"], "--match and a PID or a command are two things to count"),
        (["--output", "x", "1"], "--output is for a command beside the table"),
        (["1"], "the kernel does not let you trace process 1|process 1 |the table needs a terminal"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(words: list[str], says: str) -> None:
    said = told(metrics(*words)).removeprefix("giltrace: error: ")
    assert any(said.startswith(one) for one in says.split("|"))


def test_a_pid_that_is_no_python_is_told_and_left_alone() -> None:
    with subprocess.Popen(["sleep", "100"]) as sleeping:
        assert told(metrics("--json", str(sleeping.pid))) == f"giltrace: error: process {sleeping.pid} is not Python"
        assert sleeping.poll() is None
        sleeping.kill()


@pytest.mark.parametrize(
    ("missing", "words", "says"),
    [
        ("prometheus_client", ["--listen", "127.0.0.1:0"], "prometheus_client is not installed"),
        ("opentelemetry", ["--otlp", "http://127.0.0.1:9"], "the OpenTelemetry SDK is not installed"),
    ],
)
def test_a_missing_extra_is_told_with_what_to_install(missing: str, words: list[str], says: str) -> None:
    run = f"import sys; sys.modules[{missing!r}] = None; from giltrace.cli.app import main; main()"
    command = [sys.executable, "-c", run, "metrics", *words, "-c", "print('not run')"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told(ran).startswith(f"giltrace: error: {says}")
    assert ran.stdout == ""
    assert "install" in ran.stderr.splitlines()[-1]


@pytest.mark.needs("tmux")
def test_the_table_on_a_terminal(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(RUNS.replace("sys.stdin.read()", "time.sleep(2)\nsys.exit(3)"))
    command = [*GILTRACE, "metrics", "--interval", "200ms", str(program)]
    with Terminal(command, tmp_path, 80, 24, PYTHONPATH=str(ROOT)) as terminal:
        screen = terminal.wait_for(r"holder-\* +1 ")
        assert "giltrace metrics" in screen
        terminal.wait_for(r"ended with status 3; q quits")
        terminal.press("q")
        terminal.wait_for("(?m)^$")
        assert terminal.status() == 0
        assert "ready" in (tmp_path / "errors").read_text()
        assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


@pytest.mark.needs("tmux")
def test_ctrl_c_ends_the_table_of_a_process(tmp_path: Path) -> None:
    with running() as process:
        command = [*GILTRACE, "metrics", "--interval", "200ms", str(process.pid)]
        with Terminal(command, tmp_path, 80, 24, PYTHONPATH=str(ROOT)) as terminal:
            terminal.wait_for(r"holder-\* +1 ")
            terminal.press("C-c")
            assert terminal.status() == 0
        assert went_on(process)
