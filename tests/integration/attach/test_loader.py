"""A program that is in the middle of loading a library goes on loading it, whoever attaches meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from giltrace.errors import TargetError
from giltrace.launch.attach import inject
from giltrace.launch.attach.footprint import Footprint
from giltrace.launch.attach.inherited import InheritedLock
from giltrace.launch.attach.process import Blocked, Process
from giltrace.launch.attach.session import attach
from giltrace.launch.attach.target import Target
from giltrace.timeline.load import load
from tests.attaching import ROOT
from tests.interpreters import Interpreter
from tests.tracing import TARGETS

pytestmark = pytest.mark.needs("cc")

_READ, _FUTEX = 0, 202


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("slow") / "slow.so"
    source = TARGETS / "slow_loader.c"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", out, source], check=True, timeout=60)
    return out


class Loading:
    """The program, with a thread inside the loader."""

    def __init__(self, python: Path | str, place: str, library: Path) -> None:
        words = [str(python), str(TARGETS / "slow_loader.py"), place, str(library)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready"
        # Both sleep in a read: the main thread for its input, the other one in the library.
        while self.sleeping(_READ) < 2:
            time.sleep(0.001)
        self.tids = Process(self.process.pid).tids()

    def sleeping(self, number: int) -> int:
        """How many threads sleep in that system call."""
        process, found = Process(self.process.pid), 0
        for tid in process.tids():
            try:
                blocked = process.blocked(tid)
            except OSError:
                continue
            found += isinstance(blocked, Blocked) and blocked.number == number
        return found

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, word: str) -> str:
        """Say a word and return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.line()

    def __enter__(self) -> Loading:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


@pytest.fixture(params=["constructor", "destructor", "walk"])
def loading(interpreter: Interpreter, library: Path, request: pytest.FixtureRequest) -> Iterator[Loading]:
    with Loading(interpreter.path, request.param, library) as program:
        yield program


@pytest.mark.on_some
def test_attaching_waits_for_the_loader_and_the_program_does_not_wait_for_it(loading: Loading, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "giltrace", "attach", str(loading.process.pid), "--light", "-d", "50ms"]
    with subprocess.Popen([*words, "-o", tmp_path / "x"], cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        while loading.sleeping(_FUTEX) == 0:
            assert started.poll() is None, started.communicate()[1]
            time.sleep(0.001)
        for _ in range(3):
            assert loading.say("go on") == "go on"
        assert loading.say("release") == "outside"
        _, said = started.communicate(timeout=60)
    assert started.returncode == 0, said
    assert load(tmp_path / "x.giltrace").violations == ()
    assert loading.say("go on") == "go on"


def test_a_library_that_never_loads_is_told_and_left_alone(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loading(sys.executable, "constructor", library) as program:
        monkeypatch.setattr(inject, "CALL_SECONDS", 0.2)
        for _ in range(3):
            with pytest.raises(TargetError, match="loading another library") as refused:
                attach(program.process.pid, tmp_path / "x.giltrace", [], depth=0, seconds=0.01)
            assert "--observe" in refused.value.remedy
            assert not (tmp_path / "x.giltrace").exists()
            assert program.say("go on") == "go on"
            # Our thread does not wait there for ever.
            assert Process(program.process.pid).tids() == program.tids
        monkeypatch.undo()
        assert program.say("release") == "outside"
        attach(program.process.pid, tmp_path / "x.giltrace", [], depth=0, seconds=0.01)
        assert program.say("go on") == "go on"


COUNTED = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
typedef int callback(struct dl_phdr_info *, size_t, void *);
int calls;
int dl_iterate_phdr(callback *visit, void *data) {
    int (*next)(callback *, void *) = dlsym(RTLD_NEXT, "dl_iterate_phdr");
    __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    return next(visit, data);
}
"""


def test_the_list_of_loaded_objects_is_not_asked_for(interpreter: Interpreter, tmp_path: Path) -> None:
    """That takes a lock, with which a child would be born that another thread forks meanwhile."""
    counted = tmp_path / "counted.so"
    words = ["cc", "-shared", "-fPIC", "-o", str(counted), "-x", "c", "-"]
    subprocess.run(words, input=COUNTED, text=True, check=True, timeout=60)
    program = f"""if 1:
        import ctypes, sys
        calls = ctypes.c_int.in_dll(ctypes.CDLL({str(counted)!r}), "calls")
        print("ready", flush=True)
        for line in sys.stdin:
            print(calls.value, flush=True)
    """
    words = [str(interpreter.path), "-c", program]
    pipe, env = subprocess.PIPE, {**os.environ, "LD_PRELOAD": str(counted)}
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        said = []
        for _ in range(3):
            process.stdin.write("how many\n")
            process.stdin.flush()
            said.append(process.stdout.readline())
            attach(process.pid, tmp_path / "x.giltrace", [], depth=16, seconds=0.01, force=True)
        process.stdin.close()
    assert said == said[:1] * 3


INHERITS = """
import ctypes, os, sys, threading
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
def visit(*_):
    inside.set()
    leave.wait()
    return 1
def have_lock():
    ctypes.CDLL(None).dl_iterate_phdr(visit, None)
inside, leave = threading.Event(), threading.Event()
thread = threading.Thread(target=have_lock)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    ctypes.CDLL(sys.argv[1])
    print("loaded", flush=True)
    os._exit(0)
print(thread.native_id, child, flush=True)
status = os.waitpid(child, 0)[1]
leave.set()
thread.join()
print(status, flush=True)
"""


def test_a_lock_that_a_child_has_of_a_thread_that_it_has_not_is_set_free(
    interpreter: Interpreter, library: Path
) -> None:
    """glibc's `fork` leaves it taken. Where musl's is, the child has it free."""
    words = [str(interpreter.path), "-W", "ignore", "-c", INHERITS, str(library)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        owner, child = map(int, process.stdout.readline().split())
        while not isinstance(Process(child).blocked(child), Blocked):
            time.sleep(0.001)
        footprint = Footprint()
        InheritedLock(Target(Process(process.pid)), owner, footprint).look()
        assert process.stdout.read().split() == ["loaded", "0"]
    assert [tid for tid, _, _ in footprint.stops] == [child]


@pytest.mark.rarely
@pytest.mark.timeout(1200)
def test_no_child_waits_for_ever_of_those_that_are_forked_meanwhile(library: Path, tmp_path: Path) -> None:
    """Of 200 first attaches to a program that forks all the time, some ten met a fork at the wrong moment."""
    forks = tmp_path / "forks.so"
    words = ["cc", "-shared", "-fPIC", "-o", str(forks), str(TARGETS / "forks.c"), "-lpthread", "-ldl"]
    subprocess.run(words, check=True, timeout=60)
    program = f"""if 1:
        import ctypes, sys
        forks = ctypes.CDLL({str(forks)!r})
        path = ctypes.create_string_buffer({str(library).encode()!r})
        forks.begin(path)
        print("ready", flush=True)
        sys.stdin.readline()
        print(forks.end())
    """
    for _ in range(200):
        words = [sys.executable, "-c", program]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            attach(process.pid, tmp_path / "x.giltrace", [], depth=16, seconds=0.1, force=True)
            try:
                out, _ = process.communicate("end\n", timeout=60)
            finally:
                process.kill()
            assert process.returncode == 0
            assert int(out) > 10
