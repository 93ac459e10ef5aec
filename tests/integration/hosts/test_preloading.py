"""What LD_PRELOAD names comes into every program below the target: each must run as it does without."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from giltrace import native
from giltrace.collectors.base import Session
from giltrace.collectors.gil import GilCollector
from giltrace.errors import TargetError
from giltrace.native.preloading import preload_path
from giltrace.recording import layout
from giltrace.recording.events import ProcessEvents
from giltrace.recording.gil import open_files
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, overlaps, read

HOSTS = TARGETS / "hosts"
MUSL = pytest.param("musl-gcc", marks=[pytest.mark.needs("musl-gcc"), pytest.mark.unsanitized])
HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 3; }\n'
THREADS = """
import threading, time
def work():
    for _ in range(200):
        time.sleep(0)
threads = [threading.Thread(target=work, name="worker") for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def preloaded(folder: Path, **variables: str | Path) -> dict[str, str]:
    """The environment below `giltrace record`."""
    ours = {"LD_PRELOAD": preload_path(), "GILTRACE_OUT": str(folder), "GILTRACE_STACKS": "16"}
    return {**os.environ, **ours, **{name: str(value) for name, value in variables.items()}}


def outcome(command: list[str | Path], env: dict[str, str]) -> tuple[int, str, str]:
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def assert_the_same(command: list[str | Path], folder: Path) -> None:
    assert outcome(command, preloaded(folder)) == outcome(command, dict(os.environ))


def compiled(source: Path | str, out: Path, compiler: str = "cc", *words: str) -> Path:
    if isinstance(source, str):
        path = out.with_suffix(".source.c")
        path.write_text(source)
    else:
        path = source
    subprocess.run([compiler, "-o", out, path, *words], check=True, timeout=60)
    return out


def only(folder: Path) -> ProcessEvents:
    (process,) = read(folder)
    return process


@pytest.mark.needs("cc")
@pytest.mark.parametrize(
    "how", [[], ["-static"], ["-fsanitize=address"], ["-no-pie"], ["-Wl,--hash-style=sysv"]], ids=str
)
def test_a_program_of_any_kind_prints_what_it_prints(how: list[str], tmp_path: Path) -> None:
    assert_the_same([compiled(HELLO, tmp_path / "hello", "cc", *how)], tmp_path)


@pytest.mark.unsanitized
@pytest.mark.needs("musl-gcc")
def test_a_program_on_musl(tmp_path: Path) -> None:
    assert_the_same([compiled(HELLO, tmp_path / "hello", "musl-gcc")], tmp_path)


@pytest.mark.unsanitized
@pytest.mark.needs("cc", "ld-linux.so.2")
def test_a_32_bit_program(tmp_path: Path) -> None:
    source = """
        void _start(void) {
            __asm__ volatile("int $0x80" : : "a"(4), "b"(1), "c"("hello\\n"), "d"(6) : "memory");
            __asm__ volatile("int $0x80" : : "a"(1), "b"(3));
        }
    """
    words = ["-m32", "-fno-pic", "-no-pie", "-nostdlib", "-Wl,--dynamic-linker=/lib/ld-linux.so.2", "-Wl,-E"]
    empty = compiled("", tmp_path / "libempty.so", "cc", "-m32", "-shared", "-nostdlib")
    words += ["-Wl,--no-as-needed", str(empty), f"-Wl,-rpath,{tmp_path}"]
    program = compiled(source, tmp_path / "hello", "cc", *words)
    assert outcome([program], preloaded(tmp_path)) == (3, "hello\n", "")


@pytest.mark.needs("cc")
@pytest.mark.parametrize("compiler", ["cc", MUSL])
def test_functions_that_are_stood_in_for_do_what_they_do(compiler: str, tmp_path: Path) -> None:
    assert_the_same([compiled(HOSTS / "calls.c", tmp_path / "calls", compiler)], tmp_path)


@pytest.mark.needs("cc")
def test_another_library_that_stands_in_for_the_same_still_does(tmp_path: Path) -> None:
    source = """
        #define _GNU_SOURCE
        #include <stdio.h>
        int prctl(int option, ...) { return printf("seen %d\\n", option) * 0; }
        long syscall(long number, ...) { return printf("seen %ld\\n", number) * 0; }
    """
    other = compiled(source, tmp_path / "other.so", "cc", "-shared", "-fPIC")
    program = compiled(HOSTS / "calls.c", tmp_path / "calls")
    ours = preloaded(tmp_path)
    both = {**ours, "LD_PRELOAD": f"{ours['LD_PRELOAD']}:{other}"}
    assert outcome([program], both) == outcome([program], {**os.environ, "LD_PRELOAD": str(other)})


@pytest.mark.unsanitized
@pytest.mark.needs("cc")
def test_a_process_that_confines_itself_tells_the_tracer_before(tmp_path: Path) -> None:
    """A tracer that only says when it is told, beside a copy of the stub."""
    tree = tmp_path / "lib"
    shutil.copytree(native.FOLDER, tree)
    source = """
        #include <unistd.h>
        void giltrace_confining(void) { write(1, "confining\\n", 10); }
    """
    compiled(source, tree / native.LIBRARY.name, "cc", "-shared", "-fPIC")
    stub = preload_path().replace(str(native.FOLDER.resolve()), str(tree))
    program = compiled(
        '#include "' + str(HOSTS / "calls.c") + '"\nchar _PyRuntime;\n', tmp_path / "calls", "cc", "-rdynamic"
    )
    said = outcome([program], preloaded(tmp_path, LD_PRELOAD=stub))[1].splitlines()
    bare = outcome([program], dict(os.environ))[1].splitlines()
    assert [line for line in said if line != "confining"] == bare
    assert said.count("confining") == 3


def test_a_python_that_becomes_another_program_says_so(interpreter: Interpreter, tmp_path: Path) -> None:
    program = "import os; os.execv('/bin/sh', ['sh', '-c', 'exit 0'])"
    subprocess.run([interpreter.path, "-c", program], env=preloaded(tmp_path), check=True, timeout=60)
    python, shell = open_files(tmp_path)
    assert layout.Status.HOOKED in layout.Status(int(python.header["status"]))
    assert layout.Status(int(shell.header["status"])) is layout.Status.NOT_PYTHON
    assert shell.header["clock"] == python.header["clock"]
    assert shell.header["pid"] == python.header["pid"]
    assert shell.header["start_ns"] > python.header["start_ns"]
    assert shell.header["start_ticks"] > python.header["start_ticks"]
    assert bytes(shell.header["executable"]) == os.fsencode(Path("/bin/sh").resolve())
    assert shell.path.stat().st_size == layout.HEADER_SIZE


def test_other_programs_leave_nothing(tmp_path: Path) -> None:
    subprocess.run(["/bin/sh", "-c", "true; /bin/true"], env=preloaded(tmp_path), check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("cc")
def test_a_python_that_is_loaded_later_is_traced_from_then_on(interpreter: Interpreter, tmp_path: Path) -> None:
    if not interpreter.shared:
        pytest.skip("it has no libpython")
    folder = tmp_path / "recording"
    folder.mkdir()
    prefix = interpreter.path.parents[1]
    (library,) = (prefix / "lib").glob("libpython3.*.so.1.0")
    program = compiled(HOSTS / "opens.c", tmp_path / "opens", "cc", "-ldl")
    env = preloaded(folder, PYTHONHOME=prefix)
    assert outcome([program, library, THREADS], env) == (0, "", "")
    process = only(folder)
    assert process.note == ""
    assert overlaps(process.events) == 0
    workers = [index for index, thread in enumerate(process.threads) if thread.name == "worker"]
    releases = of_kind(process.events, layout.Kind.RELEASE)
    assert len(workers) == 3
    assert all(np.count_nonzero(releases["thread"] == worker) >= 200 for worker in workers)


@pytest.mark.unsanitized
@pytest.mark.needs("cc")
def test_room_for_the_thread_local_data_of_other_libraries_is_left(interpreter: Interpreter, tmp_path: Path) -> None:
    """glibc keeps some 1,600 bytes of every thread's block for libraries that come later and insist on it."""
    program = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    for size in range(1664, 0, -32):
        source = f"__thread char block[{size}]; char *get(void) {{ return block; }}"
        words = ("-shared", "-fPIC", "-ftls-model=initial-exec")
        library = compiled(source, tmp_path / f"big{size}.so", "cc", *words)
        if outcome([interpreter.path, "-c", program, library], dict(os.environ))[0] == 0:
            break
    else:
        pytest.skip("its loader has no room for any")
    assert outcome([interpreter.path, "-c", program, library], preloaded(tmp_path)) == (0, "", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run programs as another user")
def test_an_installation_that_others_cannot_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("giltrace.native.preloading.FOLDER", private_copy(tmp_path))
    env = preloaded(tmp_path)
    staged = Path(env["LD_PRELOAD"]).parents[3]
    try:
        assert staged.parent in map(Path, ("/tmp", "/var/tmp", "/dev/shm"))
        ran = subprocess.run(
            ["/bin/sh", "-c", "/bin/true"], env=env, user=65534, capture_output=True, text=True, timeout=60, cwd="/"
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        # The same again is not copied again.
        assert preload_path() == env["LD_PRELOAD"]
    finally:
        shutil.rmtree(staged)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder to another user")
@pytest.mark.parametrize("wrong", ["owner", "mode", "link"])
def test_a_folder_that_another_user_has_made_is_not_trusted(
    wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("giltrace.native.preloading.FOLDER", private_copy(tmp_path))
    staged = Path(preload_path()).parents[3]
    elsewhere = tmp_path / "elsewhere"
    if wrong == "owner":
        os.chown(staged, 65534, 65534)
    elif wrong == "mode":
        staged.chmod(0o777)
    else:
        shutil.move(staged, elsewhere)
        staged.symlink_to(elsewhere)
    other = Path(preload_path()).parents[3]
    try:
        assert other != staged
        assert other.stat().st_uid == os.geteuid()
    finally:
        shutil.rmtree(other)
        staged.unlink() if staged.is_symlink() else shutil.rmtree(staged)


def private_copy(tmp_path: Path) -> Path:
    private = tmp_path / "private"
    shutil.copytree(native.FOLDER, private / "lib")
    private.chmod(0o700)
    return private / "lib"


def test_a_place_whose_name_loaders_would_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    odd = tmp_path / "a folder: $LIB"
    shutil.copytree(native.FOLDER, odd / "lib")
    monkeypatch.setattr("giltrace.native.preloading.FOLDER", odd / "lib")
    staged = Path(preload_path()).parents[3]
    try:
        assert not set(" :") & set(str(staged))
        assert outcome(["/bin/true"], preloaded(tmp_path)) == (0, "", "")
    finally:
        shutil.rmtree(staged)


def test_the_users_own_preloads_stay(tmp_path: Path) -> None:
    env = {"LD_PRELOAD": "/first.so:/second.so"}
    GilCollector().prepare(tmp_path, env)
    assert env["LD_PRELOAD"] == f"{preload_path()}:/first.so:/second.so"


@pytest.mark.unsanitized
def test_a_tracer_that_is_missing_is_said(tmp_path: Path) -> None:
    tree = tmp_path / "lib"
    shutil.copytree(native.FOLDER, tree)
    (tree / native.LIBRARY.name).unlink()
    folder = tmp_path / "recording"
    folder.mkdir()
    stub = preload_path().replace(str(native.FOLDER.resolve()), str(tree))
    ran = outcome(["/usr/bin/env", "python3", "-c", "print(1)"], preloaded(folder, LD_PRELOAD=stub))
    assert ran == (0, "1\n", "")
    assert only(folder).note == f"the tracer for {native.LIBC} was not built, or cannot be read by this process"


@pytest.mark.needs("cc")
@pytest.mark.parametrize(("kind", "said"), [("static", "statically linked"), ("set-user-id", "set-user-id")], ids=str)
def test_a_recording_without_a_python_says_why(kind: str, said: str, tmp_path: Path) -> None:
    source = '#include <unistd.h>\nint main(void) { char byte; write(1, "!", 1); read(0, &byte, 1); return 0; }\n'
    program = compiled(source, tmp_path / "program", "cc", *(["-static"] if kind == "static" else []))
    if kind == "set-user-id":
        program.chmod(0o4755)
    collector = GilCollector()
    collector.prepare(tmp_path, {})
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        collector.start(Session(tmp_path, process.pid, None))
        collector.poll()
        process.communicate(b"!", timeout=60)
    report = collector.stop()
    assert said in report.status
    assert str(program) in report.status


def test_which_tracers_there_are() -> None:
    assert f"{native.LIBC} {native.MACHINE}" in native.tracers()
    assert native.tracer_library(native.LIBC, native.MACHINE) == native.LIBRARY
    with pytest.raises(TargetError, match="no tracer for glibc on m68k") as refused:
        native.tracer_library("glibc", "m68k")
    assert "GILTRACE_TRACERS=all" in refused.value.remedy
