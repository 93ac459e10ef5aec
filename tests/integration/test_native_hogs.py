"""The native functions of hogs, on real programs: exact where they have a name, and never another's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import giltrace
from giltrace.collectors import _perf
from giltrace.collectors.sched import SchedCollector
from giltrace.recording.code_samples import read_code_samples
from giltrace.recording.events import NativeFunction
from giltrace.recording.maps_file import MAPS
from giltrace.recording.native_code import read_native_code
from giltrace.recording.sched import read_sched
from tests.attaching import is_at_work
from tests.collecting import record as record_with
from tests.interpreters import Interpreter
from tests.native_hogs import PROGRAM, build
from tests.tracing import TARGETS, waiting

pytestmark = pytest.mark.skipif(_perf.why_not() is not None, reason=f"needs perf: {_perf.why_not()}")

GILTRACE = [sys.executable, "-m", "giltrace"]


def record(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [*GILTRACE, "record", "--light", "-o", "x", *map(str, words)]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran


def report(folder: Path) -> dict[str, Any]:
    told = subprocess.run([*GILTRACE, "report", "x", "--json"], cwd=folder, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def hogs(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The hogs of all processes with the names of their threads, sorted by these."""
    found = [(hog["site"]["thread"], hog) for one in report(folder)["processes"] for hog in one["hogs"]]
    return sorted(found, key=lambda pair: pair[0])


def of_library(hog: dict[str, Any], library: Path) -> dict[tuple[str, str], int]:
    """In which functions of the library a hog was found, with the callers that they are told by, and how often."""
    return {(f["name"], f["caller"]): f["samples"] for f in hog["functions"] if f["file"] == str(library)}


def check(hog: dict[str, Any], library: Path, name: str, caller: str = "") -> None:
    """All that was seen of a hog in the library was this function, and that was nearly all of it."""
    ((key, samples),) = of_library(hog, library).items()
    assert key == (name, caller)
    assert samples >= 0.9 * hog["samples"] > 9
    assert (hog["c_function"] or "") == name


def test_the_function_of_each_hog_is_named_in_every_process(tmp_path: Path, interpreter: Interpreter) -> None:
    library = build(tmp_path, "plain")
    words = ("exported:here", "call_hidden:here", "call_hidden:child", "exported:exec")
    record(tmp_path, "--python", interpreter.path, PROGRAM, library, *words)
    found = hogs(tmp_path)
    assert [name for name, _ in found] == ["call_hidden", "call_hidden", "exported", "exported"]
    for name, hog in found:
        check(hog, library, "hidden" if name == "call_hidden" else "exported")


@pytest.mark.parametrize(("kind", "caller"), [("stripped", ""), ("framed", "call_hidden"), ("leafless", "")])
def test_what_has_no_symbol_is_called_nothing_else(tmp_path: Path, kind: str, caller: str) -> None:
    library = build(tmp_path, kind)
    record(tmp_path, PROGRAM, library, "exported:here", "call_hidden:here")
    (_, hidden), (_, exported) = hogs(tmp_path)
    check(exported, library, "exported")
    check(hidden, library, "", caller)
    ran = subprocess.run([*GILTRACE, "report", "x"], cwd=tmp_path, capture_output=True, text=True, check=True)
    page = " ".join(ran.stdout.split())
    called = f", called from {caller}" if caller else ""
    assert f"In C: a function without a name of {library.name}{called} 100.0%" in page
    assert f"In C: exported 100.0% ({library.name}, " in page
    assert "nearest" not in page


def tell(process: subprocess.Popen[str], word: str) -> None:
    """Have it do something, and wait until that is done."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_attaching_knows_what_was_mapped_before(tmp_path: Path, interpreter: Interpreter) -> None:
    library = build(tmp_path, "plain")
    with waiting(interpreter.path, PROGRAM, library) as process:
        words = [*GILTRACE, "attach", str(process.pid), "--light", "-o", str(tmp_path / "x")]
        attached = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        while not is_at_work(tmp_path / "x.giltrace"):
            assert attached.poll() is None, attached.communicate()[1]
            time.sleep(0.01)
        tell(process, "call_hidden:here")
        tell(process, "exported:child")
        attached.send_signal(signal.SIGINT)
        said = attached.communicate(timeout=60)[1]
        assert attached.returncode == 0, said
    found = hogs(tmp_path)
    assert [name for name, _ in found] == ["call_hidden", "exported"]
    check(found[0][1], library, "hidden")
    check(found[1][1], library, "exported")


def test_a_ring_that_has_turned_over_knows_what_was_mapped_before(tmp_path: Path) -> None:
    folder = tmp_path / "x.giltrace"
    folder.mkdir()
    library = build(tmp_path, "plain")
    collector = SchedCollector(ring=1 << 18)
    # On one core, so that all its records are in one ring.
    core = str(min(os.sched_getaffinity(0)))
    program = [sys.executable, PROGRAM, library, "40000", "exported:here", "40000", "exported:here"]
    command = ["taskset", "--cpu-list", core, *program]
    # Nobody writes that it is a Python: its name among the files of the tracer says so.
    status, (said,) = record_with(folder, [collector], command, lambda pid: (folder / f"gil-{pid}-0.bin").touch())
    assert (status, said.status) == (0, "ok")
    whole = b"".join(path.read_bytes() for path in folder.glob("sched-*.bin"))
    assert str(library).encode() not in whole
    assert str(library).encode() in (folder / MAPS).read_bytes()
    seen = read_native_code(folder)
    counts = Counter(seen.functions[one] for one in seen.samples["function"].tolist())
    assert counts[NativeFunction("exported", str(library))] > 10


def test_dumps_of_the_flight_recorder_have_names(tmp_path: Path) -> None:
    library = build(tmp_path, "plain")
    pipe = subprocess.PIPE
    words = [*GILTRACE, "record", "-o", "app", "--ring", "4MiB", str(PROGRAM), str(library)]
    with subprocess.Popen(words, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True) as recorder:
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == "ready\n"
        tell(recorder, "call_hidden:here")
        children = Path(f"/proc/{recorder.pid}/task/{recorder.pid}/children").read_text().split()
        dumped = [*GILTRACE, "dump", children[0], "-o", "x"]
        subprocess.run(dumped, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        recorder.communicate()
    ((_, hog),) = hogs(tmp_path)
    check(hog, library, "hidden")


def test_what_kept_no_core_busy_was_not_seen(tmp_path: Path) -> None:
    code = "import ctypes, threading, time\n"
    code += "threading.Thread(target=lambda: [time.sleep(0.001) for _ in range(9)]).start()\n"
    code += "ctypes.PyDLL(None).usleep(200000)"
    record(tmp_path, "-c", code)
    ((_, hog),) = hogs(tmp_path)
    assert (hog["samples"], hog["functions"], hog["c_function"], hog["c_file"]) == (0, [], None, None)


@pytest.mark.needs("perf")
def test_perf_sees_the_same(tmp_path: Path) -> None:
    """Its samples are its own: of functions that it found often, giltrace found the same share, by the same names."""
    library = build(tmp_path, "plain")
    code = "import threading, random\ndata = [random.random() for _ in range(10**6)]\n"
    code += "def hog():\n    for _ in range(6): sorted(data)\n"
    code += "thread = threading.Thread(target=hog)\nthread.start()\nthread.join()"
    (tmp_path / "sorts.py").write_text(code)
    for program in ((tmp_path / "sorts.py",), (PROGRAM, library, "call_hidden:here", "exported:here")):
        perf = ["perf", "record", "-q", "-e", "task-clock:u", "-c", "3000000", "-o", "perf.data", "--"]
        words = [*GILTRACE, "record", "--light", "-f", "-o", "x", *map(str, program)]
        subprocess.run([*perf, *words], cwd=tmp_path, check=True, capture_output=True)
        script = ["perf", "script", "-i", "perf.data", "-F", "tid,ip,sym,dso", "--max-stack", "1"]
        told = subprocess.run(script, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        theirs = re.findall(r"^ *(\d+) +[0-9a-f]+ (.+) \((.*)\)$", told, re.M)
        code_seen = read_native_code(tmp_path / "x.giltrace")
        (process,) = giltrace.load(tmp_path / "x").timeline.processes
        compared = 0
        for thread in process.threads:
            perf_saw = Counter((name, dso) for tid, name, dso in theirs if int(tid) == thread.tid)
            mine = code_seen.samples[code_seen.samples["tid"] == thread.tid]["function"].tolist()
            we_saw = Counter((code_seen.functions[one].name, code_seen.functions[one].file) for one in mine)
            for (name, dso), count in perf_saw.items():
                share = count / perf_saw.total()
                if count > 30 and share > 0.2 and name != "[unknown]":
                    assert we_saw[name, dso] / we_saw.total() == pytest.approx(share, abs=0.12), (name, dso)
                    compared += 1
        assert compared


def test_where_the_kernel_takes_no_samples_the_rest_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _perf.open_switches

    def refuse(*args: Any, sampling: object = None, **more: Any) -> int:
        if sampling is not None:
            raise OSError(22, "Invalid argument")
        return real(*args, **more)

    monkeypatch.setattr(_perf, "open_switches", refuse)
    status, (said,) = record_with(tmp_path, [SchedCollector()], [sys.executable, "-c", "sum(range(10**6))"])
    assert (status, said.status, said.lost) == (0, "ok", 0)
    assert "no C functions of hogs: the kernel takes no samples (Invalid argument)" in said.cost
    assert len(read_sched(tmp_path).switches) > 0
    assert len(read_code_samples(tmp_path).samples) == 0


def test_without_perf_events_the_report_says_once_what_is_missing(tmp_path: Path) -> None:
    record(tmp_path, "--without", "sched", TARGETS / "native_hogs.py", build(tmp_path, "plain"), "exported:here")
    remarks = report(tmp_path)["quality"]["remarks"]
    assert [remark for remark in remarks if "C function" in remark] == remarks[:1]
    assert not (tmp_path / "x.giltrace" / MAPS).exists()
    assert all(hog["samples"] == 0 for _, hog in hogs(tmp_path))
