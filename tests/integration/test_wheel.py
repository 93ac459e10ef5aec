"""The one wheel for every machine and libc: built by ziglang, installed without a compiler, and recording."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from giltrace.recording import layout
from giltrace.recording.events import ProcessEvents
from tests import blocks
from tests.tracing import WORKLOADS, of_kind, overlaps, read
from tests.unit.gil_events import timeline

ROOT = Path(__file__).resolve().parents[2]
#: Interpreters of other kinds, which `.ci/setup` installs: a folder, and what to run in it.
PYTHONS = Path(os.environ.get("GILTRACE_PYTHONS_ROOT", "/opt/giltrace-pythons"))

# Seven minutes on two busy cores: ziglang builds each libc's own parts the first time.
pytestmark = [pytest.mark.needs("ziglang"), pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    left_out = shutil.ignore_patterns(".*", "build", "*.so", "local", "__pycache__", "docs", "tests")
    shutil.copytree(ROOT, source, ignore=left_out)
    # Not by pip, which builds a wheel a first time for its metadata.
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    env = {**os.environ, "GILTRACE_TRACERS": "all"}
    subprocess.run(command, cwd=source, env=env, capture_output=True, check=True, timeout=1100)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder of its own where there is no compiler."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(command, env={**os.environ, "PATH": "/nowhere"}, check=True, timeout=300)
    return folder


def symbols(library: Path) -> str:
    command = ["readelf", "-W", "--dyn-syms", "-V", str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_is_for_all(wheel: Path) -> None:
    for machine in ("x86_64", "aarch64"):
        assert f"manylinux_2_17_{machine}" in wheel.name
        assert f"musllinux_1_1_{machine}" in wheel.name


def test_no_library_asks_for_a_newer_libc_than_it_says(site: Path) -> None:
    libraries = list((site / "giltrace" / "native" / "lib").glob("*.so"))
    assert len(libraries) == 8
    for library in libraries:
        versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)", symbols(library))}
        if library.stem.endswith("musl"):
            assert versions == set()
        else:
            assert versions
            assert max(versions) <= (2, 17)


def test_stub_and_tracers_agree_on_the_block_of_a_thread(site: Path) -> None:
    """One stub serves both libcs, and the tracer takes its word for it."""
    folder = site / "giltrace" / "native" / "lib"
    libraries = [*folder.glob("libgiltrace-*.so"), *folder.glob("preload/*/x86_64/*.so")]
    blocks = {re.search(r"(\d+) TLS +GLOBAL +DEFAULT +\d+ (giltrace_self_\w+)", symbols(path)) for path in libraries}
    assert len({match.groups() for match in blocks if match is not None}) == 1
    assert None not in blocks


def record(site: Path, folder: Path, words: Sequence[str | Path], **variables: str) -> tuple[str, ProcessEvents]:
    """Record with the wheel's giltrace: what the one process that ran printed, and its recording."""
    command = [sys.executable, "-m", "giltrace", "record", "--light", "--without", "sched", "-o", folder, *words]
    env = {**os.environ, "PYTHONPATH": str(site), "PATH": "/nowhere", **variables}
    # Not in the checkout, whose own package would be the first to be found.
    place = folder.parent
    ran = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    (process,) = read(folder.with_name(folder.name + ".giltrace"))
    return ran.stdout, process


def check_convoy(process: ProcessEvents) -> None:
    """The thread that sleeps 200 times gave the GIL up as often, and as it began and ended; nothing is missing."""
    assert process.note == ""
    assert process.lost == 0
    assert overlaps(process.events) == 0
    (sleeper,) = (index for index, thread in enumerate(process.threads) if thread.name == "io-0")
    releases = of_kind(process.events, layout.Kind.RELEASE)
    voluntary = releases[(releases["thread"] == sleeper) & ((releases["flags"] & 1) == 0)]
    assert 200 <= np.count_nonzero(voluntary) <= 203
    assert process.stacks is not None


def check_blocks(printed: str, recorded: ProcessEvents) -> None:
    """Each block that the program tells of is on record, with who ended it."""
    (process,) = timeline([recorded]).processes
    assert process.violations == ()
    blocks.check(process, blocks.entries_of(printed.splitlines()[1]), 0)


def test_it_records_here(site: Path, tmp_path: Path) -> None:
    _, process = record(site, tmp_path / "out", ["convoy"])
    check_convoy(process)


@pytest.mark.needs("musl python")
def test_it_records_on_musl(site: Path, tmp_path: Path) -> None:
    (python,) = (PYTHONS / "musl" / "bin").glob("python3.1?")
    _, process = record(site, tmp_path / "out", ["--python", python, "convoy"])
    check_convoy(process)
    check_blocks(*record(site, tmp_path / "blocks", ["--python", python, blocks.TARGET]))


def under_qemu(suite: str, site: Path, folder: Path, *words: str | Path) -> tuple[str, ProcessEvents]:
    """Run Python for aarch64 with the wheel's tracer: what it printed, and its recording."""
    root = PYTHONS / "arm64" / suite
    (python,) = (path for path in (root / "usr" / "bin").glob("python3.1?") if not path.is_symlink())
    preload = site / "giltrace" / "native" / "lib" / "preload" / platform.machine() / "$PLATFORM"
    (name,) = (path.name for path in preload.iterdir())
    # Qemu's guest alone is to have them.
    variables = [f"LD_PRELOAD={preload / name}", f"GILTRACE_OUT={folder}", "GILTRACE_STACKS=16"]
    guest = [word for variable in variables for word in ("-E", variable)]
    command = ["qemu-aarch64-static", "-L", str(root), *guest, str(python), *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    (process,) = read(folder)
    return ran.stdout, process


on_qemu = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs arm64 by qemu, on x86-64")


@pytest.mark.needs("arm64 python")
@on_qemu
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_it_records_on_aarch64(suite: str, site: Path, tmp_path: Path) -> None:
    folders = tmp_path / "convoy", tmp_path / "blocks"
    for folder in folders:
        folder.mkdir()
    _, process = under_qemu(suite, site, folders[0], WORKLOADS / "convoy.py")
    check_convoy(process)
    check_blocks(*under_qemu(suite, site, folders[1], blocks.TARGET))


@pytest.mark.needs("arm64 python")
@on_qemu
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_it_goes_on_where_a_filter_is_refused_on_aarch64(suite: str, site: Path, tmp_path: Path) -> None:
    """Qemu has no filters: prctl (22) and seccomp (277) fail there, and the tracer has heard of them before."""
    program = """
        import ctypes, threading, time
        libc = ctypes.CDLL(None)
        def step():
            for _ in range(300): time.sleep(0)
        def steps():
            threads = [threading.Thread(target=step, name=f"step-{at}") for at in range(3)]
            for thread in threads: thread.start()
            refused = libc.prctl(22, 1, 0, 0, 0), libc.syscall(277, 1, 0, None)
            for thread in threads: thread.join()
            return refused
        print(steps(), steps())
    """
    printed, process = under_qemu(suite, site, tmp_path, "-c", textwrap.dedent(program))
    assert printed == "(-1, -1) (-1, -1)\n"
    assert (process.note, process.lost, overlaps(process.events)) == ("", 0, 0)
    steppers = [number for number, thread in enumerate(process.threads) if thread.name.startswith("step-")]
    assert len(steppers) == 6
    releases = of_kind(process.events, layout.Kind.RELEASE)
    assert np.count_nonzero(np.isin(releases["thread"], steppers)) >= 6 * 300
