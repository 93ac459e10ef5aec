"""`giltrace view` without a browser: what it prints, how it ends, what it leaves behind, what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from giltrace.exporters.perfetto import trace as perfetto
from tests.integration.test_record import THREADS
from tests.synthetic import make_process, make_timeline


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "giltrace", *map(str, words)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = tmp_path_factory.mktemp("view") / "x"
    record = command("record", "--light", "--python", sys.executable, "-o", name, "-c", THREADS)
    subprocess.run(record, check=True, capture_output=True, timeout=90)
    return name


@contextmanager
def serving(scratch: Path, *words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `giltrace view --print-url`; the process and the address of the trace."""
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen(
        command("view", "--print-url", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            page = process.stdout.readline().strip() + "/"
            yield process, page
        finally:
            process.kill()


def fetch(page: str, name: str) -> bytes:
    with urllib.request.urlopen(page + name, timeout=60) as answer:
        content: bytes = answer.read()
        return content


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_the_trace_and_ends_cleanly(recording: Path, tmp_path: Path, ending: signal.Signals) -> None:
    with serving(tmp_path, recording) as (process, page):
        assert fetch(page, "x.pftrace") == recording.with_suffix(".pftrace").read_bytes()
        process.send_signal(ending)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_cut_trace_is_gone_with_the_view(recording: Path, tmp_path: Path) -> None:
    whole = recording.with_suffix(".pftrace").read_bytes()
    with serving(tmp_path, recording, "--top-waits", 1) as (process, page):
        assert len(list(tmp_path.iterdir())) == 1
        assert 0 < len(fetch(page, "x.pftrace")) < len(whole)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []
    assert recording.with_suffix(".pftrace").read_bytes() == whole


def test_without_a_display_the_address_is_printed(recording: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    with subprocess.Popen(
        command("view", recording), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "no browser could be started" in process.stderr.read()


def test_the_browser_is_given_the_address(recording: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {told}\n')
    browser.chmod(0o700)
    with subprocess.Popen(
        command("view", recording),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"BROWSER": f"{browser} %s"},
    ) as process:
        address = told.read_text()
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert "visStart=" in answer.url
        assert fetch(f"{address}/", "x.pftrace")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--at", "1h"], "is no duration"),
        (["--at", "900s"], "there is nothing at 900 s"),
        (["--at", "1@2"], "there is no wait 1@2"),
        (["--window", "1"], "is no window"),
        (["--window", "2s..1s"], "ends before it begins"),
        (["--window", "900s.."], "there is nothing from 900 s on the recording is "),
        (["--top-waits", "0"], "--top-waits"),
        (["--online", "--port", "80"], "port 9001 only"),
    ],
)
def test_mistakes_are_expected_errors(recording: Path, options: list[str], message: str) -> None:
    done = subprocess.run(
        command("view", recording, "--print-url", *options), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_trace_alone_cannot_be_cut(tmp_path: Path) -> None:
    perfetto.write(make_timeline(make_process()), tmp_path / "alone.pftrace")
    view = command("view", tmp_path / "alone.pftrace", "--top-waits", 1, "--print-url")
    done = subprocess.run(view, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "needs the recording" in done.stderr


def test_what_does_not_exist_is_an_expected_error(tmp_path: Path) -> None:
    done = subprocess.run(command("view", tmp_path / "gone"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "there is no recording" in done.stderr
