"""The other projects' own loaders and schemas, from their npm packages: found where `.ci/setup viewers` puts them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

#: A folder with `node_modules`, as `npm install --prefix` makes it.
ROOT = Path(os.environ.get("GILTRACE_VIEWERS", "/opt/giltrace-viewers"))

SPEEDSCOPE_SCHEMA = ROOT / "node_modules" / "speedscope" / "dist" / "release" / "file-format-schema.json"
PROFILER_CLI = ROOT / "node_modules" / "@firefox-devtools" / "profiler-cli" / "dist" / "profiler-cli.js"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


def has_axe() -> bool:
    return AXE.is_file()


def has_speedscope() -> bool:
    return SPEEDSCOPE_SCHEMA.is_file()


def has_profiler_cli() -> bool:
    return shutil.which("node") is not None and PROFILER_CLI.is_file()


class FirefoxProfiler:
    """The Firefox Profiler's own code with one profile loaded; use it as a context manager, for it runs a daemon."""

    def __init__(self, profile: Path, folder: Path) -> None:
        self._profile = profile
        environ = os.environ | {"PROFILER_CLI_SESSION_DIR": str(folder), "PROFILER_CLI_NO_SYMBOLICATE": "1"}
        self._environ = environ

    def __enter__(self) -> FirefoxProfiler:
        self._run("load", str(self._profile))
        return self

    def __exit__(self, *_: object) -> None:
        self._run("stop")

    def ask(self, *words: str) -> Any:
        """Run a command and return its JSON."""
        return json.loads(self._run(*words, "--json"))

    def _run(self, *words: str) -> str:
        command = ["node", str(PROFILER_CLI), *words]
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
