"""Whether well-known programs run under giltrace as they do without: status, output and CPU time.

    python benchmarks/hosts.py [--python PATH] [--only gevent,celery] [--ways light,record] [--rounds 3] [--markdown]

Each host is a program in benchmarks/hosts/ that ends by itself and prints the same each time; those whose packages the
interpreter PATH lacks are left out. The ways take turns within a round. A row tells whether status and both streams
were the bare program's in every round, and the median of the ratios of CPU time (of the program and all children that
it waited for) to the bare run of the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.tables import show

HOSTS = Path(__file__).parent / "hosts"
WAYS = ("light", "record", "spans", "attach")
GILTRACE = [sys.executable, "-m", "giltrace"]
OPTIONS = {"light": ["--light"], "record": [], "spans": ["--spans"]}
LIMIT_SECONDS = 300
TRIES = 3
#: Where the name of what is imported is not that of the host.
MODULES = {"dask": "distributed", "pyinstaller": "PyInstaller", "embedding": ""}


@dataclass(frozen=True)
class Run:
    """How a host ended: `said` are both streams; `trouble` is why it does not count, if so."""

    status: int
    said: tuple[str, str]
    cpu: float
    trouble: str = ""

    def differs(self, bare: Run) -> str:
        """What is not as in the bare run, in a word; "" if nothing."""
        if self.trouble:
            return self.trouble
        if self.status != bare.status:
            return f"status {self.status}"
        return "" if self.said == bare.said else "output"


def main() -> None:
    """Run what is asked for and print the table."""
    names = sorted(path.stem.removeprefix("with_") for path in HOSTS.glob("with_*.py"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--only", default=",".join(names))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    ways = given.ways.split(",")
    rows = []
    for name in given.only.split(","):
        with tempfile.TemporaryDirectory(prefix="giltrace-hosts-") as scratch:
            version = prepare(name, given.python, Path(scratch))
            if version is not None:
                rows.append([name, version, *measure(name, given.python, ways, given.rounds, Path(scratch))])
                print(rows[-1], file=sys.stderr)
    show(["host", "version", "bare", *ways], rows, markdown=given.markdown)


def prepare(name: str, python: str, scratch: Path) -> str | None:
    """Build what the host needs; its version, None where it cannot run."""
    module = MODULES.get(name, name)
    code = f"import importlib.metadata as m; print(m.version({module!r}))" if module else "print('')"
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if asked.returncode:
        return None
    if "def prepare()" in (HOSTS / f"with_{name}.py").read_text():
        subprocess.run([python, HOSTS / f"with_{name}.py", "prepare"], cwd=scratch, check=True, capture_output=True)
    return asked.stdout.strip()


def measure(name: str, python: str, ways: list[str], rounds: int, scratch: Path) -> list[str]:
    """The bare CPU time, and for each way what differed or the ratio."""
    bares: list[Run] = []
    runs: dict[str, list[tuple[Run, Run]]] = {way: [] for way in ways}
    for _ in range(rounds):
        bares.append(run(name, "bare", python, scratch))
        for way in ways:
            runs[way].append((run(name, way, python, scratch), bares[-1]))
    cells = [f"{statistics.median(bare.cpu for bare in bares):.2f} s"]
    failed = sorted({f"status {bare.status}" for bare in bares if bare.status})
    if failed:  # then it is no host that works, and its row says nothing
        cells[0] = f"**{', '.join(failed)}** ({cells[0]})"
    for pairs in runs.values():
        wrong = sorted({one.differs(bare) for one, bare in pairs} - {""})
        ratio = statistics.median(one.cpu / bare.cpu for one, bare in pairs)
        cells.append(f"**{', '.join(wrong)}** ({ratio:.2f})" if wrong else f"{ratio:.2f}")
    return cells


def run(name: str, way: str, python: str, scratch: Path) -> Run:
    """Run a host once."""
    result = scratch / "result"
    for path in scratch.glob("result*"):
        path.unlink()
    command = [python, str(HOSTS / "launch.py"), str(result), python, str(HOSTS / f"with_{name}.py")]
    if way in OPTIONS:
        command = [*GILTRACE, "record", *OPTIONS[way], "-f", "-o", str(scratch / "x"), "--", *command]
    environment = {**os.environ, "HOST_SCRATCH": str(scratch)}
    silent = subprocess.DEVNULL
    streams = {"stdin": silent, "stdout": silent, "stderr": silent}
    with subprocess.Popen(command, cwd=scratch, env=environment, **streams, start_new_session=True) as process:
        trouble = attach(Path(f"{result}.pid"), scratch) if way == "attach" else ""
        try:
            process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Run(-1, ("", ""), 0.0, f"not over after {LIMIT_SECONDS} s")
    ended = json.loads(Path(f"{result}.json").read_text())
    said = tuple(Path(f"{result}{stream}").read_text(errors="replace") for stream in (".out", ".err"))
    return Run(ended["status"], (said[0], said[1]), ended["cpu"], trouble)


def attach(pid_file: Path, scratch: Path) -> str:
    """Attach for a second to the busiest process of the host; what went wrong, "" if nothing."""
    deadline = time.monotonic() + 10
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    trouble = ""
    for _ in range(TRIES):  # the busiest may be a loader, or something short
        time.sleep(1.5)  # it has begun its work by then
        pid = max(below(int(pid_file.read_text())), key=used)
        command = [*GILTRACE, "attach", "--light", "-d", "1s", "-f", "-o", str(scratch / "x"), str(pid)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode == 0:
            return ""
        trouble = trouble or f"not attached: {ran.stderr.strip().splitlines()[0][:60]}"
    return trouble


def below(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(_fields(stat)[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def used(pid: int) -> int:
    """The CPU time of a process, in the kernel's unit, -1 if it is gone."""
    try:
        fields = _fields(Path(f"/proc/{pid}/stat"))
        return int(fields[11]) + int(fields[12])
    except (OSError, IndexError):
        return -1


def _fields(stat: Path) -> list[str]:
    return stat.read_text(errors="replace").rpartition(")")[2].split()


if __name__ == "__main__":
    main()
