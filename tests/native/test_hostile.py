"""Hosts that do what a tracer inside them would not wish for: they must run as without it, and be recorded truly."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from giltrace.recording.events import ProcessEvents
from tests import uprobes
from tests.interpreters import Interpreter
from tests.tracing import of_kind, overlaps, read, traced_environment


def run(
    interpreter: Interpreter, program: str, folder: Path, *words: str | Path, before: Callable[[], None] | None = None
) -> str:
    """Run `program` traced into `folder`; returns what it printed. `before` runs in the child, before Python."""
    return execute([interpreter.path, "-W", "ignore", "-c", textwrap.dedent(program), *words], folder, before)


def execute(
    command: list[str | Path], folder: Path, before: Callable[[], None] | None = None, **variables: str | Path
) -> str:
    """Run `command` traced into `folder`, with `variables` in its environment; returns what it printed."""
    append_pair(folder)
    env = {**traced_environment(folder), **{name: str(value) for name, value in variables.items()}}
    ran = subprocess.run(command, env=env, preexec_fn=before, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def check(process: ProcessEvents) -> None:
    """A GIL was recognised, its holds follow one another, and nothing was lost."""
    assert process.note == ""
    assert process.lost == 0
    assert overlaps(process.events) == 0


def compiled(source: str, out: Path, *words: str | Path) -> Path:
    subprocess.run(
        ["cc", "-x", "c", "-", "-x", "none", "-o", out, *words], input=source, text=True, check=True, timeout=60
    )
    return out


def test_sleeps_in_locks_on_the_way_back_to_the_gil(interpreter: Interpreter, tmp_path: Path) -> None:
    """After a release in C that was asked for, what comes before it is back may fill its chunk, which then goes."""
    program = """
        import functools, operator, sys, threading, time
        sys.setswitchinterval(1e-5)
        lock, call = threading.Lock(), operator.methodcaller("__call__")
        steps = [functools.partial(sum, range(3000)), lock.acquire, functools.partial(time.sleep, 0.0002), lock.release]
        for _ in range(20):
            threads = [threading.Thread(target=list, args=(map(call, steps * 80),)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    """
    run(interpreter, program, tmp_path)
    (process,) = read(tmp_path)
    check(process)
    assert len(of_kind(process.events, layout.Kind.SLEPT)) > 1000


def test_quick_hand_offs_between_cores_are_in_order(interpreter: Interpreter, tmp_path: Path) -> None:
    program = """
        import signal, threading, time
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        def work():
            for _ in range(10000): time.sleep(0)
        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads: t.start()
        work()
        for t in threads: t.join()
        signal.setitimer(signal.ITIMER_REAL, 0, 0)
    """
    run(interpreter, program, tmp_path)
    (process,) = read(tmp_path)
    check(process)
    assert len(of_kind(process.events, layout.Kind.ACQUIRE)) >= 40000


def test_forked_child_with_one_thread_is_a_process_with_a_gil(interpreter: Interpreter, tmp_path: Path) -> None:
    program = """
        import os, sys, time
        os.chdir("/"); os.umask(0o77); os.environ.clear()
        child = os.fork()
        for _ in range(20): time.sleep(0)
        if child: sys.exit(os.waitpid(child, 0)[1])
    """
    run(interpreter, program, tmp_path)
    parent, child = sorted(read(tmp_path), key=lambda process: process.start)
    check(parent)
    check(child)
    assert child.ppid == parent.pid
    assert child.python == parent.python != ""
    assert len(child.gils) == 1
    assert 20 <= len(of_kind(child.events, layout.Kind.ACQUIRE)) < 40


def test_child_that_only_executes_another_program_is_no_process_of_its_own(
    interpreter: Interpreter, tmp_path: Path
) -> None:
    run(interpreter, "import subprocess\nfor _ in range(3): subprocess.run(['true'], check=True)", tmp_path)
    assert len(read(tmp_path)) == 1


@pytest.mark.unsanitized  # asan forks with its own locks taken, and tsan loses count of the threads of children
def test_forks_while_other_threads_start_threads(interpreter: Interpreter, tmp_path: Path) -> None:
    program = """
        import os, threading, time
        ended = False
        def churn():
            while not ended:
                t = threading.Thread(target=sum, args=((),)); t.start(); t.join()
        def fork():
            for _ in range(10):
                child = os.fork()
                if child == 0:
                    t = threading.Thread(target=time.sleep, args=(0,), name="in-child"); t.start(); t.join()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
        others = [threading.Thread(target=churn) for _ in range(2)]
        for t in others: t.start()
        forker = threading.Thread(target=fork); forker.start(); forker.join()
        ended = True
        for t in others: t.join()
    """
    run(interpreter, program, tmp_path)
    processes = read(tmp_path)
    assert len(processes) == 11
    for process in processes:
        check(process)
    named = sum("in-child" in [thread.name for thread in process.threads] for process in processes)
    assert named == 10


@pytest.mark.unsanitized("tsan")  # which has a thread of its own
def test_daemon_that_closes_every_descriptor(interpreter: Interpreter, tmp_path: Path) -> None:
    program = """
        import os, sys, threading, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() != 0: os._exit(os.wait()[1] != 0)
            os.closerange(0, 256)
            assert os.open("/dev/null", os.O_RDWR) == 0
            threads = [threading.Thread(target=lambda: [time.sleep(0) for _ in range(2000)]) for _ in range(2)]
            for t in threads: t.start()
            for t in threads: t.join()
            # A thread that is joined may still be ending, with the tracer's file open for a moment.
            while len(os.listdir("/proc/self/task")) > 1: pass
            os._exit(os.open("/dev/null", os.O_RDWR) != 1)
        sys.exit(os.wait()[1] != 0)
    """
    run(interpreter, program, tmp_path)
    daemon = max(read(tmp_path), key=lambda process: len(process.threads))
    check(daemon)
    assert len(of_kind(daemon.events, layout.Kind.ACQUIRE)) > 4000


@pytest.mark.unsanitized("tsan")  # whose own look at what is written meets the limit
@pytest.mark.parametrize("size", [0, 4096, 65536])
def test_file_size_limit_costs_records_only(interpreter: Interpreter, size: int, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    program = """
        import signal, time
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        for _ in range(20000): time.sleep(0)
        print("unharmed")
    """
    assert run(interpreter, program, tmp_path, before=limit) == "unharmed\n"
    processes = read(tmp_path)
    assert len(processes) == (size >= layout.HEADER_SIZE)
    for process in processes:
        recorded = np.isin(process.events["kind"], (layout.Kind.ACQUIRE, layout.Kind.RELEASE)).sum()
        assert process.lost > 0
        assert process.lost + recorded > 40000


def test_want_of_descriptors_is_counted_and_passes_with_the_thread(interpreter: Interpreter, tmp_path: Path) -> None:
    program = """
        import ctypes, os, resource, threading, time
        ctypes.CDLL("libgcc_s.so.1") # pthread_exit would open it, and abort where it cannot
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        def work():
            for _ in range(50): time.sleep(0)
        def brief(name):
            t = threading.Thread(target=work, name=name); t.start(); t.join()
        brief("before")
        try:
            while True: taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError: pass
        for number in range(8): brief(f"during {number}")
        for each in taken: os.close(each)
        brief("after")
    """
    run(interpreter, program, tmp_path)
    (process,) = read(tmp_path)
    # Those of the first stretch have a small chunk, and lose only what does not fit into it.
    during = [f"during {number}" for number in range(6)]
    assert [thread.name for thread in process.threads] == ["MainThread", "before", *during, "after"]
    lost = [thread.lost for thread in process.threads]
    assert [lost[0], lost[1], lost[-1]] == [0, 0, 0]
    assert all(40 <= each <= 120 for each in lost[2:-1])
    assert process.lost - sum(lost) >= 200


def test_smallest_stacks_are_enough(interpreter: Interpreter, tmp_path: Path) -> None:
    program = """
        import sys, threading, time
        sys.setswitchinterval(0.0005)
        for size in range(32768, 262144, 4096): # the least that this interpreter takes
            try: threading.stack_size(size); break
            except ValueError: pass
        def spin():
            end = time.monotonic() + 0.05
            while time.monotonic() < end: pass
        threads = [threading.Thread(target=spin) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
    """
    run(interpreter, program, tmp_path)
    (process,) = read(tmp_path)
    check(process)
    released = of_kind(process.events, layout.Kind.RELEASE)
    assert np.count_nonzero(released["flags"] & layout.RecordFlag.FORCED) > 0


def test_frames_that_start_bare_threads_keep_their_locals_to_themselves(
    interpreter: Interpreter, tmp_path: Path
) -> None:
    program = """
        import _thread, weakref
        class Thing: pass
        class Look:
            _name = "liar"
            @property
            def _started(self): print("property was run")
            def start(self):
                gate, thing = _thread.allocate_lock(), Thing()
                gate.acquire()
                seen, snapshot = weakref.ref(thing), locals()
                later = 1
                _thread.start_new_thread(gate.release, ())
                gate.acquire()
                snapshot.pop("thing")
                del thing
                print(seen() is None, "later" in snapshot)
        Look().start()
    """
    assert run(interpreter, program, tmp_path) == "True False\n"
    (process,) = read(tmp_path)
    assert "liar" not in [thread.name for thread in process.threads]


#: For `create` and `destroy` of interpreters, as all versions from 3.12 on have them, with a GIL of their own.
INTERPRETERS = """
        import sys
        try: import _interpreters as interpreters
        except ImportError: import _xxsubinterpreters as interpreters
        words = ("isolated",) if sys.version_info >= (3, 13) else ()
"""


@pytest.fixture
def with_own_gils(interpreter: Interpreter) -> Interpreter:
    """An interpreter whose sub-interpreters may have GILs of their own."""
    if interpreter.version < (3, 12):
        pytest.skip("interpreters share one GIL before 3.12")
    return interpreter


@pytest.mark.unsanitized("tsan")  # CPython itself sorts a table in all of them at once
def test_interpreters_with_gils_of_their_own_come_and_go(with_own_gils: Interpreter, tmp_path: Path) -> None:
    program = """
        import threading
        ended = False
        def spin():
            while not ended: pass
        def work():
            for _ in range(25): interpreters.destroy(interpreters.create(*words))
        sys.setswitchinterval(0.0001)
        spinner = threading.Thread(target=spin); spinner.start()
        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads: t.start()
        for t in threads: t.join()
        ended = True
        spinner.join()
    """
    run(with_own_gils, INTERPRETERS + program, tmp_path)
    (process,) = read(tmp_path)
    check(process)
    assert len(process.gils) > 1


def test_many_gils_one_after_the_other(with_own_gils: Interpreter, tmp_path: Path) -> None:
    program = """
        import ctypes
        malloc = ctypes.pythonapi.PyMem_RawMalloc
        malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        for _ in range(80):
            interpreters.destroy(interpreters.create(*words))
            # What it leaves is filled, so that the next one comes to lie elsewhere.
            for size in (1 << 16, 1 << 14, 1 << 12): assert all(malloc(size) for _ in range(16))
    """
    run(with_own_gils, INTERPRETERS + program, tmp_path)
    (process,) = read(tmp_path)
    check(process)
    assert len(of_kind(process.events, layout.Kind.ACQUIRE)) >= 160


# Python's functions are handed over as pointers, so that the helper is the same for every interpreter.
FOREIGN = """
#include <pthread.h>
static struct api { int (*ensure)(void); void (*release)(int); void *(*save)(void); void (*restore)(void *); } api;
static pthread_key_t key;
static void late(void *unused) { for (int i = 0; i < 3; i++) api.release(api.ensure()); }
static void *with_destructor(void *arg) { pthread_setspecific(key, arg); api.release(api.ensure()); return 0; }
static void *cancelled(void *arg) {
    api.ensure();
    pthread_cancel(pthread_self()); /* pending: the calls below have no cancellation point of their own */
    for (int i = 0; i < 2000; i++) api.restore(api.save());
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, 0);
    api.save();
    return arg;
}
static int run(void *(*start)(void *)) {
    pthread_t thread; void *out = 0;
    pthread_create(&thread, 0, start, &api);
    pthread_join(thread, &out);
    return out == &api;
}
void set(void *a, void *b, void *c, void *d) { void **to = (void **)&api; to[0] = a; to[1] = b; to[2] = c; to[3] = d; }
int run_cancelled(void) { return run(cancelled); }
void run_destructor(void) { pthread_key_create(&key, late); run(with_destructor); }
"""

FOREIGN_HOST = """
    import ctypes, sys
    library, names = ctypes.CDLL(sys.argv[1]), ("PyGILState_Ensure", "PyGILState_Release",
                                                "PyEval_SaveThread", "PyEval_RestoreThread")
    library.set(*(ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p) for name in names))
    print(getattr(library, sys.argv[2])())
"""


@pytest.mark.needs("cc")
def test_pending_cancellation_is_not_taken_inside_the_tracer(interpreter: Interpreter, tmp_path: Path) -> None:
    helper = compiled(FOREIGN, tmp_path / "foreign.so", "-shared", "-fPIC", "-pthread")
    assert run(interpreter, FOREIGN_HOST, tmp_path, helper, "run_cancelled") == "1\n"
    (process,) = read(tmp_path)
    check(process)
    assert len(process.threads) == 2


@pytest.mark.needs("cc")
def test_python_in_another_destructor_of_the_thread_is_before_its_end(interpreter: Interpreter, tmp_path: Path) -> None:
    helper = compiled(FOREIGN, tmp_path / "foreign.so", "-shared", "-fPIC", "-pthread")
    run(interpreter, FOREIGN_HOST, tmp_path, helper, "run_destructor")
    (process,) = read(tmp_path)
    check(process)
    kinds = process.events["kind"][process.events["thread"] == 1].tolist()
    assert kinds.count(layout.Kind.ACQUIRE) >= 4
    assert kinds.index(layout.Kind.THREAD_END) == len(kinds) - 1


EMBEDDING = """
extern void Py_InitializeEx(int); extern int PyRun_SimpleString(const char *); extern int Py_FinalizeEx(void);
int main(void) {
    for (int i = 0; i < 3; i++) {
        Py_InitializeEx(0);
        if (PyRun_SimpleString("import threading; t = threading.Thread(target=sum, args=((),)); t.start(); t.join()"))
            return 1;
        if (Py_FinalizeEx() != 0) return 2;
    }
    return 0;
}
"""


@pytest.mark.needs("cc")
def test_program_that_embeds_python_again_and_again(interpreter: Interpreter, tmp_path: Path) -> None:
    if not interpreter.shared:
        pytest.skip("has no libpython to link to")
    libpython = uprobes.binary(interpreter)
    program = compiled(EMBEDDING, tmp_path / "embeds", libpython, f"-Wl,-rpath,{libpython.parent}")
    execute([program], tmp_path, PYTHONHOME=libpython.parent.parent)
    (process,) = read(tmp_path)
    check(process)
    assert Path(os.fsdecode(process.executable)).name == "embeds"


def test_segfault_is_still_the_hosts_own(interpreter: Interpreter, tmp_path: Path) -> None:
    append_pair(tmp_path)
    command: list[str | Path] = [interpreter.path, "-X", "faulthandler", "-c", "import ctypes; ctypes.string_at(0)"]
    ran = subprocess.run(
        command, env=traced_environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in ran.stderr
    (process,) = read(tmp_path)
    check(process)
