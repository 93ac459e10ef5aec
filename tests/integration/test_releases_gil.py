"""`assert_releases_gil` on functions of real libraries, whichever way they are, with a core less than they want."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.tracing import TARGETS

RELEASE = {
    "zlib.compress",
    "bz2.compress",
    "lzma.compress",
    "hashlib.sha256 of 30 MB",
    "time.sleep",
    "socket.recv",
    "sqlite3 execute",
    "numpy dot",
    "Pillow resize",
}
HOLD = {
    "re backtracking",
    "json.dumps",
    "json.load",
    "sorted",
    "hashlib.sha256 of 1 kB",
    "numpy of objects",
    "pandas groupby with a lambda",
    "bytes.translate",
}


def test_real_functions_are_told_apart() -> None:
    command = [sys.executable, str(TARGETS / "releases.py"), "2", "2"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    found = json.loads(ran.stdout)
    assert {name for name, told in found.items() if not any(told)} == RELEASE, ran.stdout
    assert {name for name, told in found.items() if all(told)} == HOLD, ran.stdout
