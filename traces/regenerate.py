"""Record the samples of this folder again: one of each bundled workload, and the index of all.

    sudo python3 traces/regenerate.py [WORKLOAD]... [--home /opt/giltrace] [--python /usr/bin/python3]
    .venv/bin/python traces/regenerate.py --traces     only write the traces anew, of the recordings that are here

giltrace is installed from this checkout into a new virtual environment at --home, and records from there, so that no
sample has a path of the machine's user in it. A workload that needs a newer Python is recorded by --newer-python, one
that needs a build without a GIL by --free-threaded.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import io
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
CHECKOUT = FOLDER.parent
INDEX = FOLDER / "index.json"

#: What makes each workload short; those that are not here are recorded as they are.
ARGUMENTS: dict[str, list[str]] = {
    "condition_herd": ["--items", "120"],
    "convoy": ["--steps", "40"],
    "cpu_bound": ["--count", "4000000"],
    "lock_convoy": ["--steps", "180"],
    "multiprocess": ["--count", "4000000"],
    "ping_pong": ["--rounds", "500"],
    "queue_pipeline": ["--items", "800"],
    "single": ["--count", "8000000"],
    "switch_interval": ["--steps", "40"],
    "thread_pool_http": ["--requests", "30"],
}
#: Of one sample's files, and of all, in bytes.
LARGEST, LARGEST_TOGETHER = 300_000, 4_000_000


_GIL = ("held_ns", "contended_ns", "holds", "handoffs", "forced")

README = """\
# Samples

A short recording of each workload. A *trace* opens in the Perfetto UI as it is. A *recording* is to be unpacked:

```sh
tar xzf traces/convoy.giltrace.tar.gz
giltrace report convoy
giltrace view convoy
```

Recorded on: {machines}; by giltrace {versions}. `index.json` has what the report says of each; the tests hold every
version to it. `traces/regenerate.py` records them again and writes this page.

| workload | sample | verdict | command | Python | date |
|---|---|---|---|---|---|
{rows}
"""


def main() -> None:
    """Record, pack, and write the index and its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="only these (default: all)")
    parser.add_argument(
        "--home", type=Path, default=Path("/opt/giltrace"), help="where to install (default: %(default)s)"
    )
    parser.add_argument(
        "--python", default="/usr/bin/python3", help="interpreter of the recordings (default: %(default)s)"
    )
    parser.add_argument("--newer-python", default="", help="for workloads that need a newer one")
    parser.add_argument("--free-threaded", default="", help="for workloads that need a Python without a GIL")
    parser.add_argument("--traces", action="store_true", help="write the traces anew, of the recordings that are here")
    options = parser.parse_args()
    if options.traces:
        rewrite()
        return
    giltrace = install(options.home, options.python)
    programs = sorted(p.stem for p in (CHECKOUT / "workloads").glob("*.py") if not p.stem.startswith("_"))
    samples = json.loads(INDEX.read_text()) if options.workloads and INDEX.exists() else {}
    for name in options.workloads or programs:
        needed = re.search(r"^Needs: Python [\d.]+(t?)", (CHECKOUT / "workloads" / f"{name}.py").read_text(), re.M)
        other = options.free_threaded if needed and needed[1] else options.newer_python
        samples[name] = record(giltrace, name, other if needed else "")
    samples = {name: samples[name] for name in sorted(samples) if name in programs}
    INDEX.write_text(json.dumps(samples, indent=1, ensure_ascii=False) + "\n")
    (FOLDER / "README.md").write_text(readme(samples))
    check_sizes(samples)


def install(home: Path, python: str) -> Path:
    """Install this checkout into a new virtual environment at `home`; return its ``giltrace``."""
    subprocess.run([python, "-m", "venv", "--clear", home], check=True)
    with tempfile.TemporaryDirectory() as name:
        # A copy, since building writes the library beside its sources.
        source = shutil.copytree(
            CHECKOUT, Path(name, "giltrace"), ignore=shutil.ignore_patterns(".git", ".venv", "build", "traces")
        )
        subprocess.run([home / "bin/python", "-m", "pip", "install", "--quiet", source], check=True)
    return home / "bin/giltrace"


def record(giltrace: Path, name: str, python: str) -> dict[str, Any]:
    """Record the workload `name` into this folder; return its entry of the index."""
    arguments = ARGUMENTS.get(name, [])
    chosen = ["--python", python] if python else []
    # viztracer would slow the calls that the sample is to show.
    command = ["giltrace", "record", "--without", "viztracer", *chosen, name, *arguments]
    with tempfile.TemporaryDirectory() as work:
        recording, trace = Path(work, f"{name}.giltrace"), Path(work, f"{name}.pftrace")
        subprocess.run([giltrace, *command[1:]], cwd=work, check=True, env=_clean(), stderr=subprocess.DEVNULL)
        told = subprocess.run([giltrace, "report", recording, "--json"], check=True, capture_output=True, text=True)
        pack(recording, FOLDER / f"{name}.giltrace.tar.gz")
        _pack_trace(name, trace)
        meta = json.loads((recording / "meta.json").read_text())
    report = json.loads(told.stdout)
    return {
        "command": shlex.join(command),
        "giltrace": meta["giltrace"],
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "python": next(process["python"] for process in report["processes"]),
        "shows": figures(report),
    }


def rewrite() -> None:
    """Write the trace of each sample as this checkout does, with the giltrace of the interpreter that runs this."""
    samples = json.loads(INDEX.read_text())
    for name in samples:
        with tempfile.TemporaryDirectory() as work:
            trace = Path(work, f"{name}.pftrace")
            recording = str(unpack(name, Path(work)))
            command = [sys.executable, "-m", "giltrace", "export", recording, "--to", "perfetto", "-o", str(trace)]
            subprocess.run(command, check=True, capture_output=True)
            _pack_trace(name, trace)
    check_sizes(samples)


def _pack_trace(name: str, trace: Path) -> None:
    (FOLDER / f"{name}.pftrace.gz").write_bytes(gzip.compress(trace.read_bytes(), 9, mtime=0))


def _clean() -> dict[str, str]:
    """An environment that is the same on every machine, and nobody's."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """What a report's JSON says of a sample: the facts that any later version must find in it too."""
    return {
        "lost_events": report["quality"]["lost_events"],
        "invariant_violations": report["quality"]["invariant_violations"],
        "processes": [
            {
                "verdict": process["verdict"]["kind"],
                "summary": process["verdict"]["summary"],
                "duration_ns": process["duration_ns"],
                "gils": [
                    {k: gil[k] for k in ("held_ns", "contended_ns", "holds", "handoffs", "forced")}
                    for gil in process["gils"]
                ],
                "waits": sum(thread["waits"] for thread in process["threads"]),
                "waited_ns": sum(thread["waited_ns"] for thread in process["threads"]),
                "threads": [thread["name"] for thread in process["threads"]],
            }
            for process in report["processes"]
        ],
    }


def machine() -> str:
    """The processor, its cores and the system, in words."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    release = ".".join(platform.release().split(".")[:2])
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, Linux {release}"


def pack(folder: Path, archive: Path) -> None:
    """Write `folder` into `archive`, without its owner and times."""

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in (folder, *sorted(folder.iterdir())):
            tar.add(path, str(path.relative_to(folder.parent)), recursive=False, filter=anonymous)
    archive.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))


def unpack(name: str, folder: Path) -> Path:
    """Unpack the sample `name` into `folder`; return its recording."""
    with tarfile.open(FOLDER / f"{name}.giltrace.tar.gz") as archive:
        # Debian 12's Python has no filters yet, and newer ones ask for one.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return folder / f"{name}.giltrace"


def readme(samples: dict[str, Any]) -> str:
    """The table for those who open this folder."""
    rows = []
    for name, sample in samples.items():
        verdicts = ", ".join(dict.fromkeys(process["verdict"] for process in sample["shows"]["processes"]))
        files = f"[trace]({name}.pftrace.gz), [recording]({name}.giltrace.tar.gz)"
        python = sample["python"].split()[0]
        rows.append(f"| {name} | {files} | {verdicts} | `{sample['command']}` | {python} | {sample['date']} |")
    return README.format(
        machines="; ".join(dict.fromkeys(sample["machine"] for sample in samples.values())),
        versions=", ".join(dict.fromkeys(sample["giltrace"] for sample in samples.values())),
        rows="\n".join(rows),
    )


def check_sizes(samples: dict[str, Any]) -> None:
    """End with an error if a sample is too large."""
    sizes = {name: sum(p.stat().st_size for p in FOLDER.glob(f"{name}.*")) for name in samples}
    print(*(f"{size:8} {name}" for name, size in sizes.items()), f"{sum(sizes.values()):8} together", sep="\n")
    large = [name for name, size in sizes.items() if size > LARGEST]
    if large or sum(sizes.values()) > LARGEST_TOGETHER:
        sys.exit(f"too large: {', '.join(large) or 'all together'}")


if __name__ == "__main__":
    main()
