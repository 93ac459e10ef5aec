"""A real Prometheus that scrapes, keeps rules and answers queries."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

SECONDS = 90.0


def available() -> bool:
    """Whether there is a Prometheus."""
    return shutil.which("prometheus") is not None and shutil.which("promtool") is not None


class Prometheus:
    """Scrapes `targets` ("127.0.0.1:1234") each second, with the `rules` of a file: a context."""

    def __init__(self, folder: Path, targets: Sequence[str], rules: str = "", *options: str) -> None:
        self._folder, self._options = folder, options
        folder.mkdir(exist_ok=True)
        (folder / "rules.yml").write_text(rules or "groups: []\n")
        job = {"job_name": "test", "scrape_interval": "1s", "static_configs": [{"targets": list(targets)}]}
        interval = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"}
        told = {"global": interval, "rule_files": ["rules.yml"], "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(json.dumps(told))  # JSON is YAML

    def __enter__(self) -> Prometheus:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self._url = f"http://{address}/api/v1/"
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        self._log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            [*command, f"--web.listen-address={address}", *self._options],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def _ask(self, what: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self._url}{what}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
            told = json.load(answer)
        assert told["status"] == "success"
        return told["data"]

    def query(self, query: str) -> list[dict[str, Any]]:
        """What a query returns now: {"metric": labels, "value": [time, text]} each. AssertionError if it is none."""
        try:
            data = self._ask("query", query=query)
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                raise  # it has only begun
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def value(self, query: str) -> float:
        """The one value that a query returns."""
        (one,) = self.query(query)
        return float(one["value"][1])

    def alerts(self) -> set[str]:
        """The names of the alerts that fire."""
        return {one["labels"]["alertname"] for one in self._ask("alerts")["alerts"] if one["state"] == "firing"}

    def wait_until(self, what: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
        """Wait until `what` is so; else `told` says what was so instead."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                if what():
                    return
            except (urllib.error.URLError, ConnectionError):
                assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, told()
            time.sleep(0.1)
